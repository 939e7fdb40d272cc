"""Runs of pytest on suites that are written for a test, judged by what they report."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from attrs import frozen


@frozen
class Report:
    """What a run of pytest said: names of tests by outcome, and its output."""

    passed: frozenset[str]
    failed: frozenset[str]
    skipped: frozenset[str]
    output: str


def run_pytest(
    folder: Path, *words: str, timeout: float = 150, every_plugin: bool = False, **environ: str
) -> Report:
    """pytest in ``folder``, apart from this project's settings.

    With VeloLLM's plugin alone, unless ``every_plugin`` that is installed is to be loaded as usual:
    that takes a second of work each time.
    """
    if not every_plugin:
        words = ("-p", "velollm", *words)
        environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    (folder / "pytest.ini").touch()
    report = folder / f"report{len(list(folder.glob('report*.xml')))}.xml"
    if "TINY" in environ:
        report = folder / f"report-{environ['TINY']}.xml"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider",
         "--strict-markers", f"--junitxml={report}", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )  # fmt: skip
    outcomes: dict[str, set[str]] = {"passed": set(), "failed": set(), "skipped": set()}
    for case in ET.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "passed"
        outcome = "skipped" if "skipped" in kinds else outcome
        outcomes[outcome].add(case.attrib["name"])
    return Report(**{k: frozenset(v) for k, v in outcomes.items()}, output=done.stdout)


@pytest.fixture(scope="session")
def run_suite() -> Callable[..., Report]:
    """``run_suite(folder, *words, **environ)`` runs pytest there."""
    return run_pytest
