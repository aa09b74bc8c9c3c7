"""Every boundary's target by name: what the tests, the corpus and `make fuzz` go by.

A target is a function of bytes. It calls the product's own code with them and asserts what that code
promises; whatever it raises is a find. It is deterministic, and leaves nothing behind.
"""

from collections.abc import Callable
from pathlib import Path

import fuzz_checkpoints
import fuzz_commands
import fuzz_documents
import fuzz_doors
import fuzz_files
import fuzz_identities
import fuzz_pages
import fuzz_receivers
import fuzz_wire

CORPUS = Path(__file__).parent / "corpus"

TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        fuzz_wire.inputs,
        fuzz_wire.outputs,
        fuzz_wire.streams,
        fuzz_documents.policy,
        fuzz_documents.configuration,
        fuzz_pages.engine_page,
        fuzz_pages.gateway_page,
        fuzz_pages.page_answer,
        fuzz_files.log_folder,
        fuzz_files.log_forged,
        fuzz_files.spool_folder,
        fuzz_files.agent_boot,
        fuzz_files.receiver_folder,
        fuzz_checkpoints.checkpoint_payload,
        fuzz_checkpoints.checkpoint_parts,
        fuzz_commands.command,
        fuzz_commands.times,
        fuzz_commands.answers,
        fuzz_doors.lanes,
        fuzz_doors.twin_request,
        fuzz_doors.gateway_door,
        fuzz_receivers.receiver,
        fuzz_identities.identities,
        fuzz_identities.certificates,
    )
}


def examples(target: str) -> list[Path]:
    """The corpus of a target, in order of name."""
    return sorted((CORPUS / target).iterdir())
