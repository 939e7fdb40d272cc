"""Searches on real ground: the recorded grid, played back.

``velollm tune`` runs unchanged on an engine that answers with the launches of
results/tune-grid.json: which of a configuration's is drawn, by the seed. What the launches around
one have in common with it is the machine's, and taken out before. One knob of the grid makes no
difference; launches that differ in it alone are launches of one configuration. Random search and
Optuna's TPE sampler try one configuration a launch and choose the fastest. The same confirmation
would follow for each, so that they get as many launches of the same engine as the tune's search
took; beside that stands what they come to if they need no proof and get those of its confirmation,
too.
The regret of a choice is how much faster the best of the grid is, by the means of the recorded
launches. A tune starts from llama-server's own settings, or from settings drawn by the seed.
"""

from __future__ import annotations

import json
import math
import random
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from typing import Any

from attrs import define, evolve, field, frozen
from kept import Kept
from planted import task, tuned
from record import ROOT, arguments, write_record
from tune_grid import DEFAULTS, GRID, METRIC

from velollm_core.backends.advice import Requirements
from velollm_core.backends.contract import (
    Backend,
    Event,
    Finish,
    Installation,
    Request,
    Session,
)
from velollm_core.backends.processes import Place
from velollm_core.config import Choices, Config, Knob, Settings, Value
from velollm_core.errors import FailureKind, LaunchError
from velollm_core.models.spec import Model
from velollm_core.statistics import mean, mean_interval
from velollm_core.testing.clock import VirtualClock
from velollm_core.tune.confirm import STAGE as CONFIRMATION
from velollm_core.tune.spec import Conclusion

RECORD = ROOT / "benchmarks" / "results" / "tune-grid.json"
MODELS = ("demo", "gemma")
STARTS = ("own settings", "drawn settings")
BUDGETS = (60, 120)
"""In launches of what the tune starts from."""
SEEDS = 200
IDLE = "poll"
"""It makes no difference here, as the figures show: what two means would differ by were noise."""
DEPENDS_ON = (
    "velollm_core/tune",
    "velollm_core/statistics.py",
    "velollm_core/experiment/comparison.py",
    "velollm_core/experiment/measures.py",
    "velollm_core/experiment/runner.py",
    "benchmarks/results/tune-grid.json",
    "benchmarks/planted.py",
    "benchmarks/tune_replay.py",
)
_AROUND = 4
"""So many launches on either side tell how fast the machine was."""
_ROUNDS = 4
_TOKENS = 1000
"""An answer of the replay; how long it takes follows from the speed that was recorded."""


@frozen(kw_only=True)
class Launch:
    """A recorded launch: tokens a second, ``None`` where it failed, and what it took altogether."""

    tok_s: float | None
    seconds: float


@frozen
class Ground:
    """The recorded launches of one model by configuration."""

    launches: Mapping[Config, tuple[Launch, ...]]

    @property
    def knobs(self) -> Mapping[str, tuple[Value, ...]]:
        first = next(iter(self.launches))
        return {name: tuple(dict.fromkeys(c[name] for c in self.launches)) for name in first}

    def true(self, config: Config) -> float:
        """The mean speed; nothing of a configuration of which a launch failed."""
        speeds = [launch.tok_s or 0.0 for launch in self.launches[config]]
        return mean(speeds) if all(speeds) else 0.0

    def best(self) -> float:
        return max(map(self.true, self.launches))

    def regret(self, config: Config) -> float:
        return self.best() / self.true(config) - 1.0


@define
class Drawn:
    """Launches of a ground as one seed has them come: the same for every search."""

    ground: Ground
    seed: int
    _count: Counter[Config] = field(factory=Counter, init=False)

    def launch(self, config: Config) -> Launch:
        self._count[config] += 1
        draw = random.Random(f"{self.seed}/{config}/{self._count[config]}")
        return draw.choice(self.ground.launches[config])


@define
class Replay(Backend):
    """An engine whose launches are those that were recorded."""

    drawn: Drawn
    clock: VirtualClock
    name: str = "replay"

    def probe(
        self, options: Mapping[str, str], environ: Mapping[str, str]
    ) -> tuple[Installation, ...]:
        del options, environ
        return (Installation(backend=self.name, kind="binary", location="replay", version="1"),)

    def models(self, installation: Installation) -> tuple[Model, ...]:
        del installation
        return (Model(reference="replay", fingerprint="replay"),)

    def knobs(self, installation: Installation, model: Model) -> tuple[Knob, ...]:
        """llama.cpp's own, with the values that were recorded."""
        from velollm_llamacpp.knobs import BY_NAME

        del installation, model
        return tuple(
            evolve(BY_NAME[name].knob, domain=Choices(values), own_choice=None, unreadable=None)
            for name, values in self.drawn.ground.knobs.items()
        )

    def defaults(self, installation: Installation, model: Model) -> Settings:
        del installation, model
        return Settings(config=without_idle(DEFAULTS))

    def launch(
        self, installation: Installation, model: Model, settings: Settings, place: Place
    ) -> Session:
        del installation, model, place
        launch = self.drawn.launch(settings.config)
        self.clock.advance(1000.0 * launch.seconds)
        if launch.tok_s is None:
            raise LaunchError("this launch failed when it was recorded.", "", FailureKind.CRASH)
        return Replayed(settings.config, launch.tok_s)


