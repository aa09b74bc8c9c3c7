"""A controller in this process and those at its doors, by the name that the tests of this folder know them by."""

from harness.living_controller import (
    PATIENCE_S as PATIENCE_S,
    POLICY as POLICY,
    TICK_S as TICK_S,
    Receiver as Receiver,
    Running as Running,
    append as append,
    attached as attached,
    config_for as config_for,
    engine as engine,
    eventually as eventually,
    frame as frame,
    nack_of as nack_of,
    pin as pin,
    running as running,
    status as status,
    stub as stub,
    target as target,
)
from harness.scripted_engine import POOL as POOL
