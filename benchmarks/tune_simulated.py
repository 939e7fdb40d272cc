"""Whole tunes on planted engines: does one claim a gain where there is none, find one where there
is, and come near the best of a rugged space?

1. Inert: 2,000 tunes over eight knobs that do nothing. Launches differ by 3 % (standard deviation,
   half of the tunes with heavy tails) and the machine drifts by 6 % over the budget, evenly or up
   and down. Every claim is false; 2.5 % is what the one-sided confidence allows, 3.2 % what 2,000
   tunes may show of it by chance.
2. Gain: 500 tunes on the same engines, but one value of one knob, drawn by the seed, is 10 %
   faster. A tune counts that claims a gain and proposes that value.
3. Rugged: 200 spaces, drawn by the seed, in which knobs interact, the best lies between the ends,
   and a part crashes; 3 % noise with heavy tails (t, 3 degrees of freedom), 10 % drift. A tune
   counts whose answer runs within 5 % of the best there is.

The machines are planted, the search and the statistics are those of ``velollm tune``.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Mapping
from typing import Any

from kept import Kept
from planted import knob, task, tuned
from record import arguments, percentile, write_record
from rugged import Space

from velollm_core.config import Choices, Config, Knob, Range, Role, Value
from velollm_core.testing.clock import VirtualClock
from velollm_core.testing.fakes import FakeBackend, Script
from velollm_core.testing.noise import Drift, linear_drift
from velollm_core.tune.spec import Conclusion

RUNS = {"inert": 2000, "gain": 500, "rugged": 200}
BUDGET_S = 900.0
RUGGED_BUDGET_S = 1800.0
NOISE = 0.03
DRIFT = 0.06
RUGGED_DRIFT = 0.10
TAILS = 4.0
RUGGED_TAILS = 3.0
GAIN = 1.1
MOST_CLAIMS = 0.032
LEAST_FOUND = 0.80
NEAR = 0.05
LEAST_NEAR = 0.90
DEPENDS_ON = (
    "velollm_core/tune",
    "velollm_core/statistics.py",
    "velollm_core/experiment/comparison.py",
    "velollm_core/experiment/measures.py",
    "velollm_core/experiment/runner.py",
    "velollm_core/testing/fakes.py",
    "velollm_core/testing/noise.py",
    "benchmarks/planted.py",
    "benchmarks/rugged.py",
    "benchmarks/tune_simulated.py",
)
DEFAULTS = Config(
    {
        "threads": 4,
        "threads_batch": 4,
        "batch": 2048,
        "ubatch": 512,
        "attention": "auto",
        "slots": 4,
        "unified": True,
        "poll": 50,
    }
)
KNOBS: tuple[Knob, ...] = (
    knob("threads", Role.THREADS_DECODE, Range(1, 64)),
    knob("threads_batch", Role.THREADS_PREFILL, Range(1, 64)),
    knob("batch", Role.BATCH_LOGICAL, Range(1, 8192)),
    knob("ubatch", Role.BATCH_PHYSICAL, Range(1, 8192)),
    knob("attention", Role.ATTENTION, Choices(("auto", "on", "off"))),
    knob("slots", Role.SLOTS, Range(1, 64)),
    knob("unified", Role.UNIFIED_KV, Choices((True, False))),
    knob("poll", Role.OTHER, Range(0, 100)),
)
GAINS: tuple[tuple[str, Value], ...] = (
    ("threads", 8),
    ("threads_batch", 8),
    ("ubatch", 1024),
    ("attention", "off"),
    ("slots", 8),
    ("unified", False),
    ("poll", 100),
)
"""Values that are among the candidates: here it is the statistics that are looked at."""


def main() -> int:
    given = arguments(__doc__ or "").parse_args()
    kept = Kept("tune-simulated", DEPENDS_ON)
    plan = [{"kind": kind, "seed": seed} for kind, count in RUNS.items() for seed in range(count)]
    kept.work_through(plan, simulated)
    found = figures(kept.entries)
    write_record(given.output, found, DEPENDS_ON)
    kept.forget()
    return 0 if found["holds"] == "yes" else 1


def simulated(item: Mapping[str, Any]) -> dict[str, Any]:
    """One tune."""
    kind, seed = item["kind"], item["seed"]
    return rugged(seed) if kind == "rugged" else plain(seed, with_gain=kind == "gain")


def plain(seed: int, *, with_gain: bool) -> dict[str, Any]:
    """A tune over knobs that do nothing, but for one value of one of them."""
    name, value = GAINS[seed % len(GAINS)] if with_gain else ("", 0)

    def token_ms(config: Config) -> float:
        return 1000.0 / GAIN if with_gain and config.get(name) == value else 1000.0

    clock = VirtualClock()
    backend = FakeBackend(
        Script(
            knobs=KNOBS,
            defaults=DEFAULTS,
            token_ms=token_ms,
            load_ms=2000.0,
            prompt_ms=1000.0,
            launch_noise=NOISE,
            tails=TAILS if seed % 2 else None,
            drift=linear_drift(DRIFT, BUDGET_S * 1000.0) if seed % 4 < 2 else wave(seed),
            clock=clock,
            seed=seed,
        )
    )
    found = tuned(
        task(backend, metric="decode_tok_s", budget_s=BUDGET_S, seed=seed),
        clock,
    )
    return {
        "conclusion": str(found.conclusion),
        "has_it": with_gain and found.changes.get(name) == value,
        "trials": len(found.trials),
        "spent": found.spent_s / BUDGET_S,
    }


def wave(seed: int) -> Drift:
    """A machine that gets slower and faster again, from its fastest by :data:`DRIFT` and back."""
    begin = random.Random(seed).uniform(0, 2 * math.pi)
    period_ms = BUDGET_S * 1000.0 / 2
    return lambda now_ms: 1 + DRIFT / 2 * (1 + math.sin(begin + 2 * math.pi * now_ms / period_ms))


def rugged(seed: int) -> dict[str, Any]:
    """A tune in a space of its own, and how far its answer is from the best."""
    space = Space.drawn(seed)
    clock = VirtualClock()
    backend = FakeBackend(
        Script(
            knobs=space.knobs,
            defaults=space.defaults,
            token_ms=lambda config: 1000.0 * math.exp(space.cost(config)),
            load_ms=2000.0,
            prompt_ms=1000.0,
            launch_noise=NOISE,
            tails=RUGGED_TAILS,
            drift=linear_drift(RUGGED_DRIFT, RUGGED_BUDGET_S * 1000.0),
            crashes=space.crash,
            clock=clock,
            seed=seed,
        )
    )
    found = tuned(
        task(backend, metric="decode_tok_s", budget_s=RUGGED_BUDGET_S, seed=seed),
        clock,
    )
    best = space.best()
    return {
        "conclusion": str(found.conclusion),
        "start": math.expm1(space.cost(space.defaults) - best),
        "search": math.expm1(space.cost(space.defaults | found.best) - best),
        "answer": math.expm1(space.cost(space.defaults | found.changes) - best),
        "trials": len(found.trials),
        "failed": sum(trial.failure is not None for trial in found.trials),
        "spent": found.spent_s / RUGGED_BUDGET_S,
    }


def figures(entries: list[dict[str, Any]]) -> dict[str, Any]:
    inert, gain, rough = ([e for e in entries if e["kind"] == kind] for kind in RUNS)
    claims = [entry for entry in inert if entry["conclusion"] == Conclusion.FASTER]
    faster = [entry for entry in gain if entry["conclusion"] == Conclusion.FASTER]
    found = [entry for entry in faster if entry["has_it"]]
    near = [entry for entry in rough if entry["answer"] <= NEAR]
    holds = (
        len(claims) <= MOST_CLAIMS * len(inert)
        and len(found) >= LEAST_FOUND * len(gain)
        and len(near) >= LEAST_NEAR * len(rough)
    )
    return {
        "inert: tunes": len(inert),
        "inert: false claims of a gain": len(claims),
        "inert: false claims, %": 100 * len(claims) / len(inert),
        **{
            f"inert: false claims, {label}, %": 100
            * sum(entry in claims for entry in chosen)
            / len(chosen)
            for label, chosen in machines(inert).items()
        },
        "inert: trials of a tune, median": percentile([e["trials"] for e in inert], 0.5),
        "gain of 10 %: tunes": len(gain),
        "gain of 10 %: claimed with the value that brings it, %": 100 * len(found) / len(gain),
        "gain of 10 %: claimed without that value": len(faster) - len(found),
        "rugged: spaces": len(rough),
        "rugged: answers within 5 % of the best, %": 100 * len(near) / len(rough),
        "rugged: loss of the answer, median %": 100 * middle(rough, "answer", 0.5),
        "rugged: loss of the answer, 90th percentile %": 100 * middle(rough, "answer", 0.9),
        "rugged: loss of what the search chose, median %": 100 * middle(rough, "search", 0.5),
        "rugged: loss of the engine's defaults, median %": 100 * middle(rough, "start", 0.5),
        "rugged: trials of a tune, median": percentile([e["trials"] for e in rough], 0.5),
        "rugged: trials that crashed, %": 100
        * sum(e["failed"] for e in rough)
        / sum(e["trials"] for e in rough),
        "most of a budget that was spent, %": 100 * max(entry["spent"] for entry in entries),
        "holds": "yes" if holds else "no",
    }


def machines(entries: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The inert tunes by the machine that their seed plants."""
    return {
        f"{drift} drift, {tails} tails": [
            entry
            for entry in entries
            if (entry["seed"] % 4 < 2) == (drift == "even")
            and (entry["seed"] % 2 == 1) == (tails == "heavy")
        ]
        for drift in ("even", "waving")
        for tails in ("normal", "heavy")
    }


def middle(entries: list[dict[str, Any]], name: str, share: float) -> float:
    return percentile([entry[name] for entry in entries], share)


if __name__ == "__main__":
    sys.exit(main())
