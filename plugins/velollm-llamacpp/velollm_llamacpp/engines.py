"""The two engines, examined: which flags, which GPUs, which processor features, which build."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from attrs import evolve, frozen

from velollm_core.backends.contract import Installation
from velollm_core.errors import Unavailable
from velollm_core.hardware.probe import Finished, execute
from velollm_llamacpp.flags import Flags, parse_help
from velollm_llamacpp.record import recorded_flags
from velollm_llamacpp.sources import STRAYS
from velollm_llamacpp.vetting import open_door

EMBEDDED = Path(__file__).with_name("embedded.py")
_TIMEOUT_S = 20.0  # a build for CUDA asks every card before it says anything

_VERSION = re.compile(
    r"^version: (\S+)(?: \(build (\d+), commit (\w+)\)| \((\w+)\))?", re.MULTILINE
)
_SYSTEM_INFO = re.compile(r"system_info: [^|]*\| ?(.*)")
_FEATURE = re.compile(r"(\w+) = 1\b")
_DEVICE = re.compile(r"^\s+([A-Za-z]+\d*): ", re.MULTILINE)
_HOST_DEVICES = frozenset({"CPU", "BLAS", "AMX"})
_NUMBERED = re.compile(r"b(\d+)-")
_FIRST_WITH_FILES = 10398  # llama.cpp 26118: configuration files of the system and the user


@frozen(kw_only=True)
class Engine:
    """A build of llama.cpp that can be started. ``gpus`` names the cards that it can use."""

    version: str | None
    build: str | None
    flags: Flags
    gpus: tuple[str, ...]
    cpu_features: tuple[str, ...]


def shielded(environ: Mapping[str, str], directory: Path) -> dict[str, str]:
    """``environ`` for an engine: without the variables and the file that the user has set for it.

    The file of the whole system, ``/etc/llama.cpp/config.ini``, is read in any case. A crash is
    kept from calling a debugger, whose words would hide the engine's own.

    Args:
        environ: the user's.
        directory: one that holds no ``llama.cpp/config.ini``.
    """
    kept = {name: text for name, text in environ.items() if not name.startswith(STRAYS)}
    blind = {"XDG_CONFIG_HOME": str(directory), "APPDATA": str(directory)}
    return {**kept, **blind, "GGML_NO_BACKTRACE": "1"}


def build_of(installation: Installation) -> Engine:
    """The build behind an engine that can be started here.

    Raises:
        Unavailable: it is no longer there, or does not run.
    """
    if installation.kind == "wheel":
        return examine_wheel()
    return examine_binary(Path(installation.location))


def examine_binary(path: Path) -> Engine:
    """What the ``llama-server`` at ``path`` is. It is run four times, each for a moment.

    Raises:
        Unavailable: it is missing, cannot be executed, hangs, or is something else.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise Unavailable(
            f"{path} is not there: {error.strerror}.", "Name the program: -X server=PATH"
        ) from error
    return _examine_binary(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=16)
def _examine_binary(path: Path, modified_ns: int, size: int) -> Engine:
    del modified_ns, size  # they are here to be part of the cache's key
    flags = parse_help(_run(path, "--help").out)
    if flags.get("--ctx-size") is None or flags.get("--port") is None:
        raise Unavailable(
            f"{path} is no llama-server: its --help does not show the flags of one.",
            "Name the program: -X server=PATH",
        )
    said = _run(path, "--version")
    version = _VERSION.search(said.err) or _VERSION.search(said.out)
    flags = evolve(flags, reads_files=_reads_files(_build(version)))
    devices = _run(path, "--list-devices").out if flags.get("--list-devices") else ""
    gpus = tuple(name for name in _DEVICE.findall(devices) if name not in _HOST_DEVICES)
    return Engine(
        version=version.group(1) if version else None,
        build=_build(version),
        flags=flags,
        gpus=gpus,
        cpu_features=_features_of_binary(path, flags),
    )


def _features_of_binary(path: Path, flags: Flags) -> tuple[str, ...]:
    """It tells them only when it starts to serve; without a model it ends at once."""
    if open_door(flags, os.environ) is not None:
        return ()
    verbose = ("--verbosity", "4") if flags.traces else ()
    offline = ("--offline",) if flags.get("--offline") else ()
    start = _run(path, "--host", "127.0.0.1", "--port", "0", *offline, *verbose, "-m", os.devnull)
    info = _SYSTEM_INFO.search(start.err + start.out)
    return _features(info.group(1)) if info else ()


def _reads_files(build: str | None) -> bool:
    """Whether it is new enough; one that does not tell its number is taken for such."""
    numbered = _NUMBERED.match(build or "")
    number = int(numbered.group(1)) if numbered else 0
    return number == 0 or number >= _FIRST_WITH_FILES


def _build(version: re.Match[str] | None) -> str | None:
    if version is None:
        return None
    _, number, commit, old_commit = version.groups()
    if number is not None:
        return f"b{number}-{commit}"
    return f"b{version.group(1)}-{old_commit}" if old_commit else None


def _run(path: Path, *arguments: str) -> Finished:
    return _execute((str(path), *arguments), str(path), shielded(os.environ, EMBEDDED.parent))


def _execute(argv: Sequence[str], what: str, environ: Mapping[str, str]) -> Finished:
    try:
        return execute(argv, _TIMEOUT_S, environ)
    except FileNotFoundError as error:
        raise Unavailable(
            f"{what} is not a program that may be executed.", "Name another: -X server=PATH"
        ) from error
    except TimeoutError as error:
        raise Unavailable(
            f"{what} did not answer within {_TIMEOUT_S:g} seconds and was ended.",
            "Name another: -X server=PATH",
        ) from error
    except OSError as error:
        raise Unavailable(f"{what} cannot be run: {error.strerror}.") from error


def wheel_version() -> str | None:
    """The version of the installed ``xllamacpp``, ``None`` where there is none."""
    try:
        return importlib.metadata.version("xllamacpp")
    except importlib.metadata.PackageNotFoundError:
        return None


@lru_cache(maxsize=1)
def examine_wheel() -> Engine:
    """What the installed ``xllamacpp`` is, asked in a process of its own.

    Raises:
        Unavailable: it is not installed, or does not run on this machine.
    """
    argv = (sys.executable, "-P", str(EMBEDDED), "--describe")
    done = _execute(argv, "xllamacpp", shielded(os.environ, EMBEDDED.parent))
    try:
        told = json.loads(done.out)
    except ValueError as error:
        words = done.err.strip().splitlines()
        raise Unavailable(
            "the embedded engine, the xllamacpp wheel, does not run here: "
            f"{words[-1] if words else f'exit code {done.code}'}.",
            "Reinstall it: pip install --force-reinstall xllamacpp; or use -X server=PATH",
        ) from error
    return Engine(
        version=told["version"],
        build=None,
        flags=recorded_flags(),
        gpus=tuple(told["gpus"]),
        cpu_features=_features(told["system_info"]),
    )


def _features(system_info: str) -> tuple[str, ...]:
    return tuple(_FEATURE.findall(system_info))
