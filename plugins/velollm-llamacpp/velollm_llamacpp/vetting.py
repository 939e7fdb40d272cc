"""Which of the user's own flags are passed on to a server that is measured, and why others are not.

A list of what is known to be harmless, so that a flag which a newer build invents is not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from velollm_core.config import Settings
from velollm_core.errors import UsageError
from velollm_llamacpp.flags import Flag, Flags
from velollm_llamacpp.sources import Found, configuration_file, system_file

# What src/ and ggml/src/ of llama.cpp ask the environment for that moves work about and does no
# more: no path, no library, no address.
_TUNING = frozenset(
    {
        "GGML_CPU_DISABLE_FUSION",
        "GGML_CUDA_CUBLAS_COMPUTE_TYPE",
        "GGML_CUDA_DISABLE_FUSION",
        "GGML_CUDA_DISABLE_GRAPHS",
        "GGML_CUDA_ENABLE_UNIFIED_MEMORY",
        "GGML_CUDA_GRAPH_OPT",
        "GGML_CUDA_NO_PINNED",
        "GGML_CUDA_P2P",
        "GGML_METAL_BF16_DISABLE",
        "GGML_METAL_CONCURRENCY_DISABLE",
        "GGML_METAL_FUSION_DISABLE",
        "GGML_METAL_GRAPH_OPTIMIZE_DISABLE",
        "GGML_METAL_NO_RESIDENCY",
        "GGML_METAL_SHARED_BUFFERS_DISABLE",
        "GGML_METAL_TENSOR_DISABLE",
        "GGML_METAL_TENSOR_ENABLE",
        "GGML_OP_OFFLOAD_MIN_BATCH",
        "GGML_VK_ALLOW_SYSMEM_FALLBACK",
        "GGML_VK_DISABLE_BFLOAT16",
        "GGML_VK_DISABLE_COOPMAT",
        "GGML_VK_DISABLE_COOPMAT2",
        "GGML_VK_DISABLE_F16",
        "GGML_VK_DISABLE_FUSION",
        "GGML_VK_DISABLE_GRAPH_OPTIMIZE",
        "GGML_VK_DISABLE_HOST_VISIBLE_VIDMEM",
        "GGML_VK_DISABLE_INTEGER_DOT_PRODUCT",
        "GGML_VK_FORCE_MAX_ALLOCATION_SIZE",
        "GGML_VK_PREFER_HOST_MEMORY",
        "GGML_VK_VISIBLE_DEVICES",
        "LLAMA_ATTN_ROT_DISABLE",
        "LLAMA_GRAPH_REUSE_DISABLE",
    }
)
OPENING = "runs programs, fetches or writes files, silences the server or opens it to others"
_PRESET = re.compile(r"--(?!spec-).+-(?:default|spec)")  # --fim-qwen-7b-spec fetches two models

_HARMLESS = frozenset(
    {
        "--batch-size",
        "--cache-idle-slots",
        "--cache-prompt",
        "--cache-ram",
        "--cache-reuse",
        "--cache-type-k",
        "--cache-type-v",
        "--checkpoint-min-step",
        "--cont-batching",
        "--context-shift",
        "--cpu-mask",
        "--cpu-mask-batch",
        "--cpu-moe",
        "--cpu-range",
        "--cpu-range-batch",
        "--cpu-strict",
        "--cpu-strict-batch",
        "--ctx-checkpoints",
        "--ctx-size",
        "--defrag-thold",
        "--device",
        "--direct-io",
        "--fit",
        "--fit-ctx",
        "--fit-target",
        "--flash-attn",
        "--gpu-layers",
        "--kv-offload",
        "--kv-unified",
        "--kv-unified-per-slot",
        "--lazy-mode",
        "--load-mode",
        "--main-gpu",
        "--mlock",
        "--mmap",
        "--n-cpu-ffn",
        "--n-cpu-moe",
        "--no-host",
        "--no-mmap",
        "--numa",
        "--op-offload",
        "--override-tensor",
        "--parallel",
        "--poll",
        "--poll-batch",
        "--prio",
        "--prio-batch",
        "--repack",
        "--rope-freq-base",
        "--rope-freq-scale",
        "--rope-scale",
        "--rope-scaling",
        "--slot-prompt-similarity",
        "--spec-draft-backend-sampling",
        "--spec-draft-cpu-moe",
        "--spec-draft-device",
        "--spec-draft-model",
        "--spec-draft-n-cpu-moe",
        "--spec-draft-n-max",
        "--spec-draft-n-min",
        "--spec-draft-ngl",
        "--spec-draft-p-min",
        "--spec-draft-p-split",
        "--spec-draft-sampling",
        "--spec-draft-threads",
        "--spec-draft-threads-batch",
        "--spec-draft-type-k",
        "--spec-draft-type-v",
        "--spec-type",
        "--split-mode",
        "--swa-full",
        "--tensor-split",
        "--threads",
        "--threads-batch",
        "--threads-http",
        "--ubatch-size",
        "--warmup",
        "--yarn-attn-factor",
        "--yarn-beta-fast",
        "--yarn-beta-slow",
        "--yarn-ext-factor",
        "--yarn-orig-ctx",
    }
)

_OPENING = frozenset(
    {
        "--agent",
        "--api-key",
        "--api-key-file",
        "--api-prefix",
        "--cors-credentials",
        "--cors-headers",
        "--cors-methods",
        "--cors-origins",
        "--docker-repo",
        "--hf-file",
        "--hf-repo",
        "--log-disable",
        "--log-file",
        "--log-jsonl",
        "--log-prompts-dir",
        "--lookup-cache-dynamic",
        "--lora",
        "--lora-scaled",
        "--mcp-servers-config",
        "--mcp-servers-json",
        "--media-path",
        "--mmproj-url",
        "--model-url",
        "--models-dir",
        "--models-preset",
        "--path",
        "--rpc",
        "--slot-save-path",
        "--spec-draft-hf",
        "--ssl-cert-file",
        "--ssl-key-file",
        "--tools",
        "--tools-runtime",
        "--ui-config-file",
        "--ui-mcp-proxy",
        "--video-ffmpeg-dir",
    }
)

_OURS = frozenset(
    {
        "--alias",
        "--host",
        "--log-colors",
        "--log-prefix",
        "--log-timestamps",
        "--log-verbosity",
        "--metrics",
        "--model",
        "--offline",
        "--port",
        "--reuse-port",
        "--sleep-idle-seconds",
        "--slots",
        "--verbosity",
    }
)


def is_harmless(flag: Flag) -> bool:
    """Whether a user's own setting of ``flag`` is passed on."""
    return not _HARMLESS.isdisjoint(flag.names) and not is_opening(flag)


