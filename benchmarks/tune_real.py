"""What a tune comes to on real llama.cpp with the demo model, on this machine.

1. Eight clients at once, total throughput, against llama-server's own settings (four slots, one KV
   cache for all); each request must be able to hold 2,048 tokens, and four must run at once.
2. One client that has long texts summarized, tokens of the prompt a second.
3. One client, and only the numbers of threads to choose, of which the engine's own are the best:
   that has to end with "keep what you have", within the budget.

No server may be started, in whatever stage, with fewer slots or less context than is required; what
each one says of itself is what is looked at. The engine is the llama-server named in
VELOLLM_TEST_LLAMA_SERVER, else the embedded one. Each trial is kept as it ends, in
results/partial/; a check that was stopped (Ctrl-C, SIGTERM) goes on from there (--resume).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from kept import PARTIAL, Kept
from machine import ENGINE, ENGINE_NAME, wait_for_rest
from record import ROOT, arguments, trees, write_record

from velollm_core.config import Config
from velollm_core.documents import loads
from velollm_core.experiment.journal import Journal
from velollm_core.experiment.spec import Trial
from velollm_core.tune.confirm import ratio_words
from velollm_core.tune.spec import KIND, MAJOR, Conclusion, Tried, TuneResult

OVERRUN = 1.1
MOST_LEFT = 0.10
"""Where what there is is kept, no candidate may still be faster by more than this."""
DEPENDS_ON = (
    "velollm_core/tune",
    "velollm_core/statistics.py",
    "velollm_core/experiment/comparison.py",
    "velollm_core/experiment/measures.py",
    "velollm_core/experiment/phases.py",
    "velollm_core/experiment/runner.py",
    "plugins/velollm-llamacpp/velollm_llamacpp",
    "benchmarks/tune_real.py",
)
_COMMAND = (
    *(sys.executable, "-m", "velollm_core.cli", "--backend", "llamacpp"),
    *("-X", "=".join(*ENGINE.items()), "--model", "demo", "tune", "--json"),
)
_STOPS_WITHIN_S = 60.0


@frozen(kw_only=True)
class Part:
    """One tune. ``context_tokens`` and ``parallel`` are what it has to keep, where that is asked
    for; else as much as there is.
    """

    words: tuple[str, ...]
    budget_s: int
    context_tokens: int | None = None
    parallel: int | None = None

    @property
    def options(self) -> tuple[str, ...]:
        named = {"--context": self.context_tokens, "--parallel": self.parallel}
        asked = [word for name, n in named.items() if n is not None for word in (name, str(n))]
        return (*self.words, *asked, "--budget", f"{self.budget_s}s")


PARTS: Mapping[str, Part] = {
    "throughput": Part(
        words=(
            *("--objective", "throughput", "--concurrency", "8", "--launches", "24"),
            *("--workload", "short", "--requests", "16", "--max-tokens", "32"),
        ),
        budget_s=1500,
        context_tokens=2048,
        parallel=4,
    ),
    "prefill": Part(
        words=(
            *("--objective", "prefill", "--workload", "summarize", "--requests", "1"),
            *("--warmup", "0", "--max-tokens", "8"),
        ),
        budget_s=1500,
    ),
    "threads": Part(
        words=(
            *("--objective", "decode", "--only", "threads,threads_batch"),
            *("--workload", "short", "--requests", "2", "--max-tokens", "32"),
        ),
        budget_s=600,
    ),
}


class Enough(Exception):  # noqa: N818 - not an error, a choice
    """The time that was given is over."""


def main() -> int:
    parser = arguments(__doc__ or "")
    parser.add_argument("--minutes", type=float, help="measure so long now, and keep what is done")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    until = None if given.minutes is None else time.monotonic() + 60 * given.minutes
    kept = Kept("tune-real", DEPENDS_ON, {"engine": ENGINE_NAME})
    for item in kept.left([{"part": part} for part in PARTS]):
        try:
            entry = tuned(item["part"], until)
        except Enough:
            print("Call it again to go on.")
            return 0
        kept.add([{**item, **entry}])
    found = figures(kept.entries)
    write_record(given.output, found, DEPENDS_ON)
    kept.forget()
    for part in PARTS:
        shutil.rmtree(folder(part), ignore_errors=True)
    return 0 if found["holds"] == "yes" else 1


def folder(part: str) -> Path:
    """Where a tune that is not at its end has its journal, by the code and the engine."""
    of = json.dumps([trees(DEPENDS_ON), ENGINE_NAME])
    return PARTIAL / f"tune-real-{part}-{hashlib.sha256(of.encode()).hexdigest()[:8]}"


def tuned(part: str, until: float | None) -> dict[str, Any]:
    """One tune from where an earlier call left it to its end.

    Raises:
        Enough: it is ``until``, or the user has stopped it.
    """
    data = folder(part)
    journal = Journal(data / "journal.sqlite3")
    resuming = ("--resume", "last") if journal.runs() else ()
    wait_for_rest()
    process = subprocess.Popen(
        [*_COMMAND, *PARTS[part].options, *resuming],
        cwd=ROOT,
        env={**os.environ, "VELOLLM_DATA_DIR": str(data)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is passed on below, once
    )
    try:
        left_s = None if until is None else max(0.0, until - time.monotonic())
        said, _ = process.communicate(timeout=left_s)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=_STOPS_WITHIN_S)
        raise Enough from None
    if process.returncode not in {0, 4} or not said:
        raise SystemExit(f"velollm tune ended with exit code {process.returncode}")
    result = told(said)
    too_little = forbidden(journal.trials(result.run), PARTS[part])
    return {"started with too little": too_little, "document": json.loads(said)}


def told(said: str) -> TuneResult:
    return loads(said, KIND, MAJOR, TuneResult, "velollm tune")


def forbidden(trials: Sequence[Trial], part: Part) -> list[str]:
    """What each server says that had less than is required, by arm and block.

    The first trial is of what there is, which is kept where nothing is asked for.
    """
    now = room(trials[0].effective)
    asked = (part.parallel, part.context_tokens)
    slots, each = (have if want is None else want for have, want in zip(now, asked, strict=True))
    return list(_less(trials, slots, each))


def _less(trials: Sequence[Trial], slots: int, each: int) -> Iterator[str]:
    for trial in trials:
        if "slots" in trial.effective and any(
            has < least for has, least in zip(room(trial.effective), (slots, each), strict=True)
        ):
            yield f"{trial.arm} {trial.block}: {trial.effective}"


def room(effective: Config) -> tuple[int, int]:
    """How many requests a server runs at once, and how many tokens each of them may hold."""
    slots, context = (int(effective[name]) for name in ("slots", "context"))
    return slots, context if effective["kv_unified"] else context // slots


def figures(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    results = {entry["part"]: told(json.dumps(entry["document"])) for entry in entries}
    too_little = sum(len(entry["started with too little"]) for entry in entries)
    found: dict[str, Any] = {"engine": ENGINE_NAME}
    for part, result in results.items():
        found |= {
            f"{part}: conclusion": str(result.conclusion),
            f"{part}: why": result.why,
            f"{part}: trials": result.trials,
            f"{part}: trials that failed": result.failed,
            f"{part}: noise of a trial, %": 100 * (result.noise or 0.0),
            f"{part}: budget, s": result.task.budget_s,
            f"{part}: spent, s": result.spent_s,
        }
        if result.conclusion is Conclusion.KEEP:
            found[f"{part}: most that a candidate could bring, %"] = 100 * most_left(result)
        found |= {
            f"{part}: speed against {answer.baseline}": ratio_words(answer.overall)
            for answer in result.answers
        }
    holds = all(settled(part, result) for part, result in results.items()) and not too_little
    return {
        **found,
        "servers started with fewer slots or less context than required": too_little,
        "holds": "yes" if holds else "no",
        "documents": [entry["document"] for entry in entries],
    }


def settled(part: str, result: TuneResult) -> bool:
    """Whether a tune came to what it has to, within its budget: a gain that is proven, or the proof
    that there is none to speak of.
    """
    if not result.complete or result.spent_s > OVERRUN * result.task.budget_s:
        return False
    if part == "threads":
        return result.conclusion is Conclusion.KEEP
    if result.conclusion is Conclusion.KEEP:
        return most_left(result) <= MOST_LEFT
    return result.conclusion is Conclusion.FASTER


def most_left(result: TuneResult) -> float:
    """By how much what there is could at most be beaten, by the intervals of what was measured
    against it: of each candidate where it was measured longest.
    """
    longest: dict[Config, Tried] = {}
    for tried in (t for stage in result.stages if not stage.incumbent for t in stage.tried):
        known = longest.get(tried.changes)
        if tried.high is not None and (known is None or known.blocks < tried.blocks):
            longest[tried.changes] = tried
    highs = [tried.high for tried in longest.values()]
    highs += [answer.overall.high for answer in result.answers]
    return max((high - 1.0 for high in highs if high is not None), default=math.inf)


if __name__ == "__main__":
    sys.exit(main())
