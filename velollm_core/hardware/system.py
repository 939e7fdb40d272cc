"""The operating system, and the container that this process runs in."""

from __future__ import annotations

import plistlib
import re
from xml.parsers.expat import ExpatError

from velollm_core.hardware.parsing import integer, keyed, text
from velollm_core.hardware.probe import Probe
from velollm_core.hardware.spec import ContainerInfo, OsInfo

_WINDOWS_KEY = r"SOFTWARE\Microsoft\Windows NT\CurrentVersion"
_FIRST_BUILD_OF_WINDOWS_11 = 22000
# Group names as the managers make them; a mere "docker" would also be the host's docker.service.
_GROUPS = (
    ("kubernetes", re.compile(r"/kubepods")),
    ("podman", re.compile(r"/libpod[-_]")),
    ("docker", re.compile(r"/docker[-/][0-9a-f]{32}")),
    ("lxc", re.compile(r"/lxc(\.payload)?[./]")),
    ("systemd-nspawn", re.compile(r"/systemd-nspawn@|/machine-[^/]+\.scope")),
    ("containerd", re.compile(r"cri-containerd")),
)


def detect_os(probe: Probe) -> OsInfo:
    """Name, kernel release and distribution."""
    if probe.system == "Darwin":
        return _macos(probe)
    if probe.system == "Windows":
        return _windows(probe)
    release = keyed(probe.read("/etc/os-release") or probe.read("/usr/lib/os-release"), "=")
    return OsInfo(
        system=probe.system,
        release=probe.read("/proc/sys/kernel/osrelease") or "",
        version=probe.read("/proc/sys/kernel/version") or "",
        distribution=text(release.get("PRETTY_NAME", "").strip("\"'")),
    )


def _macos(probe: Probe) -> OsInfo:
    kernel = keyed(probe.run("sysctl", "kern.osrelease", "kern.osversion"))
    name = None
    try:
        properties = plistlib.loads(
            probe.read_bytes("/System/Library/CoreServices/SystemVersion.plist") or b""
        )
        name = f"{properties['ProductName']} {properties['ProductVersion']}"
    except (ValueError, KeyError, TypeError, AttributeError, ExpatError):
        pass  # plistlib's ways to say that a file is no property list, or another one
    return OsInfo(
        system="Darwin",
        release=kernel.get("kern.osrelease", ""),
        version=kernel.get("kern.osversion", ""),
        distribution=name,
    )


def _windows(probe: Probe) -> OsInfo:
    def value(name: str) -> str:
        return str(probe.native.registry_value(_WINDOWS_KEY, name) or "")

    build = value("CurrentBuild")
    name = value("ProductName")
    if (integer(build) or 0) >= _FIRST_BUILD_OF_WINDOWS_11:
        name = name.replace("Windows 10", "Windows 11")  # the registry kept the old name
    return OsInfo(
        system="Windows",
        release=build,
        version=value("DisplayVersion"),
        distribution=text(name),
    )


def detect_container(probe: Probe) -> ContainerInfo | None:
    """The innermost container, by its environment, marker files or control groups.

    The evidence never holds an identifier: a container's is its host name.
    """
    if probe.system != "Linux":
        return None
    if "KUBERNETES_SERVICE_HOST" in probe.environ:
        return ContainerInfo(kind="kubernetes", evidence="KUBERNETES_SERVICE_HOST is set")
    for path, kind in (
        ("/run/secrets/kubernetes.io", "kubernetes"),
        ("/run/.containerenv", "podman"),
        ("/.dockerenv", "docker"),
    ):
        if probe.exists(path):
            return ContainerInfo(kind=kind, evidence=f"{path} exists")
    # systemd's container interface: managers tell process 1, which writes it down.
    told = probe.read("/run/systemd/container") or probe.environ.get("container", "")
    named = re.fullmatch(r"[a-z][a-z0-9_-]{0,30}", told)
    if named and told != "wsl":
        return ContainerInfo(kind=told, evidence="the container manager says so")
    for path in ("/proc/1/cgroup", "/proc/self/cgroup"):
        groups = probe.read(path) or ""
        for kind, pattern in _GROUPS:
            if pattern.search(groups):
                return ContainerInfo(kind=kind, evidence=f"{path} names a group of {kind}")
    if "microsoft" in (probe.read("/proc/sys/kernel/osrelease") or "").lower():
        return ContainerInfo(kind="wsl", evidence="the kernel's release names Microsoft")
    return None