def is_opening(flag: Flag) -> bool:
    """Whether ``flag`` makes a server do what :data:`OPENING` says."""
    return any(name in _OPENING or _PRESET.fullmatch(name) for name in flag.names)


def open_door(flags: Flags, environ: Mapping[str, str], root: Path = Path("/")) -> Found | None:
    """A setting of the system's configuration file that is opening, if there is one.

    That file holds for every ``llama-server`` that is started, whatever it is told.
    """
    path = system_file(environ, root)
    for found in configuration_file(flags, path, str(path)):
        if found.flag is not None and is_opening(found.flag):
            return found
    return None


def reason_against(flag: Flag) -> str:
    """Why ``flag`` is not passed on."""
    if is_opening(flag):
        return f"it {OPENING}"
    if not _OURS.isdisjoint(flag.names):
        return "VeloLLM sets it itself while it measures"
    return "it changes the answers, or is not known to be harmless"


def is_harmless_variable(name: str) -> bool:
    """Whether a variable tunes llama.cpp or ggml, for want of a flag, and does no more."""
    return name in _TUNING


def vet(settings: Settings, flags: Flags) -> None:
    """Make sure that what is passed on beside the knobs is harmless, wherever it comes from.

    Raises:
        UsageError: an argument or a variable is not known to be.
    """
    for word in settings.extra_args:
        if not word.startswith("-") or _is_number(word):
            continue
        flag = flags.get(word)
        if flag is None or not is_harmless(flag):
            reason = reason_against(flag) if flag else "this build does not know it"
            raise UsageError(f"{word} is not passed on to llama-server: {reason}.")
    for name in settings.extra_env:
        if not is_harmless_variable(name):
            raise UsageError(f"the variable {name} is not passed on to llama.cpp.")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
