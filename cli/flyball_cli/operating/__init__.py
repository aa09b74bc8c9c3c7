"""The operator's commands: what a running fleet is told and asked, over the controllers' gRPC doors.

Nothing here reads a log, an engine or a file of a service's state: controllers answer, or
nobody does. Nothing here decides either: the pool's owner takes an order or refuses it.
"""
