"""Does a tune claim a gain on a real engine where there is none to be had?

Ten tunes of real llama.cpp and the demo model, each with prompts and an order of its own, over four
knobs that the engine never hears of: they are planted above it, with the roles of a batch size, an
attention kernel and two others, so that the search goes through its stages. The noise is the
machine's own. Every gain that is claimed is false.

The engine is the llama-server named in VELOLLM_TEST_LLAMA_SERVER, else the embedded one. Each tune
is kept as it ends, in results/partial/; a check that was stopped goes on from there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from kept import Kept
from machine import ENGINE, ENGINE_NAME, hardware, surroundings, wait_for_rest
from planted import knob
from record import arguments, write_record
from velollm_llamacpp.backend import LlamaCpp

from velollm_core.backends.contract import (
    Backend,
    Event,
    Finish,
    Footprint,
    Installation,
    MemoryUse,
    Request,
    Session,
)
from velollm_core.backends.processes import Place
from velollm_core.config import Choices, Config, Knob, Problem, Range, Role, Settings
from velollm_core.experiment.clock import SystemClock
from velollm_core.experiment.journal import RunJournal
from velollm_core.experiment.spec import Phase
from velollm_core.models.references import resolve
from velollm_core.models.spec import Model
from velollm_core.plugins import load
from velollm_core.tune.objective import parse_objective
from velollm_core.tune.search import Found, tune
from velollm_core.tune.spec import Conclusion, Task

TUNES = 10
BUDGET_S = 300.0
REQUESTS = 2
MOST_CLAIMS = 1
KNOBS: tuple[Knob, ...] = (
    knob("rows", Role.BATCH_PHYSICAL, Range(64, 4096)),
    knob("kernel", Role.ATTENTION, Choices(("plain", "fused"))),
    knob("colour", Role.OTHER, Choices(("red", "green", "blue"))),
    knob("pace", Role.OTHER, Range(0, 100)),
)
DEFAULTS = Config({"rows": 512, "kernel": "plain", "colour": "red", "pace": 50})
DEPENDS_ON = (
    "velollm_core/tune",
    "velollm_core/statistics.py",
    "velollm_core/experiment/comparison.py",
    "velollm_core/experiment/measures.py",
    "velollm_core/experiment/phases.py",
    "velollm_core/experiment/runner.py",
    "plugins/velollm-llamacpp/velollm_llamacpp/launch.py",
    "plugins/velollm-llamacpp/velollm_llamacpp/session.py",
    "plugins/velollm-llamacpp/velollm_llamacpp/stream.py",
    "benchmarks/planted.py",
    "benchmarks/tune_inert.py",
)


def main() -> int:
    parser = arguments(__doc__ or "")
    parser.add_argument("--most", type=int, help="do at most so many tunes now, and keep them")
    given = parser.parse_args()
    kept = Kept("tune-inert", DEPENDS_ON, {"engine": ENGINE_NAME})
    plan = [{"seed": seed} for seed in range(TUNES)]
    for item in kept.left(plan)[: given.most]:
        wait_for_rest()
        found = one_tune(item["seed"])
        if found.interrupted:
            return 130
        kept.add([{**item, **outcome(found)}])
        print(kept.entries[-1], flush=True)
    if kept.left(plan):
        print(f"{len(kept.left(plan))} tunes are left; call it again to go on.")
        return 0
    shown = figures(kept.entries)
    write_record(given.output, shown, DEPENDS_ON)
    kept.forget()
    return 0 if shown["holds"] == "yes" else 1


def one_tune(seed: int) -> Found:
    backend = Inert()
    installation = backend.probe(ENGINE, os.environ)[0]
    plugins = load(os.environ)
    model = resolve("demo", plugins.model_sources(), progress=lambda *_: None, environ=os.environ)
    phases = (Phase(workload=plugins.workloads()["short"], requests=REQUESTS),)
    own = backend.defaults(installation, model)
    return tune(
        Task(
            backend=backend,
            installation=installation,
            model=model,
            knobs=KNOBS,
            current=own,
            defaults=own,
            hardware=hardware(),
            mode="launch",
            phases=phases,
            objectives=(parse_objective("throughput", phases),),
            budget_s=BUDGET_S,
            seed=seed,
        ),
        journal=RunJournal(f"inert-{seed}"),
        clock=SystemClock(),
        surroundings=surroundings(),
    )


def outcome(found: Found) -> dict[str, Any]:
    overall = found.answers[0].overall if found.answers else None
    return {
        "conclusion": str(found.conclusion),
        "best": str(found.best),
        "speed_ratio": overall.speed_ratio if overall else None,
        "low": overall.low if overall else None,
        "high": overall.high if overall else None,
        "noise": found.noise,
        "trials": len(found.trials),
        "failed": sum(trial.failure is not None for trial in found.trials),
        "spent_s": found.spent_s,
    }


def figures(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """How often each conclusion was come to, and whether the claims are few enough."""
    conclusions = [entry["conclusion"] for entry in entries]
    noises = sorted(entry["noise"] for entry in entries)
    # One that could not decide anything claims nothing, and proves nothing either.
    judged = conclusions.count(Conclusion.FASTER) + conclusions.count(Conclusion.KEEP)
    holds = conclusions.count(Conclusion.FASTER) <= MOST_CLAIMS and judged == TUNES
    return {
        "engine": ENGINE_NAME,
        "tunes": len(entries),
        **{f"conclusion: {word}": conclusions.count(word) for word in Conclusion},
        "noise of a trial, median %": 100 * noises[len(noises) // 2],
        "trials": sum(entry["trials"] for entry in entries),
        "trials that failed": sum(entry["failed"] for entry in entries),
        "most of a budget that was spent, %": 100
        * max(entry["spent_s"] for entry in entries)
        / BUDGET_S,
        "holds": "yes" if holds else "no",
        "tunes one by one": entries,
    }


class Inert(LlamaCpp):
    """llama.cpp with its own settings, under knobs that it never hears of."""

    def knobs(self, installation: Installation, model: Model) -> tuple[Knob, ...]:
        del installation, model
        return KNOBS

    def defaults(self, installation: Installation, model: Model) -> Settings:
        del installation, model
        return Settings(config=DEFAULTS)

    def check(
        self, installation: Installation, model: Model, config: Config
    ) -> tuple[Problem, ...]:
        return Backend.check(self, installation, model, config)

    def expected(self, installation: Installation, model: Model, config: Config) -> Config:
        del installation, model
        return config

    def footprint(
        self, installation: Installation, model: Model, config: Config
    ) -> Footprint | None:
        del config
        return super().footprint(installation, model, super().defaults(installation, model).config)

    def launch(
        self, installation: Installation, model: Model, settings: Settings, place: Place
    ) -> Session:
        own = super().defaults(installation, model)
        return Deaf(super().launch(installation, model, own, place), settings.config)


class Deaf(Session):
    """A session that says it took the planted knobs."""

    def __init__(self, inner: Session, config: Config) -> None:
        self._inner = inner
        self._config = config
        self.url = inner.url
        self.pids = inner.pids
        self.load_ms = inner.load_ms
        self.capabilities = inner.capabilities

    def effective(self) -> Config:
        return self._config

    def generate(self, request: Request) -> Iterator[Event | Finish]:
        return self._inner.generate(request)

    def counters(self) -> Mapping[str, float] | None:
        return self._inner.counters()

    def memory(self) -> MemoryUse | None:
        return self._inner.memory()

    def log_tail(self) -> str:
        return self._inner.log_tail()

    def close(self) -> None:
        self._inner.close()


if __name__ == "__main__":
    sys.exit(main())
