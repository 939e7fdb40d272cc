from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velollm_core.hardware.cgroup import MemoryLimit, cpu_quota, memory_limit
from velollm_core.hardware.memory import detect_memory
from velollm_core.hardware.native import Native
from velollm_core.hardware.probe import Probe

V2 = "31 24 0:26 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "33 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "34 31 0:30 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)
NO_LIMIT = "9223372036854771712"


def v2(group, files, root="/"):
    """Files of the unified hierarchy, with this process in ``group``."""
    return {
        "/proc/self/cgroup": f"0::{group}\n",
        "/proc/self/mountinfo": V2.format(root=root),
        **{f"/sys/fs/cgroup/{name}": content for name, content in files.items()},
    }


def v1(group, files, root="/"):
    """Files of version 1, with this process in ``group`` of both controllers."""
    return {
        "/proc/self/cgroup": f"4:memory:{group}\n3:cpu,cpuacct:{group}\n1:name=systemd:{group}\n",
        "/proc/self/mountinfo": V1.format(root=root),
        **{f"/sys/fs/cgroup/{name}": content for name, content in files.items()},
    }


def test_no_groups_mean_no_limits(planted):
    probe = planted()
    assert cpu_quota(probe) is None
    assert memory_limit(probe) is None


@pytest.mark.parametrize(("content", "quota"), [("200000 100000", 2), ("50000 100000", 0.5)])
def test_a_container_with_a_quota_of_version_2(planted, content, quota):
    assert cpu_quota(planted(v2("/", {"cpu.max": content}))) == quota


@pytest.mark.parametrize("content", ["max 100000", "", "garbage", "0 100000", "-1 100000", "1 0"])
def test_what_is_no_quota_limits_nothing(planted, content):
    assert cpu_quota(planted(v2("/", {"cpu.max": content}))) is None


