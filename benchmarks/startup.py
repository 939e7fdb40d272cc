"""How long the short commands take, as whole processes: medians, after a run that warms the caches.
It fails where one takes longer than it may.

``python -c pass`` in the same run is the peer: what the interpreter itself costs on this machine.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from record import arguments, write_record

COMMANDS = {
    "velollm --help": ["--help"],
    "velollm detect": ["detect"],
    "velollm models show demo": ["models", "show", "demo"],
    "velollm optimize --dry-run": [
        *("--backend", "llamacpp", "-X", "engine=embedded", "--model", "demo"),
        *("optimize", "--dry-run"),
    ],
}
MOST_MS = {"velollm optimize --dry-run": 1000.0}
"""What the median may be at most."""


def main() -> int:
    parser = arguments(__doc__ or "")
    parser.add_argument("--runs", type=int, default=15)
    given = parser.parse_args()
    found = shutil.which("velollm", path=str(Path(sys.executable).parent))
    program = found or "velollm"
    figures: dict[str, object] = {"runs": given.runs}
    commands = {name: [program, *words] for name, words in COMMANDS.items()}
    commands["python -c pass"] = [sys.executable, "-c", "pass"]
    times: dict[str, list[float]] = {name: [] for name in commands}
    for words in commands.values():
        once(words)
    for _ in range(given.runs):
        # One of each a round, so that a drift of the machine meets all of them.
        for name, words in commands.items():
            times[name].append(once(words))
    for name, values in times.items():
        figures[f"{name}, median ms"] = statistics.median(values)
        figures[f"{name}, slowest ms"] = max(values)
        if name in MOST_MS:
            figures[f"{name}, allowed ms"] = MOST_MS[name]
    code = ["velollm_core", "plugins/velollm-llamacpp/velollm_llamacpp", "pyproject.toml"]
    write_record(given.output, figures, code)
    slow = [name for name, most in MOST_MS.items() if statistics.median(times[name]) > most]
    for name in slow:
        print(f"{name} takes longer than {MOST_MS[name]:g} ms", file=sys.stderr)
    return 1 if slow else 0


def once(words: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return (time.perf_counter() - started) * 1000


if __name__ == "__main__":
    sys.exit(main())
