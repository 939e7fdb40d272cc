"""What a native ``llama-server`` was seen to do, once: the measure for the embedded engine.

The wheel has no help, and its own defaults are not those of ``llama-server``. So its flags,
defaults and environment variables are those of the recorded build. ``tools/record_native.py``
writes the record.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from attrs import frozen

from velollm_core import documents
from velollm_core.config import Config
from velollm_llamacpp.flags import Flag, Flags

KIND, MAJOR = "llamacpp-record", 1
PATH = Path(__file__).with_name("llama_server.json")


@frozen(kw_only=True)
class Record:
    """``build`` of llama.cpp, its ``flags``, and what it says of itself when only a model is given.

    ``effective`` was read back with SmolLM2-135M on a machine where nothing had to be shrunk; the
    numbers of threads are left out, they are the machine's.
    """

    build: str
    flags: tuple[Flag, ...]
    effective: Config


@cache
def recorded() -> Record:
    """The record that comes with this package."""
    return documents.read(PATH, KIND, MAJOR, Record)


@cache
def recorded_flags() -> Flags:
    """The flags of the recorded build."""
    return Flags(recorded().flags)
