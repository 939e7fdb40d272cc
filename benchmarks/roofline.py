"""Predicted speeds against measured ones, on everything that this machine can run.

The demo model as it is shipped (Q4_1) and in F16 and Q8_0, and Gemma 3 270M; one thread and two;
prompts of three lengths, after each of which an answer is written; on the embedded engine and on
the llama-server in VELOLLM_TEST_LLAMA_SERVER, where there is one. Before each launch the bandwidth
of memory and the clock are measured for so many threads, as ``velollm models fit`` does; everything
else comes from the header of the model and the constants of the formula. Speeds are medians by the
engine's own clock.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import gguf
from attrs import asdict, frozen
from record import arguments, write_record
from served import engine, speeds

from velollm_core.backends.contract import Installation
from velollm_core.backends.machine import rates
from velollm_core.hardware.detect import detect, measured
from velollm_core.models.demo import DemoSource
from velollm_core.models.header import model_spec
from velollm_core.models.memory import Use
from velollm_core.models.parts import read_model_files
from velollm_core.models.roofline import decode, prefill
from velollm_core.testing.gemma import gemma_path

LENGTHS = (128, 512, 2048)
THREADS = (1, 2)
VARIANTS = ("F16", "Q8_0")
PHASES = ("decode", "prefill")


@frozen(kw_only=True)
class Cell:
    """One speed, tokens a second."""

    engine: str
    model: str
    threads: int
    prompt_tokens: int
    phase: str
    predicted: float
    measured: float
    binds: str

    @property
    def error(self) -> float:
        """By which part the prediction is off, of what was measured."""
        return self.predicted / self.measured - 1.0


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    native = os.environ.get("VELOLLM_TEST_LLAMA_SERVER")
    engines = {"embedded": engine()} | ({"native": engine(native)} if native else {})
    figures: dict[str, object] = {
        f"{name}: version": found.version or found.build for name, found in engines.items()
    }
    cells: list[Cell] = []
    with tempfile.TemporaryDirectory() as scratch:
        models = dict(_models(Path(scratch)))
        for threads in THREADS:
            for name, installation in engines.items():
                for model, path in models.items():
                    found = _cells(
                        name,
                        installation,
                        model,
                        path,
                        threads=threads,
                        rounds=given.rounds,
                    )
                    cells += found
                    for cell in found:
                        print(f"{cell.error:+.1%}", asdict(cell), flush=True)
    figures |= summary(cells)
    figures["cells"] = [asdict(cell) for cell in cells]
    write_record(
        given.output,
        figures,
        [
            "velollm_core/models",
            "velollm_core/hardware",
            "velollm_core/backends/machine.py",
            "plugins/velollm-llamacpp/velollm_llamacpp",
            "benchmarks/roofline.py",
            "benchmarks/served.py",
        ],
    )


def summary(cells: Sequence[Cell]) -> dict[str, object]:
    """Rank correlation and error: of all, by phase, and by engine, model and threads."""
    figures: dict[str, object] = {"speeds measured": len(cells)}
    for phase in (*PHASES, None):
        chosen = [cell for cell in cells if phase in {None, cell.phase}]
        name = phase or "all"
        figures[f"{name}: Spearman rank correlation"] = spearman(
            [cell.predicted for cell in chosen], [cell.measured for cell in chosen]
        )
        figures[f"{name}: median absolute error, %"] = 100 * median_error(chosen)
    for phase in PHASES:
        chosen = [cell for cell in cells if cell.phase == phase]
        for attribute in ("engine", "model", "threads", "prompt_tokens"):
            for value in dict.fromkeys(getattr(cell, attribute) for cell in chosen):
                group = [cell for cell in chosen if getattr(cell, attribute) == value]
                label = value if isinstance(value, str) else f"{attribute} {value}"
                figures[f"{phase}, {label}: median absolute error, %"] = 100 * median_error(group)
                figures[f"{phase}, {label}: predicted / measured, median"] = statistics.median(
                    cell.predicted / cell.measured for cell in group
                )
    worst = max(cells, key=lambda cell: abs(cell.error))
    figures["worst"] = (
        f"{worst.model}, {worst.engine}, {worst.threads} threads, prompt {worst.prompt_tokens}, "
        f"{worst.phase}: {worst.predicted:.1f} predicted, {worst.measured:.1f} measured"
    )
    return figures


def median_error(cells: Sequence[Cell]) -> float:
    return statistics.median(abs(cell.error) for cell in cells)


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Pearson's correlation of the ranks; equal values share the mean of theirs."""
    return statistics.correlation(_ranks(first), _ranks(second))


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [
        statistics.mean(rank for rank, other in enumerate(ordered) if other == value)
        for value in values
    ]


def _cells(
    name: str, installation: Installation, model: str, path: Path, *, threads: int, rounds: int
) -> list[Cell]:
    spec = model_spec(read_model_files(path))
    use = Use(context_tokens=max(LENGTHS), slots=1)
    known = rates(measured(detect(gpus=lambda _: ()), threads=threads), threads=threads)
    cells = []
    for found in speeds(installation, path, threads, LENGTHS, rounds=rounds):
        depth = found.prompt_tokens + round(found.answer_tokens / 2)
        predictions = {
            "decode": (decode(spec, use, known, depth_tokens=depth), found.decode_tok_s),
            "prefill": (
                prefill(spec, use, known, prompt_tokens=found.prompt_tokens),
                found.prefill_tok_s,
            ),
        }
        for phase, (predicted, rate) in predictions.items():
            assert predicted is not None
            cells.append(
                Cell(
                    engine=name,
                    model=model,
                    threads=threads,
                    prompt_tokens=found.prompt_tokens,
                    phase=phase,
                    predicted=predicted.tokens_per_s,
                    measured=rate,
                    binds=predicted.binds,
                )
            )
    return cells


def _models(scratch: Path) -> Iterator[tuple[str, Path]]:
    demo = DemoSource().resolve("", lambda *_: None, os.environ)
    yield "demo Q4_1", demo
    for kind in VARIANTS:
        yield f"demo {kind}", requantized(demo, scratch / f"demo-{kind}.gguf", kind)
    yield "Gemma Q4_K_M", gemma_path(os.environ)


def requantized(source: Path, target: Path, kind: str) -> Path:
    """The same model with all its matrices in one tensor type."""
    reader = gguf.GGUFReader(source)
    written = gguf.GGUFWriter(target, _text(reader.fields["general.architecture"]))
    for name, entry in reader.fields.items():
        if name.startswith("GGUF.") or name in {"general.architecture", "general.file_type"}:
            continue
        inner = entry.types[-1] if entry.types[0] is gguf.GGUFValueType.ARRAY else None
        written.add_key_value(name, entry.contents(), entry.types[0], sub_type=inner)
    target_type = gguf.GGMLQuantizationType[kind]
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if values.ndim > 1:
            written.add_tensor(
                tensor.name, gguf.quants.quantize(values, target_type), raw_dtype=target_type
            )
        else:
            written.add_tensor(tensor.name, values)
    written.write_header_to_file()
    written.write_kv_data_to_file()
    written.write_tensors_to_file()
    written.close()
    return target


def _text(entry: gguf.ReaderField) -> str:
    return str(entry.contents())


if __name__ == "__main__":
    main()
