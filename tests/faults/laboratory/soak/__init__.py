"""The soak: a whole fleet of real processes for an hour or a night, with something of it always broken.

`make soak MINUTES=60` runs it. It reports memory and descriptors of every part, the disk, how long the fleet took to
be itself again after each round of faults, and what the checker found in the record. It measures and judges; it tunes
nothing and mends nothing.
"""
