"""Pages name the default ports; tests run beside each other. So each run of a page has free ports of its own.

Plain substitution: every `127.0.0.1:PORT` and `localhost:PORT` in a page's commands and files becomes the same address
with another port, and in what the commands print it is put back. A page that starts a service states its addresses: one
left to its default would collide.
"""

import os
import random
import re
import socket

_ADDRESS = re.compile(r"(?<=\b127\.0\.0\.1:)\d{2,5}\b|(?<=\blocalhost:)\d{2,5}\b")
_LOW, _HIGH = 20_000, 30_000
"""Below what the kernel hands out by itself, so that no outgoing connection takes a chosen port."""


class Ports:
    """The ports of one run of a page."""

    def __init__(self) -> None:
        self._draw = random.Random(os.urandom(8))
        self._found: dict[int, int] = {}

    def of(self, documented: int) -> int:
        """The port that stands for this documented one."""
        if documented not in self._found:
            self._found[documented] = self._free()
        return self._found[documented]

    def stands_for(self, documented: int, port: int) -> None:
        """Let a port that something listens on already stand for a documented one."""
        self._found[documented] = port

    def in_text(self, text: str) -> str:
        """The text with its ports replaced."""
        return _ADDRESS.sub(lambda found: str(self.of(int(found[0]))), text)

    def put_back(self, text: str) -> str:
        """What a command printed, with the documented ports in it."""
        documented = {str(port): str(known) for known, port in self._found.items()}
        return _ADDRESS.sub(lambda found: documented.get(found[0], found[0]), text)

    def _free(self) -> int:
        while True:
            port = self._draw.randrange(_LOW, _HIGH)
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
            if port not in self._found.values():
                return port
