"""The configuration that a server reports: from its log, and from its endpoints.

The lines are those of builds since 2025 at the level ``trace``; a line that a build does not write
leaves its knob out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from velollm_core.config import Config, Value

_NUMBERS: Mapping[str, re.Pattern[str]] = {
    "threads": re.compile(r"system_info: n_threads = (\d+)"),
    "threads_batch": re.compile(r"n_threads_batch = (\d+)"),
    "context": re.compile(r"llama_context: n_ctx\s+= (\d+)"),
    "batch": re.compile(r"llama_context: n_batch\s+= (\d+)"),
    "ubatch": re.compile(r"llama_context: n_ubatch\s+= (\d+)"),
    "slots": re.compile(r"n_slots = (\d+)"),
    "gpu_layers": re.compile(r"offloaded (\d+)/\d+ layers to GPU"),
    "cache_ram": re.compile(r"prompt cache is enabled, size limit: (\d+) MiB"),
    "ctx_checkpoints": re.compile(r"context checkpoints enabled, max = (\d+)"),
}
_PHRASES: tuple[tuple[str, re.Pattern[str], Value], ...] = (
    ("cache_ram", re.compile(r"prompt cache is enabled, size limit: no limit"), -1),
    ("cache_ram", re.compile(r"prompt cache is disabled"), 0),
    ("ctx_checkpoints", re.compile(r"context checkpoints disabled"), 0),
    ("kv_unified", re.compile(r"llama_context: kv_unified\s+= true"), True),
    ("kv_unified", re.compile(r"llama_context: kv_unified\s+= false"), False),
    ("flash_attention", re.compile(r"llama_context: flash_attn\s+= (?:enabled|1)"), "on"),
    ("flash_attention", re.compile(r"llama_context: flash_attn\s+= (?:disabled|0)"), "off"),
    ("flash_attention", re.compile(r"Flash Attention (?:was auto, set to )?enabled"), "on"),
    ("flash_attention", re.compile(r"Flash Attention (?:was auto, set to )?disabled"), "off"),
    ("spec_type", re.compile(r"no implementations specified for speculative decoding"), "none"),
)
_LOAD_MODE = re.compile(r"\(load_mode = ([\w+]+)\)")
_KV_TYPES = re.compile(r"llama_kv_cache\w*: size = .*K \((\w+)\).*V \((\w+)\)")
_SPECULATION = re.compile(
    r"adding speculative implementation '([\w-]+)'[^\n]*\n[^\n]*?- ((?:\w+=\d+(?:, )?)+)"
)
_LENGTHS: Mapping[str, str] = {"size_key": "size_n", "size_value": "size_m"}


def read_log(log: str) -> Config:
    """The knobs that the log of a start tells, as they came out, not as they were asked for."""
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
