"""A run in virtual time through the production agents, log, owner, pusher and receivers."""
