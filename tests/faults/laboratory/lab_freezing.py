"""A controller that stands still at the worst moment: after it has decided, and before it has told anybody.

Everything in it is the product's, but for one look before it publishes directives: at whether FILE.freeze lies beside
its configuration FILE. Then it takes that away and freezes itself, as by SIGSTOP from outside. What it does when it
is thawed is what any controller does.
"""

import os
import signal
import sys
from pathlib import Path
from unittest.mock import patch

from flyball_cli import main as command
from flyball_controller.owner import Owned, Owner
from flyball_controller.serving import service
from flyball_log.interface import Topic

MODULE = "laboratory.lab_freezing"


def freeze_file(config: Path) -> Path:
    """What has the controller of this configuration freeze."""
    return config.with_name(f"{config.name}.freeze")


class FreezingOwner(Owner):
    """An owner that freezes with directives in its hands."""

    ordered = Path()

    async def _publish(self, owned: Owned, partition: int) -> None:
        """As the product does; frozen just before, if it is told to and has something to tell engines."""
        tells = any(where is Topic.DIRECTIVES and b"directive/" in entry.key for where, entry in owned.unpublished)
        if tells and self.ordered.exists():
            self.ordered.unlink()
            os.kill(os.getpid(), signal.SIGSTOP)
        await super()._publish(owned, partition)


def main() -> None:
    """`controller --config FILE`."""
    FreezingOwner.ordered = freeze_file(Path(sys.argv[-1]))
    with patch.object(service, "Owner", FreezingOwner):
        command.main()
