"""The small gateway: an OpenAI-compatible reverse proxy with HAProxy's weights, caps and queue.

For machines where HAProxy is not to be had, and for embedding. It fronts one pool, keeps no
request on disk, judges nobody's right to ask, and serves whether or not a controller can be reached.
"""
