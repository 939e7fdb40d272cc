"""Is a tune that was killed and resumed the tune that it would have been?

1. On a planted engine with a fixed seed, in a space with crashes: a process is killed (SIGKILL) at
   a random moment, and another goes on with what the journal holds, to be killed as well, until the
   tune comes to its end and the next begins: 200 kills. Everything that a tune says must be what an
   undisturbed one says, down to the figures, and no trial that had ended may be started again.
2. ``velollm tune --budget 6m`` on real llama.cpp is killed three times and resumed: no process may
   be left, no ended trial be measured again, the journal must be sound after each kill, and what
   was lost in killed trials must not count against the budget.

Each tune is kept as it ends, in results/partial/; a check that was stopped goes on from there.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from attrs import define
from kept import Kept
from machine import ENGINE, ENGINE_NAME, wait_for_rest
from record import ROOT, arguments, write_record

from velollm_core.documents import loads
from velollm_core.errors import FailureKind
from velollm_core.experiment.journal import Journal
from velollm_core.experiment.spec import Trial
from velollm_core.testing.processes import Family, describe
from velollm_core.tune.spec import KIND, MAJOR, TuneResult

KILLS = {"planted": 200, "llama.cpp": 3}
BUDGET_S = 360
OVERRUN = 1.1
DEPENDS_ON = (
    "velollm_core/tune",
    "velollm_core/experiment/journal.py",
    "velollm_core/experiment/keys.py",
    "velollm_core/experiment/runner.py",
    "velollm_core/backends/guard.py",
    "velollm_core/backends/processes.py",
    "velollm_core/testing/fakes.py",
    "plugins/velollm-llamacpp/velollm_llamacpp/launch.py",
    "benchmarks/killed.py",
    "benchmarks/planted.py",
    "benchmarks/rugged.py",
    "benchmarks/tune_kills.py",
)
_MARK = "TUNE_KILLS_MARK"
_GONE_S = 10.0
_LONGEST_S = 120.0
_PAUSE_S = 60
"""The pauses of a tune are multiples of this."""
_COMMAND = (
    *(sys.executable, "-m", "velollm_core.cli", "--backend", "llamacpp"),
    *("-X", "=".join(*ENGINE.items()), "--model", "demo"),
    *("tune", "--workload", "short", "--requests", "4", "--concurrency", "4"),
    *("--max-tokens", "24", "--budget", f"{BUDGET_S}s", "--json", "--quiet"),
)

Place = tuple[str, str, int]
"""Arm, key and block."""


def main() -> int:
    given = arguments(__doc__ or "").parse_args()
    kept = Kept("tune-kills", DEPENDS_ON, {"engine": ENGINE_NAME})
    planted(kept)
    if kept.left([{"part": "llama.cpp"}]):
        kept.add([{"part": "llama.cpp", **on_llama_cpp(random.Random("kills"))}])
    found = figures(kept.entries)
    write_record(given.output, found, DEPENDS_ON)
    kept.forget()
    return 0 if found["holds"] == "yes" else 1


@define
class Campaign:
    """One planted tune from its beginning to its end, whatever comes between."""

    folder: Path
    kills: int = 0
    again: int = 0
    began: int = 0

    @property
    def journal(self) -> Path:
        return self.folder / "journal.sqlite3"

    @property
    def result(self) -> Path:
        return self.folder / "result.json"

    @property
    def launches(self) -> Path:
        return self.folder / "launches"

    def process(self, within_s: float | None) -> bool:
        """Start a process, and kill it after ``within_s`` unless it has ended; whether it has."""
        ended = {(arm, block) for arm, _, block in trials(self.journal)}
        known = self._launched()
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("killed.py")),
             *map(str, (self.journal, self.launches, self.result))],
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert process.stdout is not None
        if process.stdout.readline() != "begun\n":
            raise SystemExit(f"the planted tune did not begin: exit code {process.wait()}")
        try:
            process.wait(_LONGEST_S if within_s is None else within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self.kills += 1
        process.stdout.close()
        fresh = self._launched() - known
        self.began += fresh.total()
        self.again += sum(fresh[place] for place in ended)
        return process.returncode == 0

    def _launched(self) -> Counter[tuple[str, int]]:
        if not self.launches.exists():
            return Counter()
        lines = self.launches.read_text(encoding="utf-8").splitlines()
        return Counter((line.split()[0], int(line.split()[1])) for line in lines)


def planted(kept: Kept) -> None:
    """Kill planted tunes until there were enough kills; each is held against an undisturbed one."""
    kills = sum(entry["kills"] for entry in planted_ones(kept.entries))
    if kills >= KILLS["planted"]:
        return
    whole, whole_s = undisturbed()
    while kills < KILLS["planted"]:
        draw = random.Random(f"kills {len(kept.entries)}")
        entry = killed_and_resumed(whole, whole_s, KILLS["planted"] - kills, draw)
        kept.add([entry])
        kills += entry["kills"]
        print(f"planted: {kills} kills, this tune differs in {entry['different']}", flush=True)


def planted_ones(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for entry in entries if entry["part"] == "planted"]


def killed_and_resumed(
    whole: Mapping[str, Any], whole_s: float, most: int, draw: random.Random
) -> dict[str, Any]:
    """One planted tune, killed at most so many times."""
    damaged = 0
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder))
        while not campaign.process(draw.uniform(0, whole_s) if campaign.kills < most else None):
            damaged += not sound(campaign.journal)
        decided = decisions(json.loads(campaign.result.read_text(encoding="utf-8")))
        killed_trials = campaign.began - len(trials(campaign.journal))
    return {
        "part": "planted",
        "kills": campaign.kills,
        "trials": decided["trials"],
        "killed within a trial": killed_trials,
        "started again": campaign.again,
        "journals damaged": damaged,
        "different": differences(whole, decided),
    }


def undisturbed() -> tuple[dict[str, Any], float]:
    """What an undisturbed tune decides, and how long it takes."""
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder))
        started = time.monotonic()
        if not campaign.process(None):
            raise SystemExit("the planted tune did not come to its end")
        took_s = time.monotonic() - started
        return decisions(json.loads(campaign.result.read_text(encoding="utf-8"))), took_s


def decisions(document: Any) -> Any:
    """A tune's document without its name and date; figures to nine digits, since times are
    differences of clocks that began elsewhere.
    """
    if isinstance(document, dict):
        left = {"run", "created_at"}
        return {key: decisions(value) for key, value in document.items() if key not in left}
    if isinstance(document, list):
        return [decisions(value) for value in document]
    return float(f"{document:.9g}") if isinstance(document, float) else document


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The names of what differs."""
    return [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]


