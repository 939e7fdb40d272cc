"""A server of this machine that somebody else started: which processes it is."""

from __future__ import annotations

import os
from contextlib import suppress
from urllib.parse import urlsplit

import psutil

_V4 = ("127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0", "::")  # noqa: S104 - looked for, not bound
_V6 = ("::1", "::")
_LOOPBACK = {"127.0.0.1": (_V4,), "localhost": (_V4, _V6), "::1": (_V6,)}
"""For each name, the addresses at which it may be listened to; of one family the first at which
somebody listens gets the connection, because the more specific one does."""


def is_local(url: str) -> bool:
    """Whether ``url`` leads to this machine by an address that no other one has."""
    return urlsplit(url).hostname in _LOOPBACK


def listeners(url: str) -> tuple[psutil.Process, ...]:
    """The processes that listen at ``url``, where they are of this machine and may be seen.

    Such a process may be a proxy or a tunnel, whose memory and work mean nothing: the caller knows
    what its server looks like. This process is never among them.
    """
    port = urlsplit(url).port
    if not is_local(url) or port is None:
        return ()
    try:
        connections = psutil.net_connections("tcp")
    except psutil.Error:
        return ()  # macOS tells only root
    at: dict[str, list[int | None]] = {}
    for entry in connections:
        if entry.status == psutil.CONN_LISTEN and entry.laddr and entry.laddr.port == port:
            at.setdefault(entry.laddr.ip, []).append(entry.pid)
    pids: dict[int, None] = {}
    for addresses in _LOOPBACK[urlsplit(url).hostname or ""]:
        heard = next((at[address] for address in addresses if address in at), [])
        pids |= dict.fromkeys(pid for pid in heard if pid and pid != os.getpid())
    found = []
    for pid in pids:
        with suppress(psutil.Error):
            found.append(psutil.Process(pid))
    return tuple(found)
