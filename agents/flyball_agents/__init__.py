"""What runs beside GPUs and engines: the node agent, the receiver, and the adapters it governs through.

Serving never waits for anything here, and nothing here decides what a good setting is.
"""
