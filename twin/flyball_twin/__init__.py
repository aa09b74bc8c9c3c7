"""A fleet of simulated engines in virtual time, behind the doors that real ones have.

Nothing here is calibrated: physics are a plain roofline with assumed constants. The
controller never imports this package, so that it cannot know the equations it is tested on.
"""
