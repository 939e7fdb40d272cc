"""Models from the Hugging Face hub: ``hf:owner/repo/file.gguf``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from velollm_core.errors import ModelError, UsageError
from velollm_core.models.parts import part_names
from velollm_core.models.references import ModelSource, Progress

_SHA256 = re.compile(r"[0-9a-f]{64}")  # of the content, where the hub keeps the file in LFS or Xet
_GIT_SHA1 = re.compile(r"[0-9a-f]{40}")  # of a git blob, where the file is in the repository itself
_CHUNK_BYTES = 1 << 20


class HubSource(ModelSource):
    """One named file, and of a split model its other parts; nothing else in the repository is read.

    The hub says which commit the name stands for and what the file's checksum is. That commit is
    fetched, for all parts, and what arrives is compared with the checksum; a file that differs is
    removed. One that is in the cache already, for that commit, is taken from there unchecked. Where
    the hub cannot be reached, the commit that was fetched last holds.

    Needs the package ``huggingface_hub``, whose own cache, token and environment variables hold.
    """

    scheme = "hf"
    summary = "a file on the Hugging Face hub: hf:owner/repo/file.gguf"

    def resolve(self, rest: str, progress: Progress, environ: Mapping[str, str]) -> Path:
        """The file in the hub's cache, fetched and checked if it is not there."""
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
        names = [folder + slash + part for part in part_names(file)]
        try:
            return _fetched(hub, f"{owner}/{repo}", names, progress)
        except ModelError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise ModelError(
                f"hf:{rest} cannot be fetched: {reason}",
                "Check the name on huggingface.co, and HF_TOKEN if the model asks for a licence.",
            ) from error


def _fetched(hub: Any, repo: str, names: list[str], progress: Progress) -> Path:
    """The first of the files, all of them in the cache, of one commit."""
    commit = _commit(hub, repo, names[0])
    paths = []
    for name in names:
        kept = hub.try_to_load_from_cache(repo, name, revision=commit)
        if isinstance(kept, str):
            paths.append(Path(kept))
            continue
        checksum = hub.get_hf_file_metadata(hub.hf_hub_url(repo, name, revision=commit)).etag or ""
        if not _SHA256.fullmatch(checksum) and not _GIT_SHA1.fullmatch(checksum):
            raise ModelError(
                f"hf:{repo}/{name} is not fetched, since the hub gives no checksum for it.",
                "Check HF_ENDPOINT, or download the file and give its path.",
            )
        told = _reporter(progress, Path(name).name)
        path = Path(hub.hf_hub_download(repo, name, revision=commit, tqdm_class=told))
        _check(path, f"hf:{repo}/{name}", checksum, progress)
        paths.append(path)
    return paths[0]


def _commit(hub: Any, repo: str, name: str) -> str:
    """The commit that the hub's main branch is at, or the last one in the cache without a hub."""
    try:
        commit = hub.get_hf_file_metadata(hub.hf_hub_url(repo, name)).commit_hash
    except hub.errors.HfHubHTTPError:
        raise  # the hub has answered
    except Exception:
        kept = _kept_commit(hub, repo, name)
        if kept is None:
            raise
        return kept
    if not _GIT_SHA1.fullmatch(commit or ""):
        raise ModelError(
            f"hf:{repo}/{name} is not fetched, since the hub does not say of which commit it is.",
            "Check HF_ENDPOINT, or download the file and give its path.",
        )
    return str(commit)


def _kept_commit(hub: Any, repo: str, name: str) -> str | None:
    try:
        repos = hub.scan_cache_dir().repos
    except hub.errors.CacheNotFound:
        return None
    held = [
        (revision.last_modified, revision.commit_hash)
        for entry in repos
        if (entry.repo_type, entry.repo_id) == ("model", repo)
        for revision in entry.revisions
        if isinstance(hub.try_to_load_from_cache(repo, name, revision=revision.commit_hash), str)
    ]
    return max(held)[1] if held else None


def _check(path: Path, what: str, checksum: str, progress: Progress) -> None:
    """Compare a file that has just arrived with the hub's checksum; only a right one stays."""
    right = False
    try:
        found = _checksum(
            path,
            git=bool(_GIT_SHA1.fullmatch(checksum)),
            progress=lambda done, size: progress(done, size, f"checking {path.name}"),
        )
        right = found == checksum
    finally:
        if not right:  # or interrupted; what is in the cache is not looked at again
            path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)
    if not right:
        raise ModelError(
            f"{what} arrived damaged: its checksum is {found} and should be {checksum}.",
            "Fetch it again.",
        )


def _checksum(path: Path, *, git: bool, progress: Callable[[int, int], None]) -> str:
    """SHA-256 of the content, or SHA-1 as git names a blob."""
    size, done = path.stat().st_size, 0
    digest = hashlib.new("sha1" if git else "sha256", usedforsecurity=False)
    if git:
        digest.update(b"blob %d\0" % size)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            progress(done, size)
    return digest.hexdigest()


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
