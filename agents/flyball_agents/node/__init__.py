"""The agent of one node: where it reads GPUs, engines and gateways, and how it comes to the log.

Reads and never changes: nothing here sets anything on a GPU or in an engine.
"""
