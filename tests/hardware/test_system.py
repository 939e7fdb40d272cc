from __future__ import annotations

import plistlib

import pytest

from velollm_core.hardware.system import detect_container, detect_os

CONTAINER_ID = "4f5d8a0c1b2e3f405162738495a6b7c8d9eaf0b1c2d3e4f5061728394a5b6c7d"


def test_linux_names_its_distribution_and_kernel(planted):
    files = {
        "/etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 24.04.1 LTS"\n',
        "/proc/sys/kernel/osrelease": "6.8.0-45-generic\n",
        "/proc/sys/kernel/version": "#45-Ubuntu SMP\n",
    }
    info = detect_os(planted(files))
    assert (info.system, info.release, info.version, info.distribution) == (
        "Linux",
        "6.8.0-45-generic",
        "#45-Ubuntu SMP",
        "Ubuntu 24.04.1 LTS",
    )


def test_the_second_place_of_os_release_is_read(planted):
    info = detect_os(planted({"/usr/lib/os-release": "PRETTY_NAME=Alpine\n"}))
    assert info.distribution == "Alpine"


def test_macos_names_itself(planted):
    properties = plistlib.dumps({"ProductName": "macOS", "ProductVersion": "14.6.1"})
    files = {"/System/Library/CoreServices/SystemVersion.plist": properties}
    tools = {
        "sysctl kern.osrelease kern.osversion": "kern.osrelease: 23.6.0\nkern.osversion: 23G93\n"
    }
    info = detect_os(planted(files, tools, system="Darwin"))
    assert (info.release, info.version, info.distribution) == ("23.6.0", "23G93", "macOS 14.6.1")


@pytest.mark.parametrize("content", [b"", b"<plist", b"bplist00garbage", plistlib.dumps([1])])
def test_a_broken_property_list_costs_only_the_name(planted, content):
    files = {"/System/Library/CoreServices/SystemVersion.plist": content}
    info = detect_os(planted(files, system="Darwin"))
    assert (info.system, info.distribution) == ("Darwin", None)


@pytest.mark.parametrize(
    ("build", "name"), [("22631", "Windows 11 Pro"), ("19045", "Windows 10 Pro")]
)
def test_windows_11_is_told_by_its_build(planted, build, name):
    key = r"SOFTWARE\Microsoft\Windows NT\CurrentVersion"
    values = {"CurrentBuild": build, "ProductName": "Windows 10 Pro", "DisplayVersion": "23H2"}
    info = detect_os(planted(system="Windows", registry={key: values}))
    assert (info.release, info.version, info.distribution) == (build, "23H2", name)


@pytest.mark.parametrize(
    ("kind", "files", "environ"),
    [
        ("docker", {"/.dockerenv": ""}, {}),
        ("podman", {"/run/.containerenv": ""}, {}),
        ("kubernetes", {"/.dockerenv": ""}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}),
        ("kubernetes", {"/run/secrets/kubernetes.io/serviceaccount/token": ""}, {}),
        ("systemd-nspawn", {"/run/systemd/container": "systemd-nspawn\n"}, {}),
        ("lxc", {}, {"container": "lxc"}),
        ("lxc", {"/proc/1/cgroup": "12:memory:/lxc/web\n"}, {}),
        ("docker", {"/proc/1/cgroup": f"4:memory:/docker/{CONTAINER_ID}\n"}, {}),
        ("docker", {"/proc/self/cgroup": f"0::/system.slice/docker-{CONTAINER_ID}.scope\n"}, {}),
        ("kubernetes", {"/proc/1/cgroup": f"0::/kubepods/besteffort/pod1/{CONTAINER_ID}\n"}, {}),
        ("podman", {"/proc/self/cgroup": f"0::/machine.slice/libpod-{CONTAINER_ID}.scope\n"}, {}),
        ("wsl", {"/proc/sys/kernel/osrelease": "5.15.153.1-microsoft-standard-WSL2\n"}, {}),
        (
            "docker",
            {"/.dockerenv": "", "/proc/sys/kernel/osrelease": "5.15.153.1-microsoft-standard-WSL2"},
            {},
        ),
        (None, {"/proc/1/cgroup": "0::/init.scope\n"}, {}),
        (None, {"/proc/self/cgroup": "0::/system.slice/docker.service\n"}, {}),
        (None, {}, {"container": "No Name!"}),
    ],
)
def test_containers_are_recognised_with_evidence_that_names_no_one(planted, kind, files, environ):
    found = detect_container(planted(files, environ=environ))
    assert (found.kind if found else None) == kind
    if found:
        assert found.evidence
        assert CONTAINER_ID[:12] not in found.evidence
        assert "10.0.0.1" not in found.evidence


@pytest.mark.parametrize("system", ["Darwin", "Windows"])
def test_other_systems_are_not_asked(planted, system):
    assert detect_container(planted({"/.dockerenv": ""}, system=system)) is None
