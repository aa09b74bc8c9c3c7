"""The small engine with real doors: the twin's engine at real time, behind OpenAI's HTTP and vLLM's metrics.

It stands in for a GPU server on a laptop: clients, gateways, agents and receivers meet it through real
sockets. It computes nothing but time: what it answers are filler words, and it says so by its model's name.
"""
