"""What every service stands on: its configuration, TLS, logs, metrics and health.

Knows nothing of what a service does, decides nothing, and keeps no state of its own.
"""
