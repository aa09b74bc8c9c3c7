"""The controller as a service: loops that drive owner and pusher, and the gRPC doors around them.

Decides nothing and keeps no state that matters: whatever changes a pool's decisions goes through
the log, so a controller may be killed at any moment.
"""

from flyball_controller.serving.service import ControllerAddresses, Parts, run_controller

__all__ = ["ControllerAddresses", "Parts", "run_controller"]
