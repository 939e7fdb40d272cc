"""Settings of llama.cpp that Ollama does not offer, and whether they reach a model through it.

Ollama starts its ``llama-server`` with its own environment (``SetupLlamaServerCommandEnv`` in
``llm/llama_server.go``), and ``llama-server`` takes what its arguments leave open from variables
``LLAMA_ARG_*`` and from its configuration file. That it does so is seen in the process table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from attrs import frozen

from velollm_core.config import Choices, Condition, Range, Role
from velollm_core.errors import UsageError
from velollm_core.experiment.servers import server_of
from velollm_ollama.entries import Entry, make

_LLAMA_CPP = "llama.cpp, tools/server/README.md"
_SPECULATIVE = "llama.cpp, docs/speculative.md"
_LOAD = "experimental, of llama.cpp itself: "
_VARIABLES = "LLAMA_ARG_"

EXPERIMENTAL: tuple[Entry, ...] = (
    make(
        "spec_type",
        Role.SPECULATION_TYPE,
        Choices(("none", "ngram-simple", "ngram-map-k", "ngram-map-k4v", "ngram-mod")),
        f"{_LOAD}how tokens are drafted ahead of a model that has no draft",
        default="none",
        source=_SPECULATIVE,
        experimental=True,
        numerics="rounding",
        variable="LLAMA_ARG_SPEC_TYPE",
        form="word",
    ),
    *(
        make(
            f"ngram_mod_{part}",
            role,
            Range(1, 1024),
            f"{_LOAD}{summary}",
            default=default,
            source=_SPECULATIVE,
            experimental=True,
            unit="tokens",
            numerics="rounding",
            scope="user",
            active_when=Condition("spec_type", ("ngram-mod",)),
            key=f"spec-ngram-mod-{part.replace('_', '-')}",
        )
        for part, role, default, summary in (
            ("n_match", Role.SPECULATION_MATCH, 24, "length of the n-gram that is looked up"),
            ("n_min", Role.OTHER, 48, "shortest draft that is used"),
            ("n_max", Role.SPECULATION_LENGTH, 64, "longest draft"),
        )
    ),
    make(
        "threads_batch",
        Role.THREADS_PREFILL,
        Range(0, 512),
        f"{_LOAD}processor threads that read the prompt; 0: as many as generate",
        default=0,
        source=_LLAMA_CPP,
        experimental=True,
        numerics="rounding",
        scope="user",
        own_choice=0,
        key="threads-batch",
    ),
    make(
        "cache_ram",
        Role.PROMPT_CACHE,
        Range(-1, 2**24),
        f"{_LOAD}most main memory for the prompts of idle slots; -1: no limit, 0: none",
        default=8192,
        source=_LLAMA_CPP,
        experimental=True,
        unit="MiB",
        numerics="rounding",
        variable="LLAMA_ARG_CACHE_RAM",
    ),
)
"""What an Ollama that runs ``llama-server`` can be made to do beyond its own settings. Variables of
its environment reach all its models; llama.cpp's configuration file reaches every ``llama-server``
of that user, whoever starts it."""

_SHORT = {"threads_batch": "tb", "cache_ram": "cram"}


def _words_of(entry: Entry) -> Iterator[str]:
    """How llama.cpp's configuration file may name a knob: as an argument or as a variable."""
    if entry.key is not None:
        yield entry.key
    if entry.variable is not None:
        yield entry.variable
        yield entry.variable.removeprefix(_VARIABLES).lower().replace("_", "-")
    if entry.knob.name in _SHORT:
        yield _SHORT[entry.knob.name]


BY_KEY: Mapping[str, Entry] = {word: entry for entry in EXPERIMENTAL for word in _words_of(entry)}
"""By what llama.cpp's configuration file may call them."""


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
