"""The constants of the speed prediction, as they are on this machine.

Kernels: a dot product of n numbers takes n / a + b cycles, by the clock that VeloLLM measures. For
weights a and b come from rows of 512 and of 2048 numbers, for attention (two products for each head
and position) from head sizes of 64 and 256; for one token, and for 128. Each time is the best of
all rounds.

Overheads: the time of a token on the embedded engine, from models so narrow that their weights take
next to none, on one thread and on two: what each layer, each entry of the vocabulary and each step
adds beside the predicted time of the weights. Medians of five answers of 64 tokens.
"""

from __future__ import annotations

import math
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from attrs import evolve
from ggml_kernels import Kernels
from record import arguments, write_record
from served import engine, speeds

from velollm_core.backends.machine import rates
from velollm_core.hardware.arithmetic import measure_clock
from velollm_core.hardware.detect import detect, measured
from velollm_core.hardware.spec import HardwareSpec
from velollm_core.models.header import model_spec
from velollm_core.models.memory import Use
from velollm_core.models.parts import read_model_files
from velollm_core.models.roofline import decode
from velollm_core.testing.gguf_files import transformer

ROUNDS = 8
WEIGHTS = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K")
WEIGHTS += ("Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS")
CACHES = ("F32", "F16", "Q8_0", "Q5_1", "Q4_0")
WIDTHS = (512, 2048)
HEADS = (64, 256)
MANY = 128
PROMPT = 32
THREADS = (1, 2)
FEW_LAYERS, MANY_LAYERS = 4, 36
FEW_WORDS, MANY_WORDS = 2048, 131072


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--only", choices=("kernels", "overheads"))
    given = parser.parse_args()
    figures: dict[str, object] = {}
    if given.only != "overheads":
        figures |= kernels()
    if given.only != "kernels":
        with tempfile.TemporaryDirectory() as scratch:
            figures |= dict(overheads(Path(scratch)))
    write_record(
        given.output,
        figures,
        [
            "velollm_core/hardware",
            "velollm_core/models",
            "velollm_core/backends/machine.py",
            "velollm_core/testing/gguf_files.py",
            "plugins/velollm-llamacpp/velollm_llamacpp",
            "benchmarks/ggml_kernels.py",
            "benchmarks/rates.py",
            "benchmarks/served.py",
        ],
    )


def kernels() -> dict[str, object]:
    """Numbers a cycle, and cycles beside, of each kernel."""
    library = Kernels()
    best: defaultdict[tuple[str, int, int], float] = defaultdict(lambda: math.inf)
    for _ in range(ROUNDS):
        clock_hz = measure_clock(1)
        for tokens in (1, MANY):
            for kind in WEIGHTS:
                for width in WIDTHS:
                    cycles = library.row(kind, tokens, width) * clock_hz
                    best[kind, tokens, width] = min(best[kind, tokens, width], cycles)
            for kind in CACHES:
                label = f"attention, {kind} cache"
                for head in HEADS:
                    cycles = library.attention(kind, tokens, head) * clock_hz
                    best[label, tokens, 2 * head] = min(best[label, tokens, 2 * head], cycles)
    found: dict[str, object] = {}
    for label, tokens in dict.fromkeys((label, tokens) for label, tokens, _ in best):
        (few, least), (many, most) = sorted(
            (numbers, cycles)
            for (name, count, numbers), cycles in best.items()
            if (name, count) == (label, tokens)
        )
        a_cycle = (many - few) / (most - least)
        name = f"{label}, {tokens} token{'s' if tokens > 1 else ''}"
        found[f"{name}: numbers a cycle"] = a_cycle
        found[f"{name}: cycles beside"] = least - few / a_cycle
    return found


def overheads(scratch: Path) -> Iterator[tuple[str, float]]:
    models = {
        (layers, words): transformer(
            scratch / f"{layers}-{words}.gguf", layers=layers, vocabulary=words
        )
        for layers, words in (
            (FEW_LAYERS, FEW_WORDS),
            (MANY_LAYERS, FEW_WORDS),
            (FEW_LAYERS, MANY_WORDS),
        )
    }
    for threads in THREADS:
        machine = measured(detect(gpus=lambda _: ()), threads=threads)
        token_ms = {key: beside(path, machine, threads) for key, path in models.items()}
        base = token_ms[FEW_LAYERS, FEW_WORDS]
        layer_ms = (token_ms[MANY_LAYERS, FEW_WORDS] - base) / (MANY_LAYERS - FEW_LAYERS)
        more_words_ms = token_ms[FEW_LAYERS, MANY_WORDS] - base
        candidate_ms = more_words_ms / (MANY_WORDS - FEW_WORDS)
        name = f"{threads} thread{'s' if threads > 1 else ''}"
        yield f"{name}: a layer, microseconds", 1e3 * layer_ms
        yield f"{name}: an entry of the vocabulary, nanoseconds", 1e6 * candidate_ms
        step_ms = base - FEW_LAYERS * layer_ms - FEW_WORDS * candidate_ms
        yield f"{name}: a step, microseconds", 1e3 * step_ms


def beside(path: Path, machine: HardwareSpec, threads: int) -> float:
    """Milliseconds of a token beside what is predicted for reading and multiplying its weights."""
    (found,) = speeds(engine(), path, threads, [PROMPT], answer_tokens=64, rounds=5)
    known = rates(machine, threads=threads)
    assert known.host is not None
    bare = evolve(known, host=evolve(known.host, layer_s=0.0), step_s=0.0, candidate_s=0.0)
    work = decode(
        model_spec(read_model_files(path)), Use(context_tokens=1024, slots=1), bare, depth_tokens=64
    )
    assert work is not None
    return 1000 / found.decode_tok_s - 1000 / work.tokens_per_s


if __name__ == "__main__":
    main()
