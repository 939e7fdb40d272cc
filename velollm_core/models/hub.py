"""Models from the Hugging Face hub: ``hf:owner/repo/file.gguf``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from velollm_core.errors import ModelError, UsageError
from velollm_core.models.parts import part_names
from velollm_core.models.references import ModelSource, Progress


class HubSource(ModelSource):
    """One named file, and of a split model its other parts; nothing else in the repository is read.

    Needs the package ``huggingface_hub``, whose own cache, token and environment variables hold.
    """

    scheme = "hf"
    summary = "a file on the Hugging Face hub: hf:owner/repo/file.gguf"

    def resolve(self, rest: str, progress: Progress, environ: Mapping[str, str]) -> Path:
        """The file in the hub's cache, fetched if it is not there."""
        del environ  # huggingface_hub has read its own when it was imported
        owner, _, path = rest.partition("/")
        repo, _, name = path.partition("/")
        if not owner or not repo or not name.endswith(".gguf"):
            raise UsageError(
                f"hf:{rest} names no file.", "Write it as hf:owner/repo/file.gguf, with its folder."
            )
        try:
            hub: Any = import_module("huggingface_hub")
        except ImportError as error:
            raise ModelError(
                f"hf:{rest} needs the package huggingface_hub, which is not installed.",
                "pip install 'velollm[hf]'",
            ) from error
        folder, slash, file = name.rpartition("/")
        try:
            fetched = [
                hub.hf_hub_download(
                    f"{owner}/{repo}", folder + slash + part, tqdm_class=_reporter(progress, part)
                )
                for part in part_names(file)
            ]
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise ModelError(
                f"hf:{rest} cannot be fetched: {reason}",
                "Check the name on huggingface.co, and HF_TOKEN if the model asks for a licence.",
            ) from error
        return Path(fetched[0])


def _reporter(progress: Progress, name: str) -> type[Any]:
    """A progress bar in the library's terms that draws nothing and tells ``progress``."""
    bar: Any = import_module("tqdm").tqdm  # a dependency of huggingface_hub

    class Reporter(bar):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            progress(int(self.n), int(self.total) if self.total else None, f"fetching {name}")

    return Reporter
