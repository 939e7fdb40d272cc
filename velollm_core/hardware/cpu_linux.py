"""Processors on Linux, from ``/proc`` and ``/sys``, in a few milliseconds."""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import frozen

from velollm_core.hardware import instruction_sets
from velollm_core.hardware.caches import CacheKind, count_caches
from velollm_core.hardware.cgroup import cpu_quota
from velollm_core.hardware.parsing import cpu_list, integer, keyed, size_bytes, text
from velollm_core.hardware.probe import Probe
from velollm_core.hardware.spec import CpuInfo, NumaNode

_CPU = "/sys/devices/system/cpu"
_NODE = "/sys/devices/system/node"
_CACHE_KINDS: dict[str, CacheKind] = {
    "Data": "data",
    "Instruction": "instruction",
    "Unified": "unified",
}
_SLOW_SHARE = 0.75


@frozen
class _Topology:
    """The cores, each as its logical processors, and the number of packages."""

    cores: frozenset[tuple[int, ...]]
    packages: int


def linux_cpu(probe: Probe) -> CpuInfo | None:
    """The processors, or ``None`` where neither ``/proc/cpuinfo`` nor ``/sys`` can be read."""
    blocks = _cpuinfo_blocks(probe.read("/proc/cpuinfo") or "")
    online = cpu_list(probe.read(f"{_CPU}/online"))
    online = online or tuple(
        sorted({cpu for block in blocks if (cpu := integer(block.get("processor"))) is not None})
    )
    if not online:
        return None
    topology = _sys_topology(probe, online) or _cpuinfo_topology(blocks, len(online))
    slow = _slow_cpus(probe, online)
    efficiency = sum(1 for core in topology.cores if slow.issuperset(core)) if slow else None
    physical = len(topology.cores)
    allowed = cpu_list(keyed(probe.read("/proc/self/status")).get("Cpus_allowed_list"))
    model = _model(probe, blocks)
    return CpuInfo(
        model=model,
        architecture=probe.machine,
        logical=len(online),
        physical=physical,
        packages=topology.packages,
        performance_cores=None if efficiency is None else physical - efficiency,
        efficiency_cores=efficiency,
        instruction_sets=_instruction_sets(blocks, model),
        caches=count_caches(_caches(probe, online)),
        numa_nodes=_numa_nodes(probe),
        usable_cpus=tuple(cpu for cpu in allowed if cpu in set(online)) or online,
        quota_cpus=cpu_quota(probe),
    )


def _cpuinfo_blocks(content: str) -> list[dict[str, str]]:
    """The paragraphs of ``/proc/cpuinfo``: one a processor, on some architectures one for all."""
    return [keyed(block) for block in re.split(r"\n\s*\n", content) if block.strip()]


def _first(blocks: list[dict[str, str]], *keys: str) -> str | None:
    return next((block[key] for key in keys for block in blocks if text(block.get(key))), None)


def _model(probe: Probe, blocks: list[dict[str, str]]) -> str:
    model = _first(blocks, "model name")
    if model is None and probe.machine.startswith(("aarch64", "arm")):
        # The kernel gives part numbers; lscpu knows the names, one line for each kind of core.
        listed = re.findall(r"^Model name:[ \t]*(\S.*)$", probe.run("lscpu") or "", re.MULTILINE)
        cores = " + ".join(dict.fromkeys(name.strip() for name in listed if text(name)))
        board = text(probe.read("/proc/device-tree/model"))
        model = f"{cores} ({board})" if cores and board else cores or board
    model = model or _first(blocks, "cpu", "uarch", "Processor", "vendor_id")
    return re.sub(r"\s+", " ", model or f"unknown {probe.machine} processor").strip()


def _instruction_sets(blocks: list[dict[str, str]], model: str) -> tuple[str, ...]:
    flags = _first(blocks, "flags", "Features", "features")
    if flags is not None:
        return instruction_sets.from_flags(flags.split())
    isa = _first(blocks, "isa")
    if isa is not None:
        return instruction_sets.from_riscv_isa(isa)
    return instruction_sets.from_power_model(model)


