"""What pytest offers to the author of a backend once velollm is installed.

Fixtures: ``velollm_environ`` and ``velollm`` (the command, in folders of its own),
``velollm_place`` (where engines are started), ``velollm_raw_server`` and ``no_process_left``. The
conformance suites bring their own. Nothing is imported, and nothing is done, before a test asks for
one of them. ``-p no:velollm`` switches it off.
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
    from velollm_core.testing.processes import Family
    from velollm_core.testing.raw_server import Behave, RawServer

pytest.register_assert_rewrite("velollm_core.testing.conformance")

GUARD = "test_no_test_is_missing_or_replaced_without_a_reason"
"""The test of each conformance suite that is never skipped, unless its whole class is."""
UNDOING = frozenset({"skip", "skipif", "xfail"})
"""Marks that take a test's verdict away."""

_DEVIATIONS = pytest.StashKey[list[str]]()
_MARKER = "velollm_deviates(reason): takes the place of a test of VeloLLM's conformance kit"


def pytest_configure(config: pytest.Config) -> None:
    """Make the kit's marker known."""
    config.addinivalue_line("markers", _MARKER)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Note every test that deviates from the kit, with its reason."""
    config.stash[_DEVIATIONS] = [
        f"{item.nodeid}: {reason_of(mark) or 'no reason is given'}"
        for item in items
        if (mark := item.get_closest_marker("velollm_deviates")) is not None
    ]


def reason_of(mark: pytest.Mark) -> str:
    """The reason that a mark gives, by name, or by place where it takes nothing else."""
    by_place = mark.args[:1] if mark.name in {"skip", "velollm_deviates"} else ()
    return str(mark.kwargs.get("reason") or "".join(map(str, by_place))).strip()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A suite that is switched off as a whole says why, or fails: its guard would be off, too."""
    if item.name != GUARD:
        return
    for mark in item.iter_markers():
        if mark.name in UNDOING and not reason_of(mark):
            pytest.fail(f"the suite is marked {mark.name} without a reason", pytrace=False)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Show them at the end, and the suites that are switched off."""
    deviations = config.stash.get(_DEVIATIONS, []).copy()
    for outcome in ("skipped", "xfailed", "xpassed"):
        for report in terminalreporter.getreports(outcome):
            suite, _, name = report.nodeid.rpartition("::")
            if name == GUARD:
                said = report.longrepr[2] if outcome == "skipped" else report.wasxfail
                reason = said.removeprefix("Skipped: ")
                deviations.append(f"{suite}, {outcome} as a whole: {reason}")
    if deviations:
        terminalreporter.section("deviations from VeloLLM's conformance kit")
        for line in deviations:
            terminalreporter.write_line(line)


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
def velollm_raw_server() -> Iterator[Callable[[Behave], RawServer]]:
    """Start servers that do with each connection and its request what a function says."""
    from velollm_core.testing.raw_server import RawServer

    servers: list[RawServer] = []

    def start(behave: Behave) -> RawServer:
        servers.append(RawServer(behave))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
