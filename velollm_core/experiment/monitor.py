"""Watches the machine during a trial: memory, foreign load, energy; and ends the trial before it
swaps.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import psutil
from attrs import field, frozen

from velollm_core.backends.contract import MemoryUse, Session
from velollm_core.experiment.spec import MachineLoad

_SUPPLIES = Path("/sys/class/power_supply")
_INTERVAL_S = 0.25
_RESERVE_BYTES = 256 * 1024**2
"""Below this much available memory the kernel starts to swap or to kill: the trial is ended
first."""


@frozen(kw_only=True)
class Observed:
    """What was seen between the start and the end of a trial."""

    load: MachineLoad = MachineLoad()
    peak_rss_bytes: int | None = None
    peak_gpu_bytes: Mapping[str, int] = field(factory=dict)
    energy_j: float | None = None


class Watch(Protocol):
    """A watch over one trial."""

    def stop(self) -> Observed:
        """End the watch and say what was seen."""


class Monitor(Protocol):
    """Begins watches; tests plant one that sees nothing."""

    def start(self, session: Session, on_danger: Callable[[str], None]) -> Watch:
        """Begin to watch. ``on_danger`` is called once, from another thread, when memory runs
        out.
        """

    def cpu_s(self, session: Session) -> tuple[float, float | None]:
        """Processor seconds used until now by (this process, the server's processes)."""


class SystemMonitor:
    """The machine's own figures, by psutil and NVML, four times a second.

    Args:
        available_bytes: what this process may still take, bytes; the cgroup's limit counts.
    """

    def __init__(self, available_bytes: Callable[[], int]) -> None:
        self._available_bytes = available_bytes

    def start(self, session: Session, on_danger: Callable[[str], None]) -> Watch:
        """Begin to watch in a thread of its own."""
        return _SystemWatch(session, on_danger, self._available_bytes)

    def cpu_s(self, session: Session) -> tuple[float, float | None]:
        """By ``os.times`` and the server's process tree; ``None`` where that is not known."""
        own = os.times()
        return own.user + own.system, _cpu_s(session.pids)


class _SystemWatch:
    def __init__(
        self,
        session: Session,
        on_danger: Callable[[str], None],
        available_bytes: Callable[[], int],
    ) -> None:
        self._session = session
        self._on_danger = on_danger
        self._available_bytes = available_bytes
        self._peak_rss_bytes = 0
        self._peak_gpu_bytes: dict[str, int] = {}
        self._available_min: int | None = None
        self._swap_start = psutil.swap_memory().used
        self._busy_start = busy_s()
        self._own_start = _cpu_s((os.getpid(),)) or 0.0
        self._server_start = self._server_s = _cpu_s(session.pids) or 0.0
        self._energy_start = energy_j()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="velollm-monitor", daemon=True)
        self._thread.start()

    def _loop(self) -> None:
        warned = False
        while True:
            self._look()
            if not warned and self._available_min is not None:
                short = self._available_min < _RESERVE_BYTES
                if short:
                    warned = True
                    self._on_danger(f"only {self._available_min >> 20} MiB of memory were left")
            if self._ended.wait(_INTERVAL_S):
                return

    def _look(self) -> None:
        available = self._available_bytes()
        self._available_min = min(available, self._available_min or available)
        self._server_s = _cpu_s(self._session.pids) or self._server_s
        use: MemoryUse | None = None
        with suppress(Exception):  # an adapter's fault must not end the watch over the memory
            use = self._session.memory()
        if use is not None:
            self._peak_rss_bytes = max(self._peak_rss_bytes, use.rss_bytes)
            for uuid, used in use.gpu_bytes.items():
                self._peak_gpu_bytes[uuid] = max(used, self._peak_gpu_bytes.get(uuid, 0))

    def stop(self) -> Observed:
        self._ended.set()
        self._thread.join()
        busy, elapsed_s = (now - then for now, then in zip(busy_s(), self._busy_start, strict=True))
        own_s = (_cpu_s((os.getpid(),)) or 0.0) - self._own_start
        # Of a server that has died the last look counts, or its work would seem another's.
        server_s = (_cpu_s(self._session.pids) or self._server_s) - self._server_start
        foreign = max(0.0, busy - own_s - server_s) / elapsed_s if elapsed_s > 0 else None
        energy = energy_j()
        return Observed(
            load=MachineLoad(
                # Without the server's processes its own work would be taken for a foreign load.
                foreign_cpus=foreign if self._session.pids else None,
                load_average_1m=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
                available_bytes_min=self._available_min,
                swapped_bytes=max(0, psutil.swap_memory().used - self._swap_start),
                on_battery=on_battery(),
                cpu_mhz=_cpu_mhz(),
            ),
            peak_rss_bytes=self._peak_rss_bytes or None,
            peak_gpu_bytes=self._peak_gpu_bytes,
            energy_j=None
            if energy is None or self._energy_start is None
            else energy - self._energy_start,
        )


def busy_s() -> tuple[float, float]:
    """Processor seconds that anything was busy, and wall seconds, since an arbitrary moment."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0) + getattr(times, "steal", 0.0)
    # user and nice hold guest and guest_nice already.
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total - idle, time.monotonic()


def _cpu_s(pids: tuple[int, ...]) -> float | None:
    total, known = 0.0, False
    for pid in pids:
        with suppress(psutil.Error):
            times = psutil.Process(pid).cpu_times()
            total += times.user + times.system
            known = True
    return total if known else None


def on_battery(supplies: Path = _SUPPLIES) -> bool | None:
    """Whether the machine runs on its battery; ``None`` where it has none or does not tell.

    Args:
        supplies: where Linux shows its power supplies.
    """
    if psutil.LINUX:
        return _discharges(supplies)
    with suppress(AttributeError, OSError, RuntimeError):
        battery = psutil.sensors_battery()
        if battery is not None and battery.power_plugged is not None:
            return not battery.power_plugged
    return None


def _discharges(supplies: Path) -> bool | None:
    """As :func:`on_battery`. Not psutil: to it the battery of a mouse is one as well.

    Source: Linux kernel documentation, ABI, sysfs-class-power; a ``scope`` that is not told is
    ``System``.
    """
    folders = [folder for folder in supplies.glob("*") if _told(folder / "scope") != "Device"]
    states = {_told(folder / "status") for folder in folders if _told(folder / "type") == "Battery"}
    if states <= {"Unknown", ""}:
        return None
    plugged = any(_told(f / "online") == "1" for f in folders if _told(f / "type") != "Battery")
    return "Discharging" in states and not plugged


def _told(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").strip()
    return ""


def _cpu_mhz() -> float | None:
    with suppress(AttributeError, OSError, NotImplementedError, RuntimeError):
        frequency = psutil.cpu_freq()
        return None if frequency is None or not frequency.current else float(frequency.current)
    return None


def energy_j() -> float | None:
    """Joules that all NVIDIA cards have used since their driver was loaded; ``None`` without NVML.

    Source: ``nvmlDeviceGetTotalEnergyConsumption``, millijoules, Volta and later.
    """
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # noqa: BLE001 - no library, no driver, no permission: no figure
        return None
    try:
        handles = [
            pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())
        ]
        used_mj = sum(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in handles)
        return used_mj / 1000.0 if handles else None
    except pynvml.NVMLError:
        return None
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()
