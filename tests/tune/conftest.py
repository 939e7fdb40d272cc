"""Whole tunes on planted engines: hours pass on a clock of their own, in a fraction of a second."""

from __future__ import annotations

import pytest
from attrs import evolve

from velollm_core.backends.contract import Message
from velollm_core.config import Choices, Config, Knob, Range, Role
from velollm_core.experiment.journal import RunJournal
from velollm_core.experiment.runner import Surroundings
from velollm_core.experiment.spec import Phase, Workload
from velollm_core.hardware.spec import CpuInfo, HardwareSpec, MemoryInfo, OsInfo
from velollm_core.models.spec import ModelSpec
from velollm_core.testing.clock import VirtualClock
from velollm_core.testing.fakes import FakeBackend, NoMonitor, Script
from velollm_core.tune.objective import parse_objective
from velollm_core.tune.search import tune
from velollm_core.tune.spec import Task

WORKLOAD = Workload(
    name="w",
    summary="",
    max_tokens=4,
    messages=lambda seed, block, index: (Message(role="user", content=f"{seed}/{block}/{index}"),),
    digest="d",
)


def knob(name, role, domain, **changes):
    return Knob(
        **{
            "name": name,
            "role": role,
            "domain": domain,
            "summary": f"{name} of the fake",
            "source": "the fake",
            "numerics": "rounding",
            **changes,
        }
    )


KNOBS = (
    knob("threads", Role.THREADS_DECODE, Range(0, 64), own_choice=0),
    knob("threads_batch", Role.THREADS_PREFILL, Range(0, 64), own_choice=0),
    knob("batch", Role.BATCH_LOGICAL, Range(1, 8192)),
    knob("ubatch", Role.BATCH_PHYSICAL, Range(1, 8192)),
    knob("context", Role.CONTEXT, Range(0, 2**20), own_choice=0),
    knob("slots", Role.SLOTS, Range(1, 64)),
    knob("unified", Role.UNIFIED_KV, Choices((True, False))),
    knob("kv_type", Role.KV_TYPE_K, Choices(("f16", "q4_0")), numerics="lossy"),
    knob("attention", Role.ATTENTION, Choices(("auto", "on", "off"))),
    knob("poll", Role.OTHER, Range(0, 100), numerics="exact"),
    knob("pin", Role.OTHER, Choices((True, False)), scope="host"),
    knob("draft", Role.SPECULATION_LENGTH, Range(0, 16)),
)
DEFAULTS = Config(
    {
        "threads": 8,
        "threads_batch": 0,
        "batch": 512,
        "ubatch": 512,
        "context": 4096,
        "slots": 4,
        "unified": True,
        "kv_type": "f16",
        "attention": "auto",
        "poll": 50,
        "pin": False,
        "draft": 0,
    }
)

QUIET = NoMonitor()


class Tuning:
    """Makes tasks for a :class:`Script`, and runs them; the machine may use 8 processors, 4 of them
    whole cores.
    """

    knobs, defaults, workload, knob = KNOBS, DEFAULTS, WORKLOAD, staticmethod(knob)
    few, budget_s = ("threads", "attention", "poll"), 240.0

    def script(self, **script):
        script = {
            "knobs": KNOBS,
            "defaults": DEFAULTS,
            "clock": VirtualClock(),
            "load_ms": 2000.0,
            "prompt_ms": 400.0,
            "token_ms": lambda _: 100.0,
            "launch_noise": 0.03,
            **script,
        }
        return Script(**script)

    def task(
        self,
        script,
        *,
        clients=1,
        objectives=("decode",),
        usable=8,
        spec=None,
        backend=None,
        **task,
    ):
        backend = backend or FakeBackend(script)
        installation = backend.probe({}, {})[0]
        model = evolve(backend.models(installation)[0], spec=spec)
        phases = tuple(
            Phase(workload=WORKLOAD, requests=count, concurrency=count, warmup=1)
            for count in sorted({1, clients})
        )
        hardware = HardwareSpec(
            cpu=CpuInfo(
                model="Example", architecture="x86_64", logical=16, physical=4, quota_cpus=usable
            ),
            memory=MemoryInfo(total_bytes=2**34, available_bytes=2**33),
            os=OsInfo(system="Linux", release="6"),
        )
        return Task(
            **{
                "backend": backend,
                "installation": installation,
                "model": model,
                "knobs": script.knobs,
                "current": backend.current(installation, model, {}),
                "defaults": backend.defaults(installation, model),
                "hardware": hardware,
                "mode": "launch",
                "phases": phases,
                "objectives": tuple(parse_objective(text, phases) for text in objectives),
                "budget_s": 900.0,
                **task,
            }
        )

    def surroundings(self, monitor=QUIET):
        return Surroundings(
            environ={},
            available_bytes=lambda: 2**40,
            monitor=monitor,
            hardware_fingerprint="here",
        )

    def pause(self, task):
        clock = task.backend.script.clock
        return lambda seconds: clock.advance(seconds * 1000)

    def run(self, task, journal=None, observe=lambda _: None, pause=None, monitor=QUIET):
        return tune(
            task,
            journal=journal or RunJournal("r"),
            clock=task.backend.script.clock,
            surroundings=self.surroundings(monitor),
            observe=observe,
            pause=pause or self.pause(task),
        )

    @staticmethod
    def tenth(config):
        """Milliseconds a token where one value of one knob brings a gain of 10 %."""
        return 100.0 / (1.1 if config["threads"] == 4 else 1.0)

    @staticmethod
    def tried(found, *stages):
        return [
            entry
            for record in found.stages
            if not stages or record.name in stages
            for entry in record.tried
        ]

    @staticmethod
    def searched(found):
        """What ran in the search, without the engine's own settings of the baseline and the
        proof.
        """
        own = [t.effective for t in found.trials if not t.arm.endswith(".defaults")]
        return [config for config in own if config is not None]

    @staticmethod
    def launched(task):
        return [session.config for session in task.backend.sessions]

    def spec(self, context_length=8192):
        return ModelSpec(
            architecture="llama",
            name="Example",
            parameter_count=10**9,
            layers=16,
            embedding_length=1024,
            context_length=context_length,
            quantization="Q4_0",
            file_bytes=10**9,
        )


@pytest.fixture(scope="session")
def tuning():
    """``tuning.script(...)``, ``task(script, ...)`` and ``run(task)``."""
    return Tuning()