def trials(path: Path) -> dict[Place, Trial]:
    """Every trial of the journal's one run that ended by itself."""
    if not path.exists():
        return {}
    journal = Journal(path)
    return {
        (trial.arm, trial.key, trial.block): trial
        for info in journal.runs()
        for trial in journal.trials(info.id)
        if trial.failure is None or trial.failure.kind is not FailureKind.INTERRUPTED
    }


def sound(path: Path) -> bool:
    """Whether SQLite finds nothing wrong with a journal, as far as there is one yet."""
    if not path.exists():
        return True
    with sqlite3.connect(path) as database:
        (said,) = database.execute("PRAGMA integrity_check").fetchone()
    database.close()
    return bool(said == "ok")


def on_llama_cpp(draw: random.Random) -> dict[str, Any]:
    """Kill ``velollm tune`` three times, and let the fourth process come to the end."""
    kills, damaged = 0, 0
    orphans: list[str] = []
    ended: dict[Place, Trial] = {}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        mark = f"{os.getpid()}-{time.time_ns()}"
        environ = {**os.environ, "VELOLLM_DATA_DIR": folder, _MARK: mark}
        family = Family((_MARK, mark))
        journal = Path(folder) / "journal.sqlite3"
        wall_s = 0.0
        while True:
            wait_for_rest()
            resuming = ("--resume", "last") if journal.exists() else ()
            started = time.monotonic()
            process = subprocess.Popen(
                [*_COMMAND, *resuming], cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True
            )
            stack.callback(process.kill)
            try:
                within_s = None if kills == KILLS["llama.cpp"] else draw.uniform(15, 60)
                said, _ = process.communicate(timeout=within_s)
            except subprocess.TimeoutExpired:
                family.look()
                process.kill()
                process.communicate()
                wall_s += time.monotonic() - started
                kills += 1
                orphans += map(describe, family.left_after(_GONE_S))
                family.kill()
                damaged += not sound(journal)
                ended |= trials(journal)
                print(f"llama.cpp: kill {kills}, {len(ended)} trials had ended", flush=True)
                continue
            wall_s += time.monotonic() - started
            orphans += map(describe, family.left_after(_GONE_S))
            break
        if process.returncode not in {0, 4} or not said:
            raise SystemExit(f"velollm tune ended with exit code {process.returncode}")
        damaged += not sound(journal)
        now = trials(journal)
    result = loads(said, KIND, MAJOR, TuneResult, "velollm tune")
    measured_s = sum(trial.duration_ms for trial in now.values()) / 1000
    beyond_s = result.spent_s - measured_s
    return {
        "kills": kills,
        "trials": result.trials,
        "trials that had ended at a kill": len(ended),
        "started again": sum(now.get(place) != trial for place, trial in ended.items()),
        "processes left": orphans,
        "journals damaged": damaged,
        "complete": result.complete,
        "conclusion": str(result.conclusion),
        "spent_s": result.spent_s,
        "wall_s": wall_s,
        "counted beyond trials and pauses, s": abs(
            beyond_s - _PAUSE_S * round(beyond_s / _PAUSE_S)
        ),
    }


