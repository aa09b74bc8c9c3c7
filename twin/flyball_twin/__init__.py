"""A fleet of simulated engines in virtual time, behind the doors that real ones have.

What a step takes comes from measured kernels where somebody measured them, and what is assumed says so. The
controller never imports this package, so that it cannot know the equations it is tested on.
"""