class Replayed(Session):
    """One answer that stands for all: it is as fast as those were together."""

    url = "replay:"

    def __init__(self, config: Config, tok_s: float) -> None:
        self._config = config
        self._answer_ms = 1000.0 * _TOKENS / tok_s

    def effective(self) -> Config:
        return self._config

    def generate(self, request: Request) -> Iterator[Event | Finish]:
        del request
        yield Event(at_ms=self._answer_ms, text="replayed", tokens=_TOKENS)
        yield Finish(at_ms=self._answer_ms, reason="length", output_tokens=_TOKENS)

    def close(self) -> None:
        pass


def main() -> int:
    given = arguments(__doc__ or "").parse_args()
    if not RECORD.exists():
        raise SystemExit("there is no grid yet: nox -s long -- tune-grid")
    kept = Kept("tune-replay", DEPENDS_ON)
    plan = [
        {"model": model, "start": start, "budget": budget, "seed": seed}
        for model in MODELS
        for start in STARTS
        for budget in BUDGETS
        for seed in range(SEEDS)
    ]
    kept.work_through(plan, searched)
    found = figures(kept.entries)
    write_record(given.output, found, DEPENDS_ON)
    kept.forget()
    return 0 if found["holds"] == "yes" else 1


@cache
def ground(model: str) -> Ground:
    launches: dict[Config, list[Launch]] = {}
    for config, launch in recorded(model):
        launches.setdefault(without_idle(config), []).append(launch)
    return Ground({config: tuple(mine) for config, mine in launches.items()})


