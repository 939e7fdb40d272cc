"""Writes BENCHMARKS.md, and the README's table, from benchmarks/results/; --check only compares."""

from __future__ import annotations

import io
import json
import sys

from record import ROOT

RESULTS = ROOT / "benchmarks" / "results"
MARK = "<!-- demo: written by nox -s docs -->"
HEAD = """# Benchmarks

Every figure on this page comes from a file in [benchmarks/results](benchmarks/results), which holds
the command, the commit and the machine; the page is written by `nox -s docs`. Anyone can repeat a
section with the command under its title. The figures are one machine's, and that a shared one:
look at ratios and orders, and measure on your own.
"""
INSTRUMENT = """Is the client right, and is it light? A scripted server in a process of its own
stamps each event when it hands it to the socket; the client's times are held against these stamps,
on one steady clock. Against real llama.cpp the client's decode rate, (tokens - 1) / (last event -
first event), is held against the server's own."""
NATIVE = """The tests of velollm-llamacpp with a native `llama-server` beside the wheel: each knob
is set and read back on both, and the defaults of both are held against the committed record. Name
the server in `VELOLLM_TEST_LLAMA_SERVER`."""
AA = """Is the verdict right as often as it says? On the demo model, 12 pairs of 2 `short` requests
a run. Nothing changed (A/A), where `faster` and `slower` are both wrong; one thread against two;
and both arms through a relay, one of which makes every token arrive 10 % later."""
OPENAI = """One llama-server, attached to by two backends in turns: by llama.cpp's own protocol,
which tells how many tokens each event holds, and by the OpenAI one, which tells only how many the
answer had. The ratio of their decode rates by the client's clock has to lie within 2 % of 1. No two
answers take the server equally long, so each rate is also held against what the server's log tells
of the same answers: that ratio has to lie within 2 % with its whole interval."""
VLLM = """vLLM serves the demo model on the CPU, and `velollm --backend openai bench`
measures it. What `usage` says of the answers is held against what the server counted at
`/metrics`."""
RATES = """ggml's own kernels, called in the wheel's library on one thread: how many numbers of a
dot product a core multiplies and adds in a cycle, and the cycles that each one takes beside. And
what a token costs beside its weights on the embedded engine: for each layer, each entry of the
vocabulary, each step. These are the constants of the
[speed prediction](docs/explanation/roofline.md)."""
ROOFLINE = """[Predicted](docs/explanation/roofline.md) against measured tokens a second: the demo
model in three types and Gemma, one thread and two, answers and prompts at three depths, on the
embedded engine and on a native one where VELOLLM_TEST_LLAMA_SERVER names it. An error is the
difference between prediction and measurement as a part of the measurement."""
MEMORY = """What a model will take, worked out from the header of its file alone, against what
llama.cpp says that it allocates: the demo model, Gemma and three small models with random weights,
everything in main memory. llama.cpp logs each buffer in MiB with two decimals, and exactly of how
many cells, layers and streams a cache is made; equal means that these are the same and that the
planned bytes, rounded in the same way, are what it says. The compute buffers include the logits."""
TUNE_SIMULATED = """Whole tunes on planted engines. Eight knobs that do nothing, on machines with
3 % noise (half of them with heavy tails) and 6 % drift: every claim is false. One value of one knob
that is 10 % faster: is it found? And spaces in which knobs interact, the best lies between the
ends, a part crashes and the machine drifts by 10 %: how far from the best is the answer?"""
TUNE_INERT = """Ten tunes of real llama.cpp over knobs that it never hears of. The noise is the
machine's own, and every gain that is claimed is false."""
TUNE_GRID = """192 configurations of llama.cpp, three launches each, on the demo model and Gemma: 8
clients at once, prompts of some thirty words and answers of 16 tokens. It is what the next section
is played on."""
TUNE_REPLAY = """The grid of the section above, played back as an engine: 96 configurations of six
launches, because `poll` makes no difference that could be seen. `velollm tune` searches it as it
would any, with 60 and with 120 launches, from llama-server's own settings and from drawn
ones; random search and Optuna's TPE sampler get as many launches as its search took, or, without
proof, as the whole tune took. Regret is how much faster the best of the grid is than what was
chosen. Of each peer the mean regret stands there, and with 95 % confidence by how much it is above
that of the search."""
TUNE_REAL = """`velollm tune` on the demo model: eight clients' total throughput against
llama-server's own settings, where each request must be able to hold 2,048 tokens and four must run
at once; the prompt's speed where long texts are summarized; and a choice of which the engine's own
is the best, which has to end with "keep what you have"."""
TUNE_KILLS = """Tunes that are killed (SIGKILL) at random moments and resumed. On a planted engine
each must decide as an undisturbed one does, down to the figures; on real llama.cpp no process may
be left, no ended trial be measured again, and the journal must be sound."""
SECTIONS = {
    "aa": ("The verdict", AA),
    "instrument": ("The instrument", INSTRUMENT),
    "startup": ("Short commands", "Whole processes, one of each in turn."),
    "gguf-reader": (
        "The GGUF reader",
        "Our bounded reader of headers against the `gguf` library, in the same run.",
    ),
    "rates": ("The constants of the speed prediction", RATES),
    "roofline": ("The speed prediction", ROOFLINE),
    "memory": ("The memory plan", MEMORY),
    "native": ("Two engines, one behaviour", NATIVE),
    "openai": ("Two protocols, one server", OPENAI),
    "vllm": ("vLLM on the CPU", VLLM),
    "tune-simulated": ("Tuning: false gains, true gains", TUNE_SIMULATED),
    "tune-inert": ("Tuning: nothing to be gained", TUNE_INERT),
    "tune-grid": ("Tuning: a grid of real speeds", TUNE_GRID),
    "tune-replay": ("Tuning: the search against random search and TPE", TUNE_REPLAY),
    "tune-real": ("Tuning: this machine", TUNE_REAL),
    "tune-kills": ("Tuning: killed and resumed", TUNE_KILLS),
}


