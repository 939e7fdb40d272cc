# ruff: noqa: INP001 - a script, not part of a package
"""Writes down what a native ``llama-server`` is: its flags, and what it says when left alone.

``python tools/record_native.py LLAMA_SERVER MODEL BUILD [OUTPUT]``. The model should be small and
the machine roomy, so that ``--fit`` has nothing to shrink. Without OUTPUT the record of the package
is replaced, against which the tests hold the embedded engine.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from velollm_llamacpp.engines import examine_binary, shielded
from velollm_llamacpp.launch import wait_until_ready
from velollm_llamacpp.readback import read_log
from velollm_llamacpp.record import KIND, MAJOR, PATH, Record

from velollm_core import documents
from velollm_core.backends.processes import Place
from velollm_core.config import Config

_OF_THE_MACHINE = ("threads", "threads_batch")


def bare_effective(server: Path, model: Path, environ: dict[str, str]) -> Config:
    """What ``server`` reports of itself when it is given nothing but a model."""
    with tempfile.TemporaryDirectory() as directory:
        place = Place(
            directory=Path(directory),
            log_path=Path(directory, "log"),
            environ=shielded(environ, Path(directory)),
            deadline=time.monotonic() + 120,
        )
        argv = [str(server), "-m", str(model), "--host", "127.0.0.1", "--port", "0", "-lv", "4"]
        child = place.start(argv)
        try:
            wait_until_ready(child, place, "llama-server")
            return read_log(child.log_path.read_text(encoding="utf-8", errors="replace"))
        finally:
            child.stop()


def record(server: Path, model: Path, build: str) -> Record:
    """The whole record."""
    effective = bare_effective(server, model, dict(os.environ))
    kept = {name: value for name, value in effective.items() if name not in _OF_THE_MACHINE}
    return Record(build=build, flags=examine_binary(server).flags.entries, effective=Config(kept))


if __name__ == "__main__":
    output = Path(sys.argv[4]) if len(sys.argv) > 4 else PATH
    documents.write(output, KIND, MAJOR, record(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
