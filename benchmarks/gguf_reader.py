"""How long it takes to read what a model says about itself: our reader against the gguf library.

Same files, same run, one after the other in turn. Both read every key and every description of a
tensor, and no weights. The library also makes an array of each word of the vocabulary, ours steps
over the words; hence a third row, in which ours decodes every value too.
"""

from __future__ import annotations

import importlib.metadata
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import gguf
from record import arguments, write_record

from velollm_core.models.demo import DemoSource
from velollm_core.models.gguf import read_gguf
from velollm_core.models.gguf_values import GgufArray
from velollm_core.models.header import model_spec
from velollm_core.models.parts import read_model_files
from velollm_core.testing.gemma import gemma_path


def decode_everything(path: Path) -> object:
    metadata = read_gguf(path).metadata.values()
    return [value.values() if isinstance(value, GgufArray) else value for value in metadata]


READERS: Mapping[str, Callable[[Path], object]] = {
    "ours": read_gguf,
    "ours, every value decoded": decode_everything,
    "ours, with what is derived": lambda path: model_spec(read_model_files(path)),
    "gguf library": gguf.GGUFReader,
}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--runs", type=int, default=7)
    given = parser.parse_args()
    models = {
        "demo": DemoSource().resolve("", lambda *_: None, os.environ),
        "Gemma 3 270M": gemma_path(os.environ),
    }
    figures: dict[str, object] = {
        "runs": given.runs,
        "version of the gguf library": importlib.metadata.version("gguf"),
    }
    for name, path in models.items():
        medians = measure(path, given.runs)
        for reader, median_ms in medians.items():
            figures[f"{name}: {reader}, median ms"] = median_ms
        figures[f"{name}: gguf library / ours"] = medians["gguf library"] / medians["ours"]
    write_record(given.output, figures, ["velollm_core/models", "benchmarks/gguf_reader.py"])


def measure(path: Path, runs: int) -> dict[str, float]:
    """Median of the runs of each reader, milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in READERS}
    for _ in range(runs):
        for name, read in READERS.items():
            started = time.perf_counter()
            read(path)
            times[name].append(1000 * (time.perf_counter() - started))
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()
