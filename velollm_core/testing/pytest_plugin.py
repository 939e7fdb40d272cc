"""What pytest offers to the author of a backend once velollm is installed.

Fixtures: ``under_test`` (behind the conformance suites), ``velollm_environ`` and ``velollm`` (the
command, in folders of its own), ``velollm_place`` (where engines are started), ``no_process_left``
and ``raw_server``. Nothing is imported, and nothing is done, before a test asks for one of them.
``-p no:velollm`` switches it off.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from velollm_core.backends.processes import Place
    from velollm_core.testing.conformance.facts import Facts
    from velollm_core.testing.conformance.under_test import UnderTest
    from velollm_core.testing.processes import Family
    from velollm_core.testing.raw_server import Behave, RawServer

pytest.register_assert_rewrite("velollm_core.testing.conformance")

_DEVIATIONS = pytest.StashKey[list[str]]()
_MARKER = "velollm_deviates(reason): takes the place of a test of VeloLLM's conformance kit"


def pytest_configure(config: pytest.Config) -> None:
    """Make the kit's marker known."""
    config.addinivalue_line("markers", _MARKER)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Note every test that deviates from the kit, with its reason."""
    config.stash[_DEVIATIONS] = [
        f"{item.nodeid}: {mark.kwargs['reason']}"
        for item in items
        if (mark := item.get_closest_marker("velollm_deviates")) is not None
    ]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Show them at the end."""
    deviations = config.stash.get(_DEVIATIONS, [])
    if deviations:
        terminalreporter.section("deviations from VeloLLM's conformance kit")
        for line in deviations:
            terminalreporter.write_line(line)


@pytest.fixture(scope="class")
def under_test(facts: Facts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UnderTest]:
    """The backend that the author's fixture ``facts`` describes, with one session for the class."""
    from velollm_core.testing.conformance.under_test import UnderTest

    shared = UnderTest(facts, tmp_path_factory.mktemp("conformance"))
    yield shared
    shared.end()


@pytest.fixture
def velollm_environ(tmp_path: Path) -> dict[str, str]:
    """A user who has set nothing, with folders of his own for data, configuration and cache."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("VELOLLM_", "LLAMA_"))}
    folders = {
        f"VELOLLM_{name.upper()}_DIR": str(tmp_path / name) for name in ("data", "config", "cache")
    }
    return kept | folders | {"COLUMNS": "120"}


@pytest.fixture
def velollm(
    velollm_environ: dict[str, str], tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``velollm`` with arguments to its end; keyword ``env`` adds to its environment."""

    def run(
        *words: str, env: dict[str, str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "velollm_core.cli", *words],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=velollm_environ | (env or {}),
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture
def velollm_place(tmp_path: Path) -> Callable[..., Place]:
    """Make places: ``velollm_place(seconds_until_its_deadline, **variables)``."""
    from velollm_core.backends.processes import Place

    count = iter(range(1000))

    def make(seconds: float = 90.0, **environ: str) -> Place:
        directory = tmp_path / f"place-{next(count)}"
        directory.mkdir()
        return Place(
            directory=directory,
            log_path=directory / "server.log",
            environ={**os.environ, **environ},
            deadline=time.monotonic() + seconds,
        )

    return make


@pytest.fixture
def no_process_left() -> Iterator[Family]:
    """Whatever the test starts is gone after it."""
    from velollm_core.testing.processes import nothing_left

    with nothing_left() as family:
        yield family


@pytest.fixture
def raw_server() -> Iterator[Callable[[Behave], RawServer]]:
    """Start servers that do with each connection and its request what a function says."""
    from velollm_core.testing.raw_server import RawServer

    servers: list[RawServer] = []

    def start(behave: Behave) -> RawServer:
        servers.append(RawServer(behave))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
