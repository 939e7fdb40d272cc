"""VeloLLM's own folders for data, cache and configuration."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal


def folder(kind: Literal["data", "cache", "config"], environ: Mapping[str, str]) -> Path:
    """The folder of that kind; ``VELOLLM_DATA_DIR`` and so on name another than the platform's."""
    if chosen := environ.get(f"VELOLLM_{kind.upper()}_DIR"):
        with suppress(RuntimeError):  # there is no such user: it is a name like any other
            return Path(chosen).expanduser()
        return Path(chosen)
    from platformdirs import PlatformDirs

    return Path(getattr(PlatformDirs("velollm", appauthor=False), f"user_{kind}_dir"))
