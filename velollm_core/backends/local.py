"""A server of this machine that somebody else started: which processes it is."""

from __future__ import annotations

import os
from contextlib import suppress
from urllib.parse import urlsplit

import psutil

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


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
    pids = {
        entry.pid
        for entry in connections
        if entry.pid
        and entry.status == psutil.CONN_LISTEN
        and entry.laddr
        and entry.laddr.port == port
    }
    found = []
    for pid in pids - {os.getpid()}:
        with suppress(psutil.Error):
            found.append(psutil.Process(pid))
    return tuple(found)
