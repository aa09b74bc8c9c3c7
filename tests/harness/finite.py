"""Whether a state holds only numbers that mean something."""

import math
from dataclasses import fields, is_dataclass


def infinities(value: object, where: str = "state") -> list[str]:
    """Where in a state stands an infinity, or a NaN outside the smoothed columns (where it means: not measured)."""
    if isinstance(value, float):
        missing = math.isnan(value) and where.rsplit(".", 1)[-1].startswith("smooth[")
        return [] if math.isfinite(value) or missing else [f"{where} is {value}"]
    if is_dataclass(value):
        inside = [(f".{field.name}", getattr(value, field.name)) for field in fields(value)]
    elif isinstance(value, dict):
        inside = [(f"[{key!r}]", item) for key, item in value.items()]
    elif isinstance(value, (list, tuple)):
        inside = [(f"[{i}]", item) for i, item in enumerate(value)]
    else:
        return []
    return [found for name, item in inside for found in infinities(item, where + name)]
