"""What control groups leave to this process: the CPU quota and the memory limit, versions 1 and 2.

A limit anywhere above a group binds the group, so every level from this process's own up to the top
of what is mounted is read, and the tightest counts.
"""

from __future__ import annotations

import posixpath

from attrs import frozen

from velollm_core.hardware.parsing import integer, keyed
from velollm_core.hardware.probe import Probe

_UNLIMITED_BYTES = (
    1 << 60
)  # version 1 writes "no limit" as the largest multiple of a page in 63 bits


@frozen
class MemoryLimit:
    """A limit on memory and what is used of it that cannot be had back, bytes."""

    limit_bytes: int
    used_bytes: int


@frozen
class _Mount:
    version: int
    root: str
    point: str
    controllers: frozenset[str]


def cpu_quota(probe: Probe) -> float | None:
    """The CPU time this process may use, in processors; ``None`` where nothing limits it."""
    quotas = []
    for version, level in _levels(probe, "cpu"):
        if version == 2:
            quota, _, period = (probe.read(f"{level}/cpu.max") or "").partition(" ")
        else:
            quota = probe.read(f"{level}/cpu.cfs_quota_us") or ""
            period = probe.read(f"{level}/cpu.cfs_period_us") or ""
        share, whole = integer(quota), integer(period)
        if share and whole and share > 0 and whole > 0:
            quotas.append(share / whole)
    return min(quotas, default=None)


def memory_limit(probe: Probe) -> MemoryLimit | None:
    """The limit that leaves least to this process; ``None`` where there is none.

    Of the usage, file cache that was not used lately (``inactive_file``) is taken off: the kernel
    drops it before it runs out of memory. Container tools count the "working set" the same way.
    Above ``memory.high`` (version 2) a process is throttled until it is of no use, so that is a
    limit, too.
    """
    limits = []
    for version, level in _levels(probe, "memory"):
        stat = keyed(probe.read(f"{level}/memory.stat"), " ")
        if version == 2:
            bounds = [probe.read(f"{level}/memory.max"), probe.read(f"{level}/memory.high")]
            usage, cache = probe.read(f"{level}/memory.current"), stat.get("inactive_file")
        else:
            # The hierarchical limit is of ancestors that a container may not see.
            bounds = [
                probe.read(f"{level}/memory.limit_in_bytes"),
                stat.get("hierarchical_memory_limit"),
            ]
            usage = probe.read(f"{level}/memory.usage_in_bytes")
            cache = stat.get("total_inactive_file")
        known = [bound for bound in map(integer, bounds) if bound and 0 < bound < _UNLIMITED_BYTES]
        if known:
            used = max(0, (integer(usage) or 0) - (integer(cache) or 0))
            limits.append(MemoryLimit(min(known), used))
    return min(limits, key=lambda limit: limit.limit_bytes - limit.used_bytes, default=None)


def _levels(probe: Probe, controller: str) -> list[tuple[int, str]]:
    """The version and directory of the group that ``controller`` binds, then of its ancestors."""
    groups = _groups(probe)
    version = 1 if controller in groups else 2
    group = groups.get(controller, groups.get("", "/"))
    mounts = [
        mount
        for mount in _mounts(probe)
        if mount.version == version and (version == 2 or controller in mount.controllers)
    ]
    if not mounts:
        return []
    # Where a container sees a hierarchy at several places, the mount nearest to the group counts.
    mount = max(mounts, key=lambda mount: len(mount.root) if _within(group, mount.root) else -1)
    level = mount.point
    if ".." not in group and _within(group, mount.root):
        inside = group.removeprefix(mount.root.rstrip("/")).strip("/")
        level = posixpath.join(mount.point, inside) if inside else mount.point
    levels = [(version, level)]
    while level != mount.point:
        level = posixpath.dirname(level)
        levels.append((version, level))
    return levels


def _within(group: str, root: str) -> bool:
    return group == root or group.startswith(root.rstrip("/") + "/")


def _groups(probe: Probe) -> dict[str, str]:
    """This process's group by controller; version 2's under the empty name."""
    found: dict[str, str] = {}
    for line in (probe.read("/proc/self/cgroup") or "").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        for controller in controllers.split(","):
            found[controller] = path or "/"
    return found


def _mounts(probe: Probe) -> list[_Mount]:
    """Mounted hierarchies: ``31 24 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw`` is one."""
    found = []
    for line in (probe.read("/proc/self/mountinfo") or "").splitlines():
        mounted, _, source = line.partition(" - ")
        fields, kind = mounted.split(), source.split()
        if len(fields) < 5 or not kind or kind[0] not in {"cgroup", "cgroup2"}:
            continue
        version = 2 if kind[0] == "cgroup2" else 1
        found.append(_Mount(version, fields[3], fields[4], frozenset(kind[-1].split(","))))
    return found
