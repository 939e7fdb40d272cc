"""Calls into the operating system, for what no file and no tool tells."""

from __future__ import annotations

import contextlib
import sys

from attrs import frozen

RegistryValue = str | int | bytes


@frozen(kw_only=True)
class MemoryFigures:
    """Main memory as the system counts it, bytes."""

    total: int
    available: int
    swap_total: int = 0
    swap_used: int = 0


class Native:
    """The machine that we run on. Tests put another in its place."""

    def memory(self) -> MemoryFigures:
        """Main memory and swap, by psutil."""
        import psutil

        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        return MemoryFigures(
            total=memory.total,
            available=memory.available,
            swap_total=swap.total,
            swap_used=swap.used,
        )

    def cpu_counts(self) -> tuple[int, int]:
        """Logical processors and physical cores, by psutil."""
        import psutil

        logical = psutil.cpu_count() or 1
        return logical, psutil.cpu_count(logical=False) or logical

    def cpu_affinity(self) -> tuple[int, ...]:
        """Processors that this process may run on; empty where there is no such mask (macOS)."""
        cpus: list[int] = []
        if sys.platform != "darwin":
            import psutil

            cpus += psutil.Process().cpu_affinity() or ()
        return tuple(sorted(cpus))

    def cpu_flags(self) -> tuple[str, ...]:
        """The processor's flags, by py-cpuinfo2: 0.2 s and more, so only where no file tells."""
        from cpuinfo import get_cpu_info

        return tuple(get_cpu_info().get("flags", ()))

    def registry_value(self, key: str, name: str) -> RegistryValue | None:
        """A value below ``HKEY_LOCAL_MACHINE``; ``None`` where there is none."""
        found: list[RegistryValue] = []
        if sys.platform == "win32":
            import winreg

            with (
                contextlib.suppress(OSError),
                winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key) as handle,
            ):
                value = winreg.QueryValueEx(handle, name)[0]
                found += [value] if isinstance(value, (str, int, bytes)) else []
        return found[0] if found else None

    def registry_keys(self, key: str) -> tuple[str, ...]:
        """Names of the keys below a key of ``HKEY_LOCAL_MACHINE``; empty where there is none."""
        found: list[str] = []
        if sys.platform == "win32":
            import winreg

            with (
                contextlib.suppress(OSError),
                winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key) as handle,
            ):
                count = winreg.QueryInfoKey(handle)[0]
                found += [winreg.EnumKey(handle, index) for index in range(count)]
        return tuple(found)

    def processor_topology(self) -> bytes:
        """The table of Windows' ``GetLogicalProcessorInformationEx``; empty elsewhere."""
        table = b""
        if sys.platform == "win32":
            import ctypes

            ask = ctypes.windll.kernel32.GetLogicalProcessorInformationEx
            relation_all = 0xFFFF
            size = ctypes.c_ulong(0)
            ask(relation_all, None, ctypes.byref(size))
            buffer = ctypes.create_string_buffer(size.value)
            if ask(relation_all, buffer, ctypes.byref(size)):
                table = buffer.raw[: size.value]
        return table

    def processor_feature(self, feature: int) -> bool:
        """What Windows' ``IsProcessorFeaturePresent`` says; false elsewhere."""
        present = False
        if sys.platform == "win32":
            import ctypes

            present = bool(ctypes.windll.kernel32.IsProcessorFeaturePresent(feature))
        return present