def recorded(model: str) -> Iterator[tuple[Config, Launch]]:
    """The launches of the grid, without what was the machine's."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    rows = record["figures"][f"grid of {model}"]
    machine = machine_logs(rows)
    for row in rows:
        for tok_s, seconds, at_s in zip(row["tok_s"], row["seconds"], row["at_s"], strict=True):
            own = tok_s and tok_s / math.exp(machine[at_s])
            yield Config(row["config"]), Launch(tok_s=own, seconds=seconds)


def without_idle(config: Config) -> Config:
    return Config({name: value for name, value in config.items() if name != IDLE})


def effect_of_idle(model: str) -> str:
    """How much faster the last value of the idle knob is than the first, all else being equal."""
    logs: dict[Config, dict[Value, list[float]]] = {}
    for config, launch in recorded(model):
        if launch.tok_s is not None:
            mine = logs.setdefault(without_idle(config), {})
            mine.setdefault(config[IDLE], []).append(math.log(launch.tok_s))
    first, *_, last = GRID[IDLE]
    more = [mean(mine[last]) - mean(mine[first]) for mine in logs.values() if len(mine) > 1]
    told = mean_interval(more)
    assert told is not None
    value, low, high = (100 * math.expm1(log) for log in (mean(more), told.low, told.high))
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def machine_logs(rows: Sequence[Mapping[str, Any]]) -> dict[float, float]:
    """How fast the machine itself was at each launch: a logarithm, by the launch's ``at_s``.

    It is the median of how much faster than usual the launches around it were, itself left out.
    What is usual of a configuration follows in turn from what is the machine's.
    """
    launches = sorted(
        (at_s, number, math.log(tok_s))
        for number, row in enumerate(rows)
        for at_s, tok_s in zip(row["at_s"], row["tok_s"], strict=True)
        if tok_s is not None
    )
    found = {at_s: 0.0 for row in rows for at_s in row["at_s"]}
    for _ in range(_ROUNDS):
        own: dict[int, list[float]] = {}
        for at_s, number, log in launches:
            own.setdefault(number, []).append(log - found[at_s])
        usual = {number: mean(logs) for number, logs in own.items()}
        left = [log - usual[number] for _, number, log in launches]
        for place, (at_s, _, _) in enumerate(launches):
            around = left[max(0, place - _AROUND) : place] + left[place + 1 :][:_AROUND]
            found[at_s] = statistics.median(around) if around else 0.0
    return found


def searched(item: Mapping[str, Any]) -> dict[str, Any]:
    """What the tune and each of its peers come to with one seed."""
    here, seed = ground(item["model"]), item["seed"]
    start = without_idle(DEFAULTS) if item["start"] == STARTS[0] else drawn_start(here, seed)
    trial_s = mean([launch.seconds for launch in here.launches[start]])
    clock = VirtualClock()
    asked = task(
        Replay(Drawn(here, seed), clock),
        metric=METRIC,
        budget_s=item["budget"] * trial_s,
        seed=seed,
        processors=2,
        current=start,
        requirements=Requirements(parallel=min(map(int, here.knobs["slots"]))),
    )
    found = tuned(asked, clock)
    whole = len(found.trials)
    searching = sum(not trial.arm.startswith(f"{CONFIRMATION}.") for trial in found.trials)
    return {
        "launches": whole,
        "launches of the search": searching,
        "spent": found.spent_s / asked.budget_s,
        "faster": found.conclusion is Conclusion.FASTER,
        "start_regret": here.regret(start),
        "search": here.regret(start | found.best),
        "answer": here.regret(start | found.changes),
        **{
            name + more: here.regret(peer(Drawn(here, seed), launches, seed))
            for name, peer in PEERS.items()
            for more, launches in (("", searching), (WITHOUT_PROOF, whole))
        },
    }


def drawn_start(here: Ground, seed: int) -> Config:
    running = [config for config in here.launches if here.true(config) > 0]
    return random.Random(f"start {seed}").choice(running)


def measured(drawn: Drawn, config: Config) -> float:
    """The speed of one launch; a failed one counts as nothing."""
    return drawn.launch(config).tok_s or 0.0


def at_random(drawn: Drawn, launches: int, seed: int) -> Config:
    """None twice before all have had their turn; the fastest is chosen."""
    order = list(drawn.ground.launches)
    random.Random(f"random {seed}").shuffle(order)
    speeds: dict[Config, list[float]] = {}
    for number in range(launches):
        config = order[number % len(order)]
        speeds.setdefault(config, []).append(measured(drawn, config))
    return max(speeds, key=lambda config: mean(speeds[config]))


def by_tpe(drawn: Drawn, launches: int, seed: int) -> Config:
    """Optuna's sampler as it comes; numbers by their place in order, everything else by name."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    knobs = {name: sorted(values) for name, values in drawn.ground.knobs.items()}
    space: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.IntDistribution(0, len(values) - 1)
        if len(values) > 2
        else optuna.distributions.CategoricalDistribution(tuple(range(len(values))))
        for name, values in knobs.items()
    }
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))

    def config_of(numbers: Mapping[str, int]) -> Config:
        return Config({name: knobs[name][numbers[name]] for name in knobs})

    for _ in range(launches):
        trial = study.ask(space)
        study.tell(trial, measured(drawn, config_of(trial.params)))
    return config_of(study.best_params)


PEERS = {"random search": at_random, "TPE": by_tpe}
WITHOUT_PROOF = " without proof"


def figures(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"seeds": SEEDS}
    holds = {"": True, WITHOUT_PROOF: True}
    for model in MODELS:
        found[f"{model}: {IDLE} makes faster by, %"] = effect_of_idle(model)
        for start in STARTS:
            for budget in BUDGETS:
                label = f"{model}, from {start}, {budget} launches"
                mine = [
                    entry
                    for entry in entries
                    if (entry["model"], entry["start"], entry["budget"]) == (model, start, budget)
                ]
                found[f"{label}: regret of the start, mean %"] = 100 * average(mine, "start_regret")
                found[f"{label}: regret of the search, mean %"] = 100 * average(mine, "search")
                found[f"{label}: regret of the answer, mean %"] = 100 * average(mine, "answer")
                for peer, more in product(PEERS, holds):
                    less = mean_interval([entry[peer + more] - entry["search"] for entry in mine])
                    assert less is not None
                    holds[more] = holds[more] and less.low > 0
                    found[f"{label}: regret of {peer}{more}, mean %"] = (
                        f"{100 * average(mine, peer + more):.2f}, more by "
                        f"{100 * less.low:.2f} to {100 * less.high:.2f}"
                    )
    found["most of a budget that was spent, %"] = 100 * max(entry["spent"] for entry in entries)
    found["holds where peers need no proof"] = "yes" if holds[WITHOUT_PROOF] else "no"
    found["holds"] = "yes" if holds[""] else "no"
    return found


def average(entries: Sequence[Mapping[str, Any]], name: str) -> float:
    return mean([entry[name] for entry in entries])


if __name__ == "__main__":
    sys.exit(main())
