"""Planted machines: one that is clean, and changes to it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from attrs import evolve

from velollm_core.backends.contract import Backend, Footprint, Installation
from velollm_core.config import Choices, Condition, Config, Knob, Problem, Range, Role, Settings
from velollm_core.doctor.diagnosis import diagnose
from velollm_core.doctor.hooks import velollm_diagnose
from velollm_core.doctor.spec import Context, Engine, Folder
from velollm_core.experiment.activity import Activity, Process
from velollm_core.hardware.probe import Finished, Probe
from velollm_core.hardware.spec import CpuInfo, HardwareSpec, MemoryInfo, OsInfo
from velollm_core.models.spec import Model

GIB = 1 << 30
CPU = "/sys/devices/system/cpu"
TURBO = f"{CPU}/cpufreq/boost"
PROFILE = "/sys/firmware/acpi/platform_profile"


def knob(name, role, domain, **more):
    return Knob(name=name, role=role, domain=domain, summary="", source="", **more)


class PlantedBackend(Backend):
    """Four gibibytes to load; threads, and a draft that counts only with speculation."""

    name = "planted"
    automatic = True

    def probe(self, options, environ):
        return (Installation(backend=self.name, kind="binary", location="/opt/planted"),)

    def knobs(self, installation, model):
        return (
            knob("threads", Role.THREADS_DECODE, Range(0, 512)),
            knob("spec", Role.SPECULATION_TYPE, Choices(("none", "ngram"))),
            knob(
                "draft",
                Role.SPECULATION_LENGTH,
                Range(1, 64),
                active_when=Condition("spec", ("ngram",)),
            ),
        )

    def check(self, installation, model, config):
        wrong = config.get("draft") == 64 and config.get("threads") == 1
        return (Problem("draft", "draft cannot be 64 with one thread"),) if wrong else ()

    def footprint(self, installation, model, config):
        return Footprint(host_bytes=4 * GIB)


class Machine:
    """A clean machine: 8 cores with 16 hardware threads, 32 GiB, a frequency that can be set."""

    def __init__(self, root):
        self.root = root
        self.system = "Linux"
        self.container = None
        self.model = Model(reference="demo")
        self.environ = {"HOME": "/home/somebody"}
        self.tools = {}
        self.cpu = CpuInfo(
            model="Planted 9000",
            architecture="x86_64",
            logical=16,
            physical=8,
            instruction_sets=("AVX2", "FMA", "F16C"),
            usable_cpus=tuple(range(16)),
        )
        self.memory = MemoryInfo(
            total_bytes=32 * GIB, available_bytes=20 * GIB, swap_total_bytes=8 * GIB
        )
        self.activity = Activity(watched_s=0.5, busy_cpus=0.3, swapped_bytes=0, on_battery=False)
        self.backend = PlantedBackend()
        self.settings = Settings(
            config=Config({"threads": 0, "spec": "none", "draft": 8}),
            origins={
                "threads": "engine default",
                "spec": "engine default",
                "draft": "engine default",
            },
        )
        self.more = {}
        for cpu in range(16):
            self.plant(f"{CPU}/cpu{cpu}/cpufreq/scaling_governor", "schedutil")
            self.plant(f"{CPU}/cpu{cpu}/cpufreq/scaling_driver", "acpi-cpufreq")
            self.plant(f"{CPU}/cpu{cpu}/cpufreq/scaling_min_freq", "800000")
            self.plant(f"{CPU}/cpu{cpu}/cpufreq/scaling_max_freq", "4500000")
            self.plant(f"{CPU}/cpu{cpu}/cpufreq/cpuinfo_max_freq", "4500000")
        self.plant(TURBO, "1")
        self.plant(PROFILE, "balanced")

    def plant(self, path, text):
        """A file of the machine, or for all its processors where ``{}`` stands in the path."""
        for cpu in range(16) if "{}" in path else (0,):
            target = self.root / path.format(cpu).lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(f"{text}\n", encoding="utf-8")

    def run(self, *argv, cpus=0.0, rss_bytes=0):
        """Another program under way."""
        process = Process(
            pid=100 + len(self.activity.processes),
            argv=argv,
            name=argv[0].rpartition("/")[2],
            cpus=cpus,
            rss_bytes=rss_bytes,
        )
        self.activity = evolve(
            self.activity,
            processes=(*self.activity.processes, process),
            busy_cpus=self.activity.busy_cpus + cpus,
        )

    def set(self, **knobs):
        """Settings of the user's own."""
        self.settings = evolve(
            self.settings,
            config=self.settings.config | knobs,
            origins={**self.settings.origins, **dict.fromkeys(knobs, "~/.planted.ini")},
        )

    def context(self):
        def execute(argv, timeout_s, environ):
            if argv[0] not in self.tools:
                raise FileNotFoundError(argv[0])
            return Finished(0, self.tools[argv[0]])

        engine = Engine(
            backend=self.backend,
            installation=Installation(backend="planted", kind="binary", location="/opt/planted"),
            model=self.model,
            settings=self.settings,
        )
        return Context(
            **{
                "hardware": HardwareSpec(
                    cpu=self.cpu,
                    memory=self.memory,
                    os=OsInfo(system=self.system, release="6.8"),
                    container=self.container,
                ),
                "probe": Probe(
                    root=self.root, system=self.system, environ=self.environ, execute=execute
                ),
                "activity": self.activity,
                "engines": (engine,),
                "folders": (
                    Folder(
                        purpose="the journal",
                        path=self.root / "data",
                        variable="VELOLLM_DATA_DIR",
                        free_bytes=GIB,
                        needed_bytes=64 << 20,
                    ),
                ),
                **self.more,
            }
        )

    def diagnosis(self):
        told, failures = diagnose({"core": velollm_diagnose()}, self.context())
        assert failures == ()
        return told

    def findings(self):
        """Everything found, as pairs of code and finding."""
        return [(e.code, finding) for e in self.diagnosis().checks for finding in e.findings]

    def only(self, code):
        """The one finding there is, which has to be of ``code``."""
        (found,) = self.findings()
        assert found[0] == code
        return found[1]

    def unseen(self):
        """Why some checks could not look, by code."""
        return {e.code: e.unseen for e in self.diagnosis().checks if e.unseen is not None}


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path / "machine")


@pytest.fixture(scope="session")
def paths():
    return SimpleNamespace(cpu=CPU, turbo=TURBO, profile=PROFILE)
