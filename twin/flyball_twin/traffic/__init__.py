"""Where requests come from: traces, processes that draw them, and sessions that answer what they get."""