def test_a_container_with_a_quota_of_version_1(planted):
    files = {"cpu,cpuacct/cpu.cfs_quota_us": "200000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}
    assert cpu_quota(planted(v1("/docker/abc", files, root="/docker/abc"))) == 2


def test_version_1_without_a_quota_says_minus_one(planted):
    files = {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}
    assert cpu_quota(planted(v1("/", files))) is None


def test_the_tightest_ancestor_counts(planted):
    files = {
        "kubepods/cpu.max": "400000 100000",
        "kubepods/pod1/cpu.max": "150000 100000",
        "kubepods/pod1/c1/cpu.max": "max 100000",
    }
    assert cpu_quota(planted(v2("/kubepods/pod1/c1", files))) == 1.5


def test_version_1_walks_up_as_well(planted):
    base = "cpu,cpuacct/kubepods"
    files = {
        f"{base}/cpu.cfs_quota_us": "100000",
        f"{base}/cpu.cfs_period_us": "100000",
        f"{base}/pod/cpu.cfs_quota_us": "-1",
        f"{base}/pod/cpu.cfs_period_us": "100000",
    }
    assert cpu_quota(planted(v1("/kubepods/pod", files))) == 1


def test_a_group_outside_what_is_mounted_is_read_at_the_mount(planted):
    files = {"cpu.max": "100000 100000"}
    assert cpu_quota(planted(v2("/../sibling", files))) == 1
    assert cpu_quota(planted(v2("/system.slice/x", files, root="/docker/abc"))) == 1


def test_a_mount_of_a_sub_tree_is_entered_below_its_root(planted):
    files = {"inner/cpu.max": "100000 100000", "outer/inner/cpu.max": "900000 100000"}
    assert cpu_quota(planted(v2("/outer/inner", files, root="/outer"))) == 1


def test_a_controller_of_version_1_beside_version_2_is_found(planted):
    files = v1("/a", {"memory/a/memory.limit_in_bytes": str(1 << 30)})
    files["/proc/self/cgroup"] += "0::/a\n"
    files["/proc/self/mountinfo"] += V2.format(root="/")
    assert memory_limit(planted(files)) == MemoryLimit(1 << 30, 0)


def test_file_cache_that_the_kernel_would_drop_is_not_counted_as_used(planted):
    files = {
        "memory.max": str(4 << 30),
        "memory.current": str(3 << 30),
        "memory.stat": f"anon {1 << 30}\ninactive_file {2 << 30}\nactive_file 0\n",
    }
    assert memory_limit(planted(v2("/", files))) == MemoryLimit(4 << 30, 1 << 30)


def test_a_throttling_limit_counts_like_a_hard_one(planted):
    files = {"memory.max": "max", "memory.high": str(2 << 30), "memory.current": str(1 << 30)}
    assert memory_limit(planted(v2("/", files))) == MemoryLimit(2 << 30, 1 << 30)


def test_the_ancestor_that_leaves_least_counts_though_its_limit_is_higher(planted):
    files = {
        "a/memory.max": str(8 << 30),
        "a/memory.current": str(7 << 30),
        "a/b/memory.max": str(4 << 30),
        "a/b/memory.current": str(1 << 30),
    }
    assert memory_limit(planted(v2("/a/b", files))) == MemoryLimit(8 << 30, 7 << 30)


def test_version_1_knows_the_limit_of_ancestors_that_cannot_be_seen(planted):
    files = {
        "memory/memory.limit_in_bytes": NO_LIMIT,
        "memory/memory.usage_in_bytes": str(600 << 20),
        "memory/memory.stat": (
            f"cache 0\ninactive_file 1\nhierarchical_memory_limit {1 << 30}\n"
            f"total_inactive_file {100 << 20}\n"
        ),
    }
    assert memory_limit(planted(v1("/", files))) == MemoryLimit(1 << 30, 500 << 20)


def test_version_1_without_a_limit_is_none(planted):
    files = {"memory/memory.limit_in_bytes": NO_LIMIT}
    assert memory_limit(planted(v1("/", files))) is None


MEMINFO = (
    "MemTotal:       65536000 kB\nMemFree:         1000000 kB\nMemAvailable:   40000000 kB\n"
    "SwapTotal:       8000000 kB\nSwapFree:        6000000 kB\n"
)


def test_memory_swap_and_limit_of_a_container(planted):
    files = v2("/", {"memory.max": str(4 << 30), "memory.current": str(1 << 30)})
    memory = detect_memory(planted({"/proc/meminfo": MEMINFO, **files}))
    assert memory.total_bytes == 65536000 << 10
    assert memory.available_bytes == 40000000 << 10
    assert (memory.swap_total_bytes, memory.swap_used_bytes) == (8000000 << 10, 2000000 << 10)
    assert (memory.limit_bytes, memory.limit_used_bytes) == (4 << 30, 1 << 30)
    assert memory.usable_bytes == 3 << 30


def test_a_limit_beyond_the_machine_limits_nothing(planted):
    files = v2("/", {"memory.max": str(1 << 40)})
    memory = detect_memory(planted({"/proc/meminfo": MEMINFO, **files}))
    assert memory.limit_bytes is None
    assert memory.usable_bytes == memory.available_bytes


def test_kernels_that_do_not_say_available_are_reckoned(planted):
    content = "MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 50 kB\nCached: 300 kB\nShmem: 40 kB\n"
    memory = detect_memory(planted({"/proc/meminfo": content}))
    assert memory.available_bytes == 410 << 10


@pytest.mark.parametrize("system", ["Darwin", "Windows", "FreeBSD", "Linux"])
def test_elsewhere_and_without_proc_the_system_is_asked(planted, system):
    memory = detect_memory(planted(system=system))
    assert (memory.total_bytes, memory.available_bytes) == (36 << 30, 20 << 30)
    assert (memory.swap_total_bytes, memory.swap_used_bytes) == (2 << 30, 1 << 30)


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="needs Linux")
def test_on_this_machine_psutil_agrees():
    memory, figures = detect_memory(Probe()), Native().memory()
    assert (memory.total_bytes, memory.swap_total_bytes) == (figures.total, figures.swap_total)
    assert memory.available_bytes == pytest.approx(figures.available, rel=0.1)


quotas = st.lists(st.one_of(st.none(), st.integers(1, 10**7)), min_size=1, max_size=6)


@settings(deadline=None)
@given(quotas=quotas)
def test_of_any_chain_of_groups_the_least_quota_is_found(quotas):
    group = "".join(f"/g{depth}" for depth in range(1, len(quotas)))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        place = root / "sys/fs/cgroup"
        for depth, quota in enumerate(quotas):
            place = place / f"g{depth}" if depth else place
            place.mkdir(parents=True)
            (place / "cpu.max").write_text(f"{'max' if quota is None else quota} 100000\n")
        proc = root / "proc/self"
        proc.mkdir(parents=True)
        (proc / "cgroup").write_text(f"0::{group or '/'}\n")
        (proc / "mountinfo").write_text(V2.format(root="/"))
        found = cpu_quota(Probe(root=root, system="Linux", environ={}))
    known = [quota for quota in quotas if quota is not None]
    assert found == (min(known) / 100000 if known else None)
