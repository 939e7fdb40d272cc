"""Planted machines: files below a temporary root, answers of tools, and calls into the system."""

from __future__ import annotations

import struct
import sys
import types
from pathlib import Path

import pytest

from velollm_core.hardware.native import MemoryFigures, Native
from velollm_core.hardware.probe import Finished, Probe

DATA = Path(__file__).with_name("data")


class PlantedNative(Native):
    """A system that answers with what a test says, and with nothing of the machine it runs on."""

    def __init__(
        self, *, counts=(1, 1), affinity=(), flags=(), topology=b"", features=(), registry=None
    ):
        self.counts = counts
        self.affinity = affinity
        self.flags = flags
        self.topology = topology
        self.features = features
        self.registry = registry or {}

    def memory(self):
        return MemoryFigures(
            total=36 << 30, available=20 << 30, swap_total=2 << 30, swap_used=1 << 30
        )

    def cpu_counts(self):
        return self.counts

    def cpu_affinity(self):
        return self.affinity

    def cpu_flags(self):
        return self.flags

    def registry_value(self, key, name):
        return self.registry.get(key, {}).get(name)

    def registry_keys(self, key):
        return tuple(
            name[len(key) + 1 :] for name in self.registry if name.rpartition("\\")[0] == key
        )

    def processor_topology(self):
        return self.topology

    def processor_feature(self, feature):
        return feature in self.features


def _recorded(tools):
    def execute(argv, timeout_s, environ):
        answer = tools.get(" ".join(argv))
        if answer is None:
            known = any(command.split(" ")[0] == argv[0] for command in tools)
            answer = Finished(2, "", f"{argv[0]}: unknown option") if known else FileNotFoundError()
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Finished) else Finished(0, answer)

    return execute


@pytest.fixture
def data():
    """The text of a file in ``data``."""
    return lambda name: (DATA / name).read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def native():
    """The class of a system that answers with what a test says."""
    return PlantedNative


@pytest.fixture
def planted(tmp_path):
    """Make a probe of planted files and tools; what is not planted is not there."""

    def make(files=(), tools=(), *, system="Linux", machine="x86_64", environ=(), **native):
        for path, content in dict(files).items():
            target = tmp_path / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content if isinstance(content, bytes) else content.encode())
        return Probe(
            root=tmp_path,
            system=system,
            machine=machine,
            environ=dict(environ),
            execute=_recorded(dict(tools)),
            native=PlantedNative(**native),
        )

    return make


@pytest.fixture
def cpu_files():
    """The files of ``/proc`` and ``/sys`` for cores given as ``[(their cpus, package), ...]``.

    ``caches`` are ``(index, level, type, size, [shared lists])``.
    """

    def make(cores, *, model="Planted CPU", flags="fpu avx avx2", caches=(), offline=(), **per_cpu):
        online = sorted(cpu for cpus, _ in cores for cpu in cpus if cpu not in offline)
        listed = ",".join(map(str, online))
        files = {
            "/sys/devices/system/cpu/online": listed,
            "/proc/self/status": f"Name:\tpython\nCpus_allowed_list:\t{listed}\n",
            "/proc/cpuinfo": "".join(
                f"processor\t: {cpu}\nmodel name\t: {model}\nflags\t\t: {flags}\n\n"
                for cpu in online
            ),
        }
        for cpus, package in cores:
            siblings = [cpu for cpu in cpus if cpu not in offline]
            for cpu in siblings:
                place = f"/sys/devices/system/cpu/cpu{cpu}"
                files[f"{place}/topology/core_cpus_list"] = ",".join(map(str, siblings)) + "\n"
                files[f"{place}/topology/physical_package_id"] = f"{package}\n"
                for name, values in per_cpu.items():
                    files[f"{place}/{name.replace('__', '/')}"] = f"{values[cpu]}\n"
        for index, level, kind, size, shared_lists in caches:
            for shared in shared_lists:
                first, _, last = shared.partition("-")
                for cpu in range(int(first), int(last or first) + 1):
                    place = f"/sys/devices/system/cpu/cpu{cpu}/cache/index{index}"
                    files[f"{place}/level"] = f"{level}\n"
                    files[f"{place}/type"] = f"{kind}\n"
                    files[f"{place}/size"] = f"{size}\n"
                    files[f"{place}/shared_cpu_list"] = f"{shared}\n"
        return files

    return make


