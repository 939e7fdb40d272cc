"""What every benchmark writes: its figures, and what is needed to hold them against another run."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with ``-o``, where the result goes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("-o", "--output", type=Path, help="write the result as JSON")
    return parser


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of ``values`` does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def write_record(
    target: Path | None, figures: Mapping[str, Any], depends_on: Sequence[str]
) -> None:
    """Print ``figures``, and write them with command, commit, code and machine.

    Args:
        target: the file, or nothing to print only.
        figures: name to number or text.
        depends_on: paths in the repository whose change makes the figures stale.
    """
    for name, value in figures.items():
        shown = f"{value:.4g}" if isinstance(value, float) else value
        if isinstance(value, list):
            shown = f"{len(value)} entries"
        print(f"{name:48} {shown}")
    if target is None:
        return
    record = {
        "schema": "velollm.check/1",
        "command": " ".join(["python", *_relative(sys.argv)]),
        "commit": _git("rev-parse", "HEAD"),
        "modified": bool(_git("status", "--porcelain", "--", *depends_on)),
        "trees": trees(depends_on),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": _machine(),
        "figures": dict(figures),
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".tmp")
    temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    temporary.replace(target)


def trees(paths: Sequence[str]) -> dict[str, str]:
    """What git calls the content of each of ``paths`` as committed."""
    return {path: _git("rev-parse", f"HEAD:{path}") for path in paths}


def _machine() -> str:
    from velollm_core.hardware.detect import detect

    spec = detect(gpus=lambda _: ())
    gib = spec.memory.total_bytes / 2**30
    return f"{spec.cpu.model}, {spec.cpu.usable:g} usable CPUs, {gib:.0f} GiB, {spec.os.system}"


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _relative(words: Sequence[str]) -> list[str]:
    """Arguments as one types them in the repository."""
    shown = []
    for word in words:
        path = Path(word)
        inside = path.is_absolute() and path.is_relative_to(ROOT)
        shown.append(str(path.relative_to(ROOT)) if inside else word)
    return shown
