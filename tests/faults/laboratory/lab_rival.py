"""A controller in a consumer group of its own, so that it is given every partition, whoever owns them already.

Nothing else in it is changed. It stands for all that can give two controllers the same share: a group that is split,
a broker that forgot, a configuration that names another group.
"""

from unittest.mock import patch

from flyball_cli import main as command
from flyball_log.kafka import KafkaSettings

MODULE = "laboratory.lab_rival"


def main() -> None:
    """`controller --config FILE`."""
    with patch.object(KafkaSettings, "group", property(lambda settings: f"{settings.prefix}-rivals")):
        command.main()