@pytest.fixture
def drm_card():
    """The files of one card below ``/sys/class/drm``, and of a render node to open it by."""

    def make(number, pci_id, slot, driver, **values):
        device = f"/sys/class/drm/card{number}/device"
        event = f"DRIVER={driver}\nPCI_CLASS=30000\nPCI_ID={pci_id}\nPCI_SLOT_NAME={slot}\n"
        files = {f"{device}/uevent": event, f"/dev/dri/renderD{128 + number}": ""}
        files.update({f"{device}/{name.replace('__', '/')}": text for name, text in values.items()})
        return files

    return make


@pytest.fixture
def windows_table():
    """The bytes of ``GetLogicalProcessorInformationEx`` for cores, packages, caches and nodes."""

    def group(mask, number=0):
        return struct.pack("<QH6x", mask, number)

    def entry(relation, body):
        return struct.pack("<II", relation, 8 + len(body)) + body

    def make(*, cores=(), packages=1, caches=(), nodes=()):
        table = [
            entry(0, struct.pack("<BB20xH", 0, efficiency, 1) + group(mask, number))
            for efficiency, mask, number in cores
        ]
        table += [entry(3, struct.pack("<BB20xH", 0, 0, 1) + group(1))] * packages
        table += [
            entry(2, struct.pack("<BBHII18xH", level, 8, 64, size, kind, 1) + group(mask))
            for level, kind, size, mask in caches
        ]
        table += [
            entry(1, struct.pack("<I18xH", number, 1) + group(mask, at))
            for number, mask, at in nodes
        ]
        return b"".join(table)

    return make


@pytest.fixture
def nvml(monkeypatch):
    """A stand-in for ``pynvml``, which needs a card. What a card lacks is not supported."""

    def make(cards=(), *, driver="550.127.05", cuda=12040, fault=None):
        module = types.ModuleType("pynvml")
        module.NVMLError = type("NVMLError", (Exception,), {})
        for name in ("LibraryNotFound", "NotSupported", "DriverNotLoaded"):
            kind = type(f"NVMLError_{name}", (module.NVMLError,), {})
            setattr(module, kind.__name__, kind)
        module.NVML_CLOCK_MEM = 2

        def start():
            if isinstance(fault, str):
                raise getattr(module, f"NVMLError_{fault}")(fault)
            if fault is not None:
                fault()

        def unsupported():
            raise module.NVMLError_NotSupported("Not Supported")

        def ask(what):
            return lambda card, *_: card[what] if what in card else unsupported()

        def pick(handles, index):
            return handles[index] or unsupported()

        module.nvmlInit = start
        module.nvmlShutdown = lambda: None
        module.nvmlSystemGetDriverVersion = lambda: driver
        module.nvmlSystemGetCudaDriverVersion_v2 = lambda: cuda
        module.nvmlDeviceGetCount = lambda: len(cards)
        module.nvmlDeviceGetHandleByIndex = lambda index: pick(cards, index)
        for function, what in (
            ("Name", "name"),
            ("UUID", "uuid"),
            ("MemoryInfo", "memory"),
            ("CudaComputeCapability", "capability"),
            ("EnforcedPowerLimit", "limit_mw"),
            ("MaxClockInfo", "clock_mhz"),
            ("MemoryBusWidth", "width_bits"),
            ("MigMode", "mig"),
        ):
            setattr(module, f"nvmlDeviceGet{function}", ask(what))
        module.nvmlDeviceGetMaxMigDeviceCount = lambda card: len(card["instances"])
        module.nvmlDeviceGetMigDeviceHandleByIndex = lambda card, index: pick(
            card["instances"], index
        )
        monkeypatch.setitem(sys.modules, "pynvml", module)
        return module

    return make
