"""Addresses written HOST:PORT, and which of them stay on this machine.

Resolves no names: a name is loopback only if it is `localhost`.
"""

from ipaddress import ip_address

from flyball_core.errors import Rejected

_LAST_PORT = 65_535
_LONGEST = 253 + len("[]:65535")


def split_address(address: str) -> tuple[str, int]:
    """Host (an IPv6 one without its brackets) and port of HOST:PORT; `Rejected` if it has another form."""
    host, _, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if bracketed else host
    wrong = not bare or len(address) > _LONGEST or any(sign.isspace() or sign in "/@[]," for sign in bare)
    if wrong or (":" in bare) != bracketed or not bare.isprintable():
        raise Rejected(f"{address!r} is not HOST:PORT, as in 127.0.0.1:7460 or [::1]:7460")
    if not (port.isascii() and port.isdecimal()) or int(port) > _LAST_PORT:
        raise Rejected(f"{address!r}: {port!r} is not a port, 0 to {_LAST_PORT}")
    return bare, int(port)


def is_loopback(address: str) -> bool:
    """Whether HOST:PORT (or a URL's host and port) can only mean this machine; `Rejected` if it is neither."""
    host, _ = split_address(address)
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