def _sys_topology(probe: Probe, online: tuple[int, ...]) -> _Topology | None:
    cores: set[tuple[int, ...]] = set()
    packages: set[str] = set()
    placed: set[int] = set()
    for cpu in online:
        if cpu in placed:
            continue
        place = f"{_CPU}/cpu{cpu}/topology"
        listed = probe.read(f"{place}/core_cpus_list") or probe.read(
            f"{place}/thread_siblings_list"
        )
        core = cpu_list(listed)
        if cpu not in core:
            return None
        cores.add(core)
        placed.update(core)
        packages.add(probe.read(f"{place}/physical_package_id") or "")
    # Kernels before 5.4 called the clusters of one ARM chip packages.
    single = probe.exists(f"{_CPU}/cpu{online[0]}/cpu_capacity")
    return _Topology(frozenset(cores), 1 if single else len(packages))


def _cpuinfo_topology(blocks: list[dict[str, str]], logical: int) -> _Topology:
    cores: dict[tuple[str, str], list[int]] = {}
    for block in blocks:
        cpu = integer(block.get("processor"))
        if cpu is not None and "core id" in block:
            cores.setdefault((block.get("physical id", "0"), block["core id"]), []).append(cpu)
    if not cores:
        return _Topology(frozenset((cpu,) for cpu in range(logical)), 1)
    packages = {package for package, _ in cores}
    return _Topology(frozenset(tuple(cpus) for cpus in cores.values()), len(packages))


def _slow_cpus(probe: Probe, online: tuple[int, ...]) -> set[int]:
    """The processors that are efficiency cores; empty where all are alike.

    Intel's kernel driver lists them. Elsewhere speed tells: the scheduler's capacity (ARM), else
    the highest frequency (AMD's dense cores). A core is slow below the middle between slowest and
    fastest, if the slowest has at most three quarters of the fastest: single cores that boost a
    little higher than the rest do not make the rest slow.
    """
    named: set[int] = set()
    for device in ("cpu_atom", "cpu_lowpower"):
        for place in ("/sys/devices", "/sys/bus/event_source/devices"):
            named.update(cpu_list(probe.read(f"{place}/{device}/cpus")))
    if named and not named.issuperset(online):
        return named
    for file in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        speeds = {cpu: integer(probe.read(f"{_CPU}/cpu{cpu}/{file}")) or 0 for cpu in online}
        slowest, fastest = min(speeds.values()), max(speeds.values())
        if 0 < slowest <= fastest * _SLOW_SHARE:
            return {cpu for cpu, speed in speeds.items() if speed < (slowest + fastest) / 2}
    return set()


def _caches(probe: Probe, online: tuple[int, ...]) -> Iterator[tuple[int, CacheKind, int]]:
    seen: set[tuple[str, str]] = set()
    for cpu in online:
        for index in probe.names(f"{_CPU}/cpu{cpu}/cache"):
            place = f"{_CPU}/cpu{cpu}/cache/{index}"
            shared = probe.read(f"{place}/shared_cpu_list") if index.startswith("index") else None
            if shared is None or (index, shared) in seen:
                continue
            seen.add((index, shared))
            level = integer(probe.read(f"{place}/level"))
            kind = _CACHE_KINDS.get(probe.read(f"{place}/type") or "")
            size = size_bytes(probe.read(f"{place}/size"))
            if level and kind and size:
                yield level, kind, size


def _numa_nodes(probe: Probe) -> tuple[NumaNode, ...]:
    nodes = []
    for name in probe.names(_NODE):
        match = re.fullmatch(r"node(\d{1,6})", name)
        if match is None:
            continue
        total = re.search(r"MemTotal:\s*(\d+ kB)", probe.read(f"{_NODE}/{name}/meminfo") or "")
        nodes.append(
            NumaNode(
                id=int(match[1]),
                cpus=cpu_list(probe.read(f"{_NODE}/{name}/cpulist")),
                memory_bytes=size_bytes(total[1]) if total else None,
            )
        )
    return tuple(sorted(nodes, key=lambda node: node.id))
