"""Every boundary's target by name: what the tests, the corpus and `make fuzz` go by.

A target is a function of bytes. It calls the product's own code with them and asserts what that code
promises; whatever it raises is a find. It is deterministic, and leaves nothing behind.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import cast

Target = Callable[[bytes], None]

CORPUS = Path(__file__).parent / "corpus"

MODULES: dict[str, tuple[str, ...]] = {
    "fuzz_wire": ("inputs", "outputs", "streams"),
    "fuzz_documents": ("policy", "configuration"),
    "fuzz_pages": ("engine_page", "gateway_page", "page_answer"),
    "fuzz_files": ("log_folder", "log_forged", "spool_folder", "agent_boot", "receiver_folder"),
    "fuzz_checkpoints": ("checkpoint_payload", "checkpoint_parts"),
    "fuzz_commands": ("command", "times", "answers"),
    "fuzz_doors": ("lanes", "twin_request", "gateway_door"),
    "fuzz_receivers": ("receiver",),
    "fuzz_identities": ("identities", "certificates"),
    "fuzz_scenarios": ("scenario", "trace"),
    "fuzz_physics": ("kernel_file", "kernel_table", "model_config"),
}
"""Where each target stands; a module is imported when one of its targets is asked for."""

TARGETS = tuple(name for names in MODULES.values() for name in names)


def target_of(name: str) -> Target:
    """The target of that name."""
    [module] = [module for module, names in MODULES.items() if name in names]
    return cast("Target", getattr(importlib.import_module(module), name))


def examples(name: str) -> list[Path]:
    """The corpus of a target, in order of name."""
    return sorted((CORPUS / name).iterdir())
