"""Where Ollama listens: ``OLLAMA_HOST`` in all the forms that Ollama accepts.

As ``Host`` and ``ConnectableHost`` in Ollama's ``envconfig/config.go`` read it.
"""

from __future__ import annotations

import ipaddress
import re

from velollm_core.backends.http import HttpClient
from velollm_core.errors import UsageError
from velollm_ollama.values import cleaned

PORT = 11434
_PORT_OF = {"http": 80, "https": 443}
_MOST, _LONGEST = 65535, 20  # int() raises for thousands of digits
_HOST = re.compile(r"[\w.-]+")
_HOW = "Write it as HOST, HOST:PORT or http://HOST:PORT"
_BRACKETED = re.compile(r"\[([^\[\]]*)\]:([^\[\]:]*)")
_PLAIN = re.compile(r"([^\[\]:]*):([^\[\]:]*)")


def base_url(text: str, origin: str) -> str:
    """The URL at which a client reaches the Ollama that ``text`` names.

    Spaces and quotes around it are dropped. ``host``, ``host:port`` and an IP address mean ``http``
    and port 11434; with a scheme the port is 80 or 443 unless told. A port that is none is passed
    over for that one. Nothing at all, and an address that means every interface, mean loopback.

    Args:
        text: what the user wrote.
        origin: where, for messages.

    Raises:
        UsageError: no URL comes of it.
    """
    scheme, found, rest = cleaned(text).strip().partition("://")
    if not found:
        scheme, rest = "http", scheme
    default = _PORT_OF.get(scheme, PORT) if found else PORT
    place, _, path = rest.partition("/")
    if "?" in path or "#" in path:
        raise UsageError(f"{origin} names no server: its path holds a query or fragment.", _HOW)
    host, port = _split(place, default)
    try:
        address = ipaddress.ip_address(host)
        if address.is_unspecified:
            host = "127.0.0.1" if address.version == 4 else "::1"
        if address.version == 6:
            host = f"[{host}]"
    except ValueError:
        if "@" in place or not _HOST.fullmatch(host):  # it may hold a password: it is not quoted
            raise UsageError(f"{origin} names no server: there is no such host.", _HOW) from None
    url = f"{scheme}://{host}:{port}" + (f"/{path}" if path else "")
    try:
        return HttpClient(url).url
    except UsageError as error:
        raise UsageError(f"{origin} names no server: {error.message}", _HOW) from error


def _split(place: str, default: int) -> tuple[str, int]:
    match = _BRACKETED.fullmatch(place) or _PLAIN.fullmatch(place)
    if match is None:
        return place.strip("[]") or "127.0.0.1", default
    host, port = match[1] or "127.0.0.1", match[2]
    valid = port.isascii() and port.isdecimal() and len(port) <= _LONGEST and int(port) <= _MOST
    return host, int(port) if valid else default
