"""Whether llama.cpp's own settings can reach a model through Ollama: seen in the process table.

Ollama starts its ``llama-server`` with its own environment (``SetupLlamaServerCommandEnv`` in
``llm/llama_server.go``), and ``llama-server`` takes what its arguments leave open from variables
``LLAMA_ARG_*`` and from its configuration file.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from attrs import frozen

from velollm_core.errors import UsageError
from velollm_core.experiment.servers import server_of


@frozen
class Row:
    """One line of the process table."""

    pid: int
    parent: int
    argv: tuple[str, ...]


def processes() -> tuple[Row, ...]:
    """The processes that may be seen from here."""
    import psutil

    rows = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            rows.append(Row(process.pid, process.ppid(), tuple(process.cmdline())))
    return tuple(rows)


def runs_llama_server(rows: Iterable[Row]) -> bool:
    """Whether an Ollama among ``rows`` has a ``llama-server`` for a child."""
    table = {row.pid: row for row in rows}
    return any(
        server_of(row.argv) == "llama-server"
        and row.parent in table
        and server_of(table[row.parent].argv) == "ollama"
        for row in table.values()
    )


def require_seen(rows: Iterable[Row]) -> None:
    """Make sure that llama.cpp's own settings would have an effect.

    Raises:
        UsageError: no Ollama is seen to run models in a ``llama-server``.
    """
    if not runs_llama_server(rows):
        raise UsageError(
            "-X experimental=on needs an Ollama that is seen to run a llama-server; none is.",
            "Load a model (ollama run NAME) and ask again, as a user who may see its processes. "
            "Older versions run models in another way, where these settings have no effect.",
        )
