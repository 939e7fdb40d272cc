"""The configuration that a server reports: from its log, and from its endpoints.

The lines are those of builds since 2025 at the level ``trace``; a line that a build does not write
leaves its knob out. Texts of the model's file are printed among them, so every pattern begins where
the engine's own words do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from velollm_core.config import Config, Value

_STAMP = re.compile(r"\d+(?:\.\d+){3} ")
_PREFIX = re.compile(rf"^(?:{_STAMP.pattern})?[DEIW] ")
SPEAKER = r"^(?:[a-z]+ +)?\w+: "
"""Who says a line: a part of the engine, padded, and a function. To be used with ``MULTILINE``."""


def _said(words: str, speaker: str = SPEAKER) -> re.Pattern[str]:
    return re.compile(speaker + words, re.MULTILINE)


_SYSTEM = r"^(?:[a-z]+ +\w+: )?system_info: "
_CONTEXT = "^llama_context: "
_NUMBERS: Mapping[str, re.Pattern[str]] = {
    "threads": _said(r"n_threads = (\d+)", _SYSTEM),
    "threads_batch": _said(r"n_threads = \d+ \(n_threads_batch = (\d+)\)", _SYSTEM),
    "context": _said(r"n_ctx\s+= (\d+)", _CONTEXT),
    "batch": _said(r"n_batch\s+= (\d+)", _CONTEXT),
    "ubatch": _said(r"n_ubatch\s+= (\d+)", _CONTEXT),
    "slots": _said(r"initializing(?: slots)?, n_slots = (\d+)"),
    "gpu_layers": _said(r"offloaded (\d+)/\d+ layers to GPU"),
    "cache_ram": _said(r"prompt cache is enabled, size limit: (\d+) MiB"),
    "ctx_checkpoints": _said(r"context checkpoints enabled, max = (\d+)"),
}
_PHRASES: tuple[tuple[str, re.Pattern[str], Value], ...] = (
    ("cache_ram", _said("prompt cache is enabled, size limit: no limit"), -1),
    ("cache_ram", _said("prompt cache is disabled"), 0),
    ("ctx_checkpoints", _said("context checkpoints disabled"), 0),
    ("kv_unified", _said(r"kv_unified\s+= true", _CONTEXT), True),
    ("kv_unified", _said(r"kv_unified\s+= false", _CONTEXT), False),
    ("flash_attention", _said(r"flash_attn\s+= (?:enabled|1)", _CONTEXT), "on"),
    ("flash_attention", _said(r"flash_attn\s+= (?:disabled|0)", _CONTEXT), "off"),
    ("flash_attention", _said("Flash Attention (?:was auto, set to )?enabled"), "on"),
    ("flash_attention", _said("Flash Attention (?:was auto, set to )?disabled"), "off"),
    ("spec_type", _said("no implementations specified for speculative decoding"), "none"),
)
_LOAD_MODE = _said(r"loading model tensors[^(\n]*\(load_mode = ([\w+]+)\)")
_KV_TYPES = _said(r"size = .*K \((\w+)\).*V \((\w+)\)", r"^llama_kv_cache\w*: ")
_SPECULATION = _said(
    r"adding speculative implementation '([\w-]+)'[^\n]*\n[^\n]*?- ((?:\w+=\d+(?:, )?)+)"
)
_LENGTHS: Mapping[str, str] = {"size_key": "size_n", "size_value": "size_m"}


def own_lines(log: str) -> str:
    """``log`` without times and levels, and where it has times, without lines that have none.

    Those are the further lines of printed texts.
    """
    lines = log.splitlines()
    stamped = [line for line in lines if _STAMP.match(line)]
    return "\n".join(_PREFIX.sub("", line) for line in stamped or lines)


def read_log(log: str) -> Config:
    """The knobs that the log of a start tells, as they came out, not as they were asked for."""
    log = own_lines(log)
    told: dict[str, Value] = {}
    for knob, pattern in _NUMBERS.items():
        match = pattern.search(log)
        if match:
            told[knob] = int(match.group(1))
    told |= {knob: value for knob, pattern, value in _PHRASES if pattern.search(log)}
    match = _LOAD_MODE.search(log)
    if match:
        told["load_mode"] = match.group(1)
    match = _KV_TYPES.search(log)
    if match:
        told["cache_type_k"], told["cache_type_v"] = match.groups()
    kinds = []
    for kind, lengths in _SPECULATION.findall(log):
        kinds.append(kind)
        for pair in lengths.rstrip(", ").split(", "):
            name, _, number = pair.partition("=")
            if name != "key_only":
                told[f"{kind.replace('-', '_')}_{_LENGTHS.get(name, name)}"] = int(number)
    if kinds:
        told["spec_type"] = ",".join(kinds)
    return Config(told)


def read_endpoints(props: Mapping[str, Any], slots: Any) -> Config:
    """The knobs that ``/props`` and ``/slots`` tell; all there is of a server with a foreign log.

    Args:
        props: the answer of ``/props``. Its ``speculative.types`` always says ``none``.
        slots: the answer of ``/slots``, or anything else where that is turned off.
    """
    told: dict[str, Value] = {}
    if isinstance(props.get("total_slots"), int):
        told["slots"] = props["total_slots"]
    entries = (
        [entry for entry in slots if isinstance(entry, dict)] if isinstance(slots, list) else []
    )
    if entries and not any(entry.get("speculative", True) for entry in entries):
        told["spec_type"] = "none"
    for entry in entries:
        types = str(entry.get("params", {}).get("speculative.types", "none")).split(",")
        used = [kind for kind in types if kind != "none"]
        if used:  # told only once a slot has answered something
            told["spec_type"] = ",".join(used)
    return Config(told)