def figures(entries: list[dict[str, Any]]) -> dict[str, Any]:
    ones = planted_ones(entries)
    (real,) = (entry for entry in entries if entry["part"] == "llama.cpp")
    fake = {
        name: sum(entry[name] for entry in ones)
        for name in ("kills", "killed within a trial", "started again", "journals damaged")
    }
    different = sum(bool(entry["different"]) for entry in ones)
    holds = (
        fake["kills"] >= KILLS["planted"]
        and not (different or fake["started again"] or fake["journals damaged"])
        and real["kills"] == KILLS["llama.cpp"]
        and real["complete"]
        and not (real["processes left"] or real["started again"] or real["journals damaged"])
        and real["spent_s"] <= BUDGET_S * OVERRUN
        and real["counted beyond trials and pauses, s"] < 1.0
    )
    return {
        "planted: kills": fake["kills"],
        "planted: tunes that were killed": len(ones),
        "planted: trials of a tune": ones[0]["trials"],
        "planted: trials that a kill cut off": fake["killed within a trial"],
        "planted: tunes that decided otherwise": different,
        "planted: ended trials that were started again": fake["started again"],
        "planted: journals damaged": fake["journals damaged"],
        "llama.cpp: engine": ENGINE_NAME,
        "llama.cpp: kills": real["kills"],
        "llama.cpp: trials": real["trials"],
        "llama.cpp: trials that had ended at a kill": real["trials that had ended at a kill"],
        "llama.cpp: ended trials that were started again": real["started again"],
        "llama.cpp: processes left": len(real["processes left"]),
        "llama.cpp: journals damaged": real["journals damaged"],
        "llama.cpp: conclusion": real["conclusion"],
        "llama.cpp: budget, s": BUDGET_S,
        "llama.cpp: spent, s": real["spent_s"],
        "llama.cpp: time of all processes, s": real["wall_s"],
        "holds": "yes" if holds else "no",
    }


if __name__ == "__main__":
    sys.exit(main())