def page() -> str:
    parts = [HEAD]
    for name, (title, text) in SECTIONS.items():
        path = RESULTS / f"{name}.json"
        if not path.exists():
            continue
        record = json.loads(path.read_text(encoding="utf-8"))
        parts.append(f"## {title}\n\n{text}\n\n`nox -s long -- {name}`\n")
        parts.append(
            f"[{name}.json](benchmarks/results/{name}.json), commit `{record['commit'][:12]}`, "
            f"{record['machine']}, Python {record['python']}\n"
        )
        rows = [
            f"| {label} | {shown(value)} |"
            for label, value in record["figures"].items()
            if not isinstance(value, list)
        ]
        parts.append("| figure | value |\n|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def readme() -> str:
    """The README with the demo's table, as a terminal of 80 columns shows it."""
    from rich.console import Console

    from velollm_core.documents import read
    from velollm_core.experiment.spec import BenchmarkResult
    from velollm_core.report.terminal import to_terminal

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    path = RESULTS / "demo.json"
    if not path.exists():
        return text
    console = Console(width=80, record=True, file=io.StringIO(), color_system=None)
    console.print(to_terminal(read(path, "benchmark", 1, BenchmarkResult)))
    table = "\n".join(line.rstrip() for line in console.export_text().splitlines())
    before, start, rest = text.partition(MARK)
    _, end, after = rest.partition("<!-- end -->")
    return f"{before}{start}\n```\n{table}\n```\n{end}{after}"


def shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def main(words: list[str]) -> int:
    stale = 0
    for name, text in (("BENCHMARKS.md", page()), ("README.md", readme())):
        path = ROOT / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if "--check" in words:
            print(f"{name} is out of date: run nox -s docs")
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {name}")
    return 1 if stale and "--check" in words else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
