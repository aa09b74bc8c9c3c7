"""What several test folders share: a scripted pool, its event log, and the invariant monitor.

It knows the machine only from outside, through encoded inputs and what `step` answers.
"""
