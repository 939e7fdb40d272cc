"""What tests of several folders share: results built by hand, and a user's environment."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from velollm_core.backends.contract import ServerTimings
from velollm_core.config import Config
from velollm_core.experiment.spec import (
    RUNNER_VERSION,
    ArmRecord,
    BenchmarkResult,
    EngineRecord,
    ModelRecord,
    PhaseRecord,
    Sample,
    Trial,
    WorkloadRecord,
)
from velollm_core.hardware.spec import CpuInfo, HardwareSpec, MemoryInfo, OsInfo
from velollm_core.models.demo import cache_directory
from velollm_core.models.spec import ModelSpec


def sample(index=0, *, first_ms=50.0, gap_ms=10.0, tokens=21, prompt=100, cached=0, **changes):
    """One answer of ``tokens`` single tokens: the server prefills in ``first_ms`` less 10."""
    return Sample(
        **{
            "index": index,
            "started_ms": index * 1000.0,
            "first_token_ms": first_ms,
            "total_ms": first_ms + gap_ms * (tokens - 1) + 1,
            "event_ms": tuple(first_ms + gap_ms * k for k in range(tokens)),
            "event_tokens": (1,) * tokens,
            "finish_reason": "length",
            "prompt_tokens": prompt,
            "cached_tokens": cached,
            "output_tokens": tokens,
            "timings": ServerTimings(prompt_ms=first_ms - 10, predicted_ms=gap_ms * (tokens - 1)),
            "prompt_sha256": f"prompt {index}",
            "output_sha256": f"output {index}",
            **changes,
        }
    )


def phase(samples, workload="short", concurrency=1, **changes):
    samples = tuple(samples)
    timed = [entry for entry in samples if not entry.warmup]
    wall_ms = sum(entry.total_ms for entry in timed) / concurrency
    return PhaseRecord(
        **{
            "workload": workload,
            "concurrency": concurrency,
            "wall_ms": wall_ms,
            "samples": samples,
            **changes,
        }
    )


def trial(phases, block=0, arm="current", **changes):
    return Trial(
        **{
            "key": f"{arm}-{block}",
            "arm": arm,
            "block": block,
            "position": 0,
            "started_at": "2026-11-24T20:00:00Z",
            "duration_ms": 9000.0,
            "phases": tuple(phases),
            "load_ms": 800.0,
            "peak_rss_bytes": 300 << 20,
            **changes,
        }
    )


def arm(name="current", **changes):
    return ArmRecord(
        **{
            "name": name,
            "mode": "launch",
            "engine": EngineRecord(
                backend="llamacpp", kind="binary", version="6721", build="a1b2c3d"
            ),
            "model": ModelRecord(
                name="demo",
                fingerprint="f00d",
                spec=ModelSpec(
                    architecture="llama",
                    name="SmolLM2 135M Instruct",
                    parameter_count=134_515_008,
                    layers=30,
                    embedding_length=576,
                    context_length=8192,
                    quantization="Q4_1",
                    file_bytes=98_362_432,
                ),
            ),
            "config": Config({"threads": 2, "slots": 4}),
            "origins": {"threads": "--set", "slots": "engine default"},
            **changes,
        }
    )


def result(trials, **changes):
    """A result whose plan is what the phases of ``trials`` did."""
    trials = tuple(trials)
    cells = dict.fromkeys(
        (record.workload, record.concurrency) for entry in trials for record in entry.phases
    )
    names = dict.fromkeys(entry.arm for entry in trials)
    return BenchmarkResult(
        **{
            "run": "20261124-200000-3fa9",
            "created_at": "2026-11-24T20:00:00Z",
            "complete": True,
            "velollm_version": "0.1.0",
            "runner_version": RUNNER_VERSION,
            "python_version": "3.12.1",
            "seed": 0,
            "unit": "launch",
            "blocks": len({entry.block for entry in trials}),
            "arms": tuple(arm(name) for name in names),
            "workloads": tuple(
                WorkloadRecord(
                    name=name,
                    digest="d1",
                    requests=4,
                    concurrency=concurrency,
                    warmup=1,
                    max_tokens=21,
                )
                for name, concurrency in cells or {("short", 1): None}
            ),
            "hardware": HardwareSpec(
                cpu=CpuInfo(
                    model="Example 9000", architecture="x86_64", logical=8, physical=4, quota_cpus=2
                ),
                memory=MemoryInfo(total_bytes=16 << 30, available_bytes=8 << 30),
                os=OsInfo(system="Linux", release="6.8", distribution="Debian 13"),
            ),
            "hardware_fingerprint": "beef",
            "trials": trials,
            **changes,
        }
    )


@pytest.fixture(scope="session")
def build():
    """``build.sample``, ``phase``, ``trial``, ``arm`` and ``result``, with plain defaults."""
    return SimpleNamespace(sample=sample, phase=phase, trial=trial, arm=arm, result=result)


@pytest.fixture
def velollm_environ(velollm_environ: dict[str, str]) -> dict[str, str]:
    """A user who has set nothing; the cache alone is shared, for the demo model."""
    return velollm_environ | {"VELOLLM_CACHE_DIR": str(cache_directory(os.environ))}


@pytest.fixture
def environ(velollm_environ: dict[str, str]) -> dict[str, str]:
    return velollm_environ
