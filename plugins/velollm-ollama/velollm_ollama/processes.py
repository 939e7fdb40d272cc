"""The processes of an Ollama on this machine: the server, and the ``llama-server`` below it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise

import psutil

from velollm_core.backends.local import is_local, listeners
from velollm_core.experiment.servers import server_of


def server_at(url: str) -> psutil.Process | None:
    """The process of the Ollama at ``url``, where it is one of this machine and may be seen.

    Who listens at a port is told only of one's own processes. A service runs as a user of its own:
    where nobody is seen to listen, and one single Ollama of another user serves, it is that one.
    """
    if not is_local(url):
        return None
    heard = listeners(url)
    if heard:
        return next((process for process in heard if _runs(process, "ollama")), None)
    others = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if _runs(process, "ollama") and process.username() != psutil.Process().username():
                others.append(process)
    return others[0] if len(others) == 1 else None


def family(pid: int) -> tuple[int, ...]:
    """The process and all below it; empty once it is gone."""
    try:
        process = psutil.Process(pid)
        return (pid, *(child.pid for child in process.children(recursive=True)))
    except psutil.Error:
        return ()


def engine_arguments(pid: int, weights: str | None) -> tuple[str, ...]:
    """The arguments of the ``llama-server`` below ``pid`` that has loaded a model.

    Args:
        pid: the server's process.
        weights: the name of the model's file, without its folder; any model where it is not known
            and only one is loaded.

    Returns:
        them without the program; empty where no such process can be seen.
    """
    found = []
    for member in family(pid):
        with suppress(psutil.Error):
            argv = psutil.Process(member).cmdline()
            if server_of(argv) == "llama-server" and (weights is None or _loads(argv, weights)):
                found.append(tuple(argv[1:]))
    return found[0] if len(found) == 1 else ()


def _runs(process: psutil.Process, program: str) -> bool:
    with suppress(psutil.Error):
        return server_of(process.cmdline()) == program
    return False


def _loads(argv: Sequence[str], weights: str) -> bool:
    return any(flag == "--model" and path.endswith(weights) for flag, path in pairwise(argv))
