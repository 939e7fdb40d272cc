"""The file of the model ``demo``: its name, its size, and whether it is there."""

from __future__ import annotations

from pathlib import Path

DEMO_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
DEMO_BYTES = 98_362_432


def is_whole(path: Path) -> bool:
    """Whether the demo model is at ``path``.

    Its sha256 was checked before it got this name; its size shows whether it was cut since.
    """
    try:
        return path.stat().st_size == DEMO_BYTES
    except OSError:
        return False
