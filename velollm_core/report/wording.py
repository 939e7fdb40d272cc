"""What stands above and below the tables, whatever prints it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from velollm_core.config import ENGINE_DEFAULT, show
from velollm_core.experiment.notes import Note, counted, plural
from velollm_core.experiment.spec import (
    ArmRecord,
    BenchmarkResult,
    Comparison,
    EngineRecord,
    ModelRecord,
)
from velollm_core.experiment.summary import SummaryRow
from velollm_core.hardware.spec import GpuInfo, HardwareSpec


def header(result: BenchmarkResult) -> tuple[tuple[str, str], ...]:
    """Label and value of what was measured, where, and how."""
    return (
        *_by_arm("engine", result.arms, lambda arm: engine_text(arm.engine, arm.mode)),
        *_by_arm("model", result.arms, lambda arm: model_text(arm.model)),
        ("machine", machine_text(result.hardware)),
        *_by_arm("settings", result.arms, _settings),
        *((label, text) for label, text in _by_arm("left out", result.arms, _left_out) if text),
        ("run", _run(result)),
    )


def legend(rows: Sequence[SummaryRow]) -> str:
    """How the figures in the tables come about."""
    unit = "launch" if all(row.over == "launch" for row in rows) else "block"
    return (
        f"A figure is the mean over {plural(unit)} of each {unit}'s median; in brackets is its "
        f"95 % interval, given from two {plural(unit)} on. p95 and p99 of first token and whole "
        "answer are over all requests."
    )


def note_lines(
    result: BenchmarkResult, rows: Sequence[SummaryRow], notes: Iterable[Note]
) -> tuple[str, ...]:
    """What was remarked before the run and after it, one line for each remark and its places."""
    several = len(result.arms) > 1
    lines = by_place(((_place(note, several=several), note.message) for note in notes), len(rows))
    return (*result.notes, *lines)


def by_place(entries: Iterable[tuple[str, str]], places: int) -> list[str]:
    """Each text once, after the places that it holds for where it does not for all.

    Args:
        entries: place and text; an empty place stands for all.
        places: how many there are.
    """
    found: dict[str, list[str]] = {}
    for place, text in entries:
        found.setdefault(text, []).append(place)
    return [
        text
        if len(where) == places or not all(where)
        else f"{', '.join(dict.fromkeys(where))}: {text}"
        for text, where in found.items()
    ]


def one_line(result: BenchmarkResult, rows: Sequence[SummaryRow]) -> str:
    """A run in a line: the model, the engine, and its answers, or where nothing was asked one rate
    for each workload and concurrency.
    """
    arm = result.arms[0]
    if result.comparisons:
        answers = ", ".join(map(_answer, result.comparisons))
        return f"{arm.model.name} on {arm.engine.backend}: {answers}"
    rates = []
    for row in rows:
        alone = row.decode_tok_s or row.client_decode_tok_s
        rate = alone if row.concurrency == 1 else row.output_tok_s
        if row.arm == arm.name and rate is not None:
            clients = "" if row.concurrency == 1 else f" x{row.concurrency}"
            rates.append(f"{row.workload}{clients} {rate.value:.0f}")
    figures = f"{', '.join(rates)} tok/s" if rates else "no rates"
    others = f" (and {len(result.arms) - 1} more)" if len(result.arms) > 1 else ""
    return f"{arm.model.name} on {arm.engine.backend}{others}: {figures}"


def _answer(row: Comparison) -> str:
    clients = "" if row.concurrency == 1 else f" x{row.concurrency}"
    ratio = "" if row.speed_ratio is None else f" {row.speed_ratio:.3f}"
    return f"{row.workload}{clients} {row.changed}/{row.baseline}{ratio} {row.verdict}"


def _place(note: Note, *, several: bool) -> str:
    parts = [note.arm] if several and note.arm else []
    if note.workload:
        parts.append(f"{note.workload} x{note.concurrency}")
    return " ".join(parts)


def _by_arm(
    label: str, arms: Sequence[ArmRecord], describe: Callable[[ArmRecord], str]
) -> list[tuple[str, str]]:
    """One line where all arms agree, else one for each."""
    texts = [describe(arm) for arm in arms]
    if len(set(texts)) == 1:
        return [(label, texts[0])]
    return [(f"{label} of {arm.name}", text) for arm, text in zip(arms, texts, strict=True)]


def engine_text(engine: EngineRecord, mode: str) -> str:
    """``llamacpp 6721 (a1b2c3d), binary``; ``mode`` is an arm's."""
    build = f" ({engine.build})" if engine.build and engine.build != engine.version else ""
    version = f" {engine.version}" if engine.version else ""
    running = ", already running" if mode == "attach" else ""
    return f"{engine.backend}{version}{build}, {engine.kind}{running}"


def model_text(model: ModelRecord) -> str:
    """A model's name, and what its header tells."""
    spec = model.spec
    if spec is None:
        return model.name
    parts = [
        spec.name if spec.name != model.name else None,
        spec.quantization,
        f"{spec.parameter_count / 1e6:,.0f} M parameters",
        f"{spec.file_bytes / (1 << 20):,.0f} MiB" if spec.file_bytes else None,
    ]
    return f"{model.name}: {', '.join(part for part in parts if part)}"


def machine_text(machine: HardwareSpec) -> str:
    """Processor, what of it may be used, memory, GPUs and system."""
    system = machine.os.distribution or f"{machine.os.system} {machine.os.release}"
    parts = [
        machine.cpu.model,
        f"{machine.cpu.usable:g} of {machine.cpu.logical} threads",
        f"{machine.memory.total_bytes / (1 << 30):.1f} GiB",
        *(_gpu(gpu) for gpu in machine.gpus),
        f"{system}, in {machine.container.kind}" if machine.container else system,
    ]
    return ", ".join(parts)


def _gpu(gpu: GpuInfo) -> str:
    if gpu.memory_total_bytes is None or gpu.unified_memory:
        return gpu.name
    return f"{gpu.name} with {gpu.memory_total_bytes / (1 << 30):.0f} GiB"


def _settings(arm: ArmRecord) -> str:
    """What differs from the engine's defaults, and where it comes from."""
    changed = [
        f"{name}={show(value)} ({arm.origins[name]})"
        if name in arm.origins
        else f"{name}={show(value)}"
        for name, value in arm.config.items()
        if arm.origins.get(name) != ENGINE_DEFAULT
    ]
    own = "the running server's own" if arm.mode == "attach" else "the engine's defaults"
    return ", ".join([*changed, *arm.extra_flags]) or own


def _left_out(arm: ArmRecord) -> str:
    return "; ".join(f"{entry.name} ({entry.origin}): {entry.reason}" for entry in arm.left_out)


def _run(result: BenchmarkResult) -> str:
    whole = "" if result.complete else ", cut short"
    return (
        f"{result.run}: {counted(result.blocks, result.unit)}{whole}, seed {result.seed}, "
        f"VeloLLM {result.velollm_version}"
    )
