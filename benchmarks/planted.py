"""Tunes on engines that are planted or played back: they take the time of a clock of their own."""

from __future__ import annotations

from velollm_core.backends.advice import Requirements
from velollm_core.backends.contract import Backend, Message
from velollm_core.config import Config, Knob, Role, Settings
from velollm_core.experiment.journal import RunJournal
from velollm_core.experiment.runner import Surroundings
from velollm_core.experiment.spec import Phase, Workload
from velollm_core.hardware.spec import CpuInfo, HardwareSpec, MemoryInfo, OsInfo
from velollm_core.testing.clock import VirtualClock
from velollm_core.testing.fakes import NoMonitor
from velollm_core.tune.search import Found, tune
from velollm_core.tune.spec import Objective, Task, Term

CLIENTS = 8
"""As many as an objective needs for the slots to be searched; the one request of a planted trial
stands for those of all."""

_WORKLOAD = Workload(
    name="planted",
    summary="prompts that nobody reads",
    max_tokens=4,
    messages=lambda *numbers: (Message(role="user", content=" ".join(map(str, numbers))),),
    digest="planted",
)


def knob(name: str, role: Role, domain: object, **more: object) -> Knob:
    """A knob of a planted engine."""
    return Knob(
        name=name,
        role=role,
        domain=domain,  # type: ignore[arg-type]
        summary=f"{name} of a planted engine",
        source="planted",
        numerics="rounding",
        **more,  # type: ignore[arg-type]
    )


def task(
    backend: Backend,
    *,
    metric: str,
    budget_s: float,
    seed: int,
    processors: int = 8,
    current: Config = Config(),
    requirements: Requirements = Requirements(),  # noqa: B008 - frozen
) -> Task:
    """A tune of ``backend``, over whose defaults the user has set ``current``."""
    installation = backend.probe({}, {})[0]
    model = backend.models(installation)[0]
    defaults = backend.defaults(installation, model)
    return Task(
        backend=backend,
        installation=installation,
        model=model,
        knobs=backend.knobs(installation, model),
        current=Settings(config=defaults.config | current),
        defaults=defaults,
        hardware=machine(processors),
        mode="launch",
        phases=(Phase(workload=_WORKLOAD, requests=1, concurrency=CLIENTS, warmup=0),),
        objectives=(
            Objective(
                name=metric,
                terms=(Term(workload=_WORKLOAD.name, concurrency=CLIENTS, metric=metric),),
            ),
        ),
        requirements=requirements,
        budget_s=budget_s,
        seed=seed,
    )


def machine(processors: int) -> HardwareSpec:
    """Half of the processors are whole cores."""
    return HardwareSpec(
        cpu=CpuInfo(
            model="planted",
            architecture="x86_64",
            logical=processors,
            physical=max(1, processors // 2),
        ),
        memory=MemoryInfo(total_bytes=2**35, available_bytes=2**35),
        os=OsInfo(system="Linux", release="6"),
    )


def surroundings() -> Surroundings:
    """A machine that nobody else uses."""
    return Surroundings(
        environ={},
        available_bytes=lambda: 2**40,
        monitor=NoMonitor(),
        hardware_fingerprint="planted",
    )


def tuned(task: Task, clock: VirtualClock) -> Found:
    """Tune; the pauses take the clock's time."""
    return tune(
        task,
        journal=RunJournal("planted"),
        clock=clock,
        surroundings=surroundings(),
        pause=lambda seconds: clock.advance(1000.0 * seconds),
    )
