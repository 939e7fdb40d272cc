"""Writes BENCHMARKS.md from benchmarks/results/; with --check it only says whether it is out of date."""

from __future__ import annotations

import json
import sys

from record import ROOT

RESULTS = ROOT / "benchmarks" / "results"
HEAD = """# Benchmarks

Every figure on this page comes from a file in [benchmarks/results](benchmarks/results), which holds the command, the commit and
the machine; the page is written by `nox -s docs`. Anyone can repeat a section with the command under its title. The
figures are one machine's, and that a shared one: look at ratios and orders, and measure on your own.
"""
SECTIONS = {
    "instrument": (
        "The instrument",
        "Is the client right, and is it light? A scripted server in a process of its own stamps each event when it hands it to "
        "the socket; the client's times are held against these stamps, on one steady clock. Against real "
        "llama.cpp the client's decode rate, (tokens - 1) / (last event - first event), is held against the server's own.",
    ),
    "startup": ("Short commands", "Whole processes, medians, one of each in turn."),
    "gguf-reader": (
        "The GGUF reader",
        "Our bounded reader of headers against the `gguf` library, in the same run.",
    ),
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
        rows = [f"| {label} | {shown(value)} |" for label, value in record["figures"].items()]
        parts.append("| figure | value |\n|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def main(words: list[str]) -> int:
    path = ROOT / "BENCHMARKS.md"
    text = page()
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return 0
    if "--check" in words:
        print("BENCHMARKS.md is out of date: run nox -s docs")
        return 1
    path.write_text(text, encoding="utf-8")
    print("wrote BENCHMARKS.md")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
