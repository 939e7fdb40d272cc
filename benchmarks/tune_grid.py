"""A grid of real speeds, for searches to be replayed on.

Every combination of seven knobs on two models, the demo model and Gemma 3 270M, three launches
each: 8 clients at once, each with one prompt of some thirty words and an answer of 16 tokens, so
that reading and writing both count. A block holds every configuration once, in shuffled order.
Kept is how many tokens of all clients together came a second, and how long the launch took
altogether.

A launch beside which something else was at work is measured again. The engine is the llama-server
named in VELOLLM_TEST_LLAMA_SERVER, else the embedded one. Each launch is kept as it ends, in
results/partial/; a check that was stopped, in whatever way, goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any

from kept import PARTIAL
from machine import ENGINE, ENGINE_NAME, surroundings, wait_for_rest
from record import arguments, trees, write_record
from velollm_llamacpp.backend import LlamaCpp

from velollm_core.backends.contract import Message
from velollm_core.config import Config, Settings, Value
from velollm_core.experiment.clock import SystemClock
from velollm_core.experiment.journal import Journal, RunJournal, resume
from velollm_core.experiment.measures import METRICS, value_of
from velollm_core.experiment.runner import Progress, run
from velollm_core.experiment.spec import Arm, Experiment, Phase, Trial, Workload
from velollm_core.models.demo import DemoSource
from velollm_core.models.header import model_spec
from velollm_core.models.parts import read_model_files
from velollm_core.models.spec import Model
from velollm_core.plugins import load
from velollm_core.testing.gemma import gemma_path

GRID: Mapping[str, tuple[Value, ...]] = {
    "threads": (1, 2),
    "threads_batch": (1, 2),
    "ubatch": (32, 128, 512),
    "flash_attention": ("on", "off"),
    "slots": (4, 8),
    "kv_unified": (True, False),
    "poll": (0, 50),
}
FIXED = Config({"context": 2048})
"""Enough for eight requests, and as much for every configuration."""
DEFAULTS = Config(
    {
        "threads": 2,
        "threads_batch": 2,
        "ubatch": 512,
        "flash_attention": "on",
        "slots": 4,
        "kv_unified": True,
        "poll": 50,
    }
)
"""What llama-server does by itself on two processors."""
METRIC = "output_tok_s"
LAUNCHES = 3
CLIENTS = 8
ANSWER_TOKENS = 16
_WORDS = 30
MEASURED_WITH = (
    "velollm_core/experiment/measures.py",
    "velollm_core/experiment/phases.py",
    "velollm_core/experiment/runner.py",
    "plugins/velollm-llamacpp/velollm_llamacpp/launch.py",
    "plugins/velollm-llamacpp/velollm_llamacpp/session.py",
    "plugins/velollm-llamacpp/velollm_llamacpp/stream.py",
)
"""What a launch depends on beside its own key, which has the configuration and the workload."""
DEPENDS_ON = (*MEASURED_WITH, "benchmarks/tune_grid.py")
_MOST_FOREIGN_CPUS = 0.1
_ROUNDS = 5
"""After so many a launch stays as it is, however busy the machine was."""


class Enough(Exception):  # noqa: N818 - not an error, a choice
    """The time that was given is over."""


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--minutes", type=float, help="measure so long now, and keep what is done")
    given = parser.parse_args()
    until = None if given.minutes is None else time.monotonic() + 60 * given.minutes
    trials: dict[str, tuple[Trial, ...]] = {}
    with suppress(Enough):
        for name, path in models().items():
            wait_for_rest()
            trials[name] = undisturbed(name, path, until)
    if len(trials) < len(models()):
        print("Call it again to go on.")
        return
    write_record(given.output, figures(trials), DEPENDS_ON)
    for name in trials:
        for path in PARTIAL.glob(f"{journal(name).path.name}*"):
            path.unlink()


def models() -> dict[str, Path]:
    return {
        "demo": DemoSource().resolve("", lambda *_: None, os.environ),
        "gemma": gemma_path(os.environ),
    }


def configurations() -> Iterator[Config]:
    for values in product(*GRID.values()):
        yield Config(dict(zip(GRID, values, strict=True)))


def undisturbed(name: str, path: Path, until: float | None) -> tuple[Trial, ...]:
    """Every launch of one model, those that are kept included; the disturbed ones anew.

    Raises:
        Enough: it is ``until``, or the user has stopped it.
    """
    kept = side(name)
    trials = measured(name, path, kept, until)
    for _ in range(_ROUNDS):
        again = [trial for trial in trials if disturbed(trial)]
        if not again:
            break
        print(f"{name}: {len(again)} launches anew, beside which others were at work", flush=True)
        for trial in again:
            kept.forget(trial.arm, trial.key, trial.block)
        wait_for_rest()
        trials = measured(name, path, kept, until)
    return trials


def disturbed(trial: Trial) -> bool:
    """Whether something else was at work on this machine beside ``trial``."""
    foreign = trial.load.foreign_cpus
    return foreign is not None and foreign > _MOST_FOREIGN_CPUS


def measured(name: str, path: Path, kept: RunJournal, until: float | None) -> tuple[Trial, ...]:
    """Every launch of one model, those that are kept included.

    Raises:
        Enough: it is ``until``, or the user has stopped it.
    """
    backend = LlamaCpp()
    installation = backend.probe(ENGINE, os.environ)[0]
    model = Model(reference=name, path=path, spec=model_spec(read_model_files(path)))
    base = backend.defaults(installation, model).config | FIXED
    configs = list(configurations())
    experiment = Experiment(
        arms=tuple(
            Arm(
                name=str(number),
                backend=backend,
                installation=installation,
                model=model,
                settings=Settings(config=base | config),
            )
            for number, config in enumerate(configs)
        ),
        phases=(
            Phase(
                workload=workload(),
                requests=CLIENTS,
                concurrency=CLIENTS,
                max_tokens=ANSWER_TOKENS,
            ),
        ),
        blocks=LAUNCHES,
    )
    done = 0

    def tell(progress: Progress) -> None:
        nonlocal done
        trial = progress.trial
        if trial is None:
            return
        done += 1
        if progress.kept:
            return
        said = trial.failure.message if trial.failure else f"{speed(trial) or 0:.1f} tok/s"
        print(
            f"{name} {done}/{len(configs) * LAUNCHES}: {configs[int(trial.arm)]}: {said} "
            f"({trial.duration_ms / 1000:.1f} s)",
            flush=True,
        )
        if until is not None and time.monotonic() > until:
            raise Enough

    result = run(
        experiment,
        journal=kept,
        clock=SystemClock(),
        surroundings=surroundings(),
        observe=tell,
    )
    if result.interrupted:
        raise Enough
    return result.trials


def workload() -> Workload:
    """The first words of ``short``: it names another place and person each time."""
    short = load(os.environ).workloads()["short"]

    def messages(seed: int, block: int, index: int) -> tuple[Message, ...]:
        words = short.messages(seed, block, index)[0].content.split()
        return (Message(role="user", content=" ".join(words[:_WORDS])),)

    return Workload(
        name="begin",
        summary="a sentence or two to go on with",
        max_tokens=ANSWER_TOKENS,
        messages=messages,
        digest=f"{short.digest}, {_WORDS} words",
    )


def journal(name: str) -> Journal:
    return Journal(PARTIAL / f"tune-grid-{name}.sqlite3")


def side(name: str) -> RunJournal:
    """What an earlier call left of the same grid, by the same code and on the same engine."""
    of = json.dumps([trees(MEASURED_WITH), ENGINE_NAME])
    identifier = hashlib.sha256(of.encode()).hexdigest()[:16]
    kept = journal(name)
    if identifier not in {info.id for info in kept.runs()}:
        kept.start(identifier, created_at=SystemClock().utc(), kind="grid", head={})
    return resume(kept, identifier)


def speed(trial: Trial) -> float | None:
    """Tokens a second of all clients, unless the launch failed or not all were answered."""
    if trial.failure is not None or not trial.phases:
        return None
    if any(sample.error is not None for sample in trial.phases[0].samples):
        return None
    return value_of(METRICS[METRIC], trial.phases[0])


def rows(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """One entry a configuration, its launches in the order of the blocks.

    ``at_s`` is when each began, after the first of all.
    """
    begin = min(map(began, trials))
    found = []
    for number, config in enumerate(configurations()):
        mine = sorted((t for t in trials if t.arm == str(number)), key=lambda t: t.block)
        speeds = [speed(trial) for trial in mine]
        found.append(
            {
                "config": dict(config),
                "tok_s": [None if value is None else round(value, 2) for value in speeds],
                "seconds": [round(trial.duration_ms / 1000, 2) for trial in mine],
                "at_s": [(began(trial) - begin).total_seconds() for trial in mine],
            }
        )
    return found


def began(trial: Trial) -> datetime:
    return datetime.fromisoformat(trial.started_at)


def figures(trials: Mapping[str, Sequence[Trial]]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "engine": ENGINE_NAME,
        "configurations": math.prod(map(len, GRID.values())),
        "launches of each": LAUNCHES,
        "clients": CLIENTS,
    }
    for name, mine in trials.items():
        table = rows(mine)
        whole = {Config(row["config"]): row["tok_s"] for row in table if None not in row["tok_s"]}
        means = {config: statistics.mean(speeds) for config, speeds in whole.items()}
        best, worst = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
        squares = [
            (math.log(value) - statistics.mean(map(math.log, speeds))) ** 2
            for speeds in whole.values()
            for value in speeds
        ]
        freedom = len(whole) * (LAUNCHES - 1)
        found |= {
            f"{name}: the best": str(best),
            f"{name}: the best, tok/s": means[best],
            f"{name}: the worst, tok/s": means[worst],
            f"{name}: llama-server's own, tok/s": means[DEFAULTS],
            f"{name}: configurations within 5 % of the best": sum(
                value >= means[best] / 1.05 for value in means.values()
            ),
            f"{name}: noise of a launch, %": 100 * math.sqrt(sum(squares) / freedom),
            f"{name}: launches beside which something else was at work": sum(map(disturbed, mine)),
            f"{name}: launches that failed": sum(row["tok_s"].count(None) for row in table),
            f"{name}: launches in which a knob was not taken": sum(
                bool({fault.knob for fault in trial.mismatches} & set(GRID)) for trial in mine
            ),
            f"{name}: a launch, mean s": statistics.mean(t.duration_ms / 1000 for t in mine),
        }
    return found | {f"grid of {name}": rows(mine) for name, mine in trials.items()}


if __name__ == "__main__":
    main()
