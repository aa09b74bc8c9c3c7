"""The words of Flyball as types: ids, units, versions, knobs, inputs, outputs.

Standard library only. Everything else imports this package; it imports nothing
of Flyball. It holds no behaviour that could differ between a simulated and a
real fleet, reads no clock and opens no file.
"""

from flyball_core.version import __version__

__all__ = ["__version__"]
