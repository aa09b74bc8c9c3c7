"""Capacity and cost of fleets: queueing, pooling, lag, tiers. Holds nothing yet."""
