"""The memory plan, made from the header alone, against what llama.cpp says that it allocates.

The embedded engine is started for each configuration, with everything in main memory. Its log gives
buffers in MiB with two decimals, and how many cells, layers and streams each cache has. Weights,
KV cache and recurrent states count as equal where the cells, layers and streams are the same and
the planned bytes, rounded to two decimals of a MiB, are what the log says.
"""

from __future__ import annotations

import importlib.metadata
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from attrs import frozen
from record import arguments, write_record
from served import engine, started
from velollm_llamacpp.allocation import Allocation, Cells, read_allocation
from velollm_llamacpp.engines import build_of
from velollm_llamacpp.footprint import repacked_types, use_of
from velollm_llamacpp.settings import completed

from velollm_core.backends.contract import Installation
from velollm_core.config import Config
from velollm_core.models.demo import DemoSource
from velollm_core.models.header import model_spec
from velollm_core.models.memory import MemoryPlan, Placement, Use, cache_cells, plan_memory
from velollm_core.models.parts import read_model_files
from velollm_core.models.spec import Model, ModelSpec
from velollm_core.testing.gemma import gemma_path
from velollm_core.testing.gguf_files import hybrid, mixture_of_experts, uneven_heads

_MIB = 1 << 20
_DEPENDS_ON = [
    "velollm_core/models",
    "velollm_core/testing/gguf_files.py",
    "plugins/velollm-llamacpp/velollm_llamacpp",
    "benchmarks/memory_plan.py",
    "benchmarks/served.py",
]
CONTEXTS = (1024, 8192)
SLOTS: tuple[Mapping[str, int | bool], ...] = (
    {"slots": 1, "kv_unified": False},
    {"slots": 4, "kv_unified": True},
    {"slots": 3, "kv_unified": False},
)
KINDS: tuple[Mapping[str, str], ...] = (
    {"cache_type_k": "f16", "cache_type_v": "f16"},
    {"cache_type_k": "q8_0", "cache_type_v": "q8_0"},
    {"cache_type_k": "f16", "cache_type_v": "f16", "flash_attention": "off"},
)


@frozen(kw_only=True)
class Outcome:
    """One configuration: what was planned, and what was allocated."""

    plan: MemoryPlan
    told: Allocation
    cells: tuple[Cells, ...]

    @property
    def weights_equal(self) -> bool:
        return _rounds_to(self.plan.host.weights_bytes, self.told, "model")

    @property
    def kv_equal(self) -> bool:
        same = self.cells == self.told.caches
        states = _rounds_to(self.plan.host.recurrent_bytes, self.told, "RS")
        return same and states and _rounds_to(self.plan.host.kv_bytes, self.told, "KV")

    @property
    def difference(self) -> float:
        """Of the total, as a share of what was allocated."""
        return self.plan.host.total_bytes / _MIB / self.told.mib() - 1.0


def main() -> None:
    given = arguments(__doc__ or "").parse_args()
    figures: dict[str, object] = {"engine": f"xllamacpp {importlib.metadata.version('xllamacpp')}"}
    rows: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, path in _models(Path(scratch)).items():
            spec = model_spec(read_model_files(path))
            model = Model(reference=name, path=path, spec=spec)
            outcomes = {label: measured(model, spec, config) for label, config in grid()}
            figures |= _summary(name, list(outcomes.values()))
            rows |= {f"{name}, {label}": _row(outcome) for label, outcome in outcomes.items()}
    write_record(given.output, figures | rows, _DEPENDS_ON)


def grid() -> Iterator[tuple[str, Config]]:
    """Every context with every division of it and every kind of cache."""
    for context in CONTEXTS:
        for slots in SLOTS:
            for kind in KINDS:
                division = f"{slots['slots']} slots {'sharing' if slots['kv_unified'] else 'apart'}"
                if slots["slots"] == 1:
                    division = "1 slot"
                attention = ", no flash attention" if "flash_attention" in kind else ""
                label = f"{context} tokens, {division}, {kind['cache_type_k']}"
                yield label + attention, Config({"context": context, **slots, **kind})


def measured(model: Model, spec: ModelSpec, config: Config) -> Outcome:
    """Plan ``config``, and start an engine with it."""
    installation = engine()
    build = build_of(installation)
    complete = completed(build, config)
    use = use_of(spec, complete)
    placement = Placement(repacked=repacked_types(build.cpu_features))
    return Outcome(
        plan=plan_memory(spec, use, placement),
        told=_allocated(installation, model, complete),
        cells=planned_cells(spec, use),
    )


def planned_cells(spec: ModelSpec, use: Use) -> tuple[Cells, ...]:
    """The caches as llama.cpp's log lists them."""
    cells, window_cells = cache_cells(spec, use)
    streams = 1 if use.unified_kv else use.slots
    state = spec.recurrent
    caching = [
        slides
        for slides, heads in zip(spec.sliding_layers, spec.kv_heads, strict=True)
        if heads or state is None
    ]
    caches = [Cells(cells, caching.count(False), streams)]
    if any(caching):
        caches.append(Cells(window_cells, caching.count(True), streams))
    if state is not None:
        caches.append(Cells(use.slots, spec.layers, use.slots))
    return tuple(caches)


def _allocated(installation: Installation, model: Model, config: Config) -> Allocation:
    with started(installation, model, config) as (_, log):
        told = read_allocation(log.read_text(encoding="utf-8", errors="replace"))
    if told is None:
        raise SystemExit("the engine's log does not tell what it allocated")
    return told


def _models(scratch: Path) -> dict[str, Path]:
    return {
        "demo": DemoSource().resolve("", lambda *_: None, os.environ),
        "Gemma 3 270M": gemma_path(os.environ),
        "experts": mixture_of_experts(scratch / "experts.gguf"),
        "hybrid": hybrid(scratch / "hybrid.gguf"),
        "uneven heads": uneven_heads(scratch / "uneven.gguf"),
    }


def _rounds_to(planned_bytes: int, told: Allocation, content: str) -> bool:
    """Several buffers are rounded each for itself."""
    sizes = [buffer.mib for buffer in told.buffers if buffer.content == content]
    return abs(planned_bytes / _MIB - sum(sizes)) <= 0.005 * max(1, len(sizes)) + 1e-9


def _summary(name: str, outcomes: list[Outcome]) -> dict[str, object]:
    count = len(outcomes)
    compute = [
        abs(outcome.plan.host.compute_bytes / _MIB / outcome.told.mib("compute", "output") - 1.0)
        for outcome in outcomes
    ]
    return {
        f"{name}: weights equal": f"{sum(o.weights_equal for o in outcomes)} of {count}",
        f"{name}: caches equal": f"{sum(o.kv_equal for o in outcomes)} of {count}",
        f"{name}: largest difference of the compute buffers, %": 100.0 * max(compute),
        f"{name}: largest difference of the total, %": 100.0
        * max(abs(outcome.difference) for outcome in outcomes),
    }


def _row(outcome: Outcome) -> str:
    caches = outcome.told.mib("KV", "RS")
    planned = outcome.plan.host.total_bytes / _MIB
    return (
        f"caches {caches:.2f} MiB{'' if outcome.kv_equal else ' (planned otherwise)'}, total "
        f"{outcome.told.mib():.2f}, planned {planned:.2f} MiB ({100 * outcome.difference:+.2f} %)"
    )


if __name__ == "__main__":
    main()
