"""Recognises inference servers in the process table, and tells them from their clients."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath, PureWindowsPath

# Programs that serve, and the subcommands with which they do; with none they always do.
_PROGRAMS: dict[str, frozenset[str]] = {
    "llama-server": frozenset(),
    "koboldcpp": frozenset(),
    "llamafile": frozenset(),
    "llamafiler": frozenset(),
    "llmster": frozenset(),
    "lm-studio": frozenset(),
    "lms": frozenset({"server"}),
    "local-ai": frozenset(),
    "mlx_lm.server": frozenset(),
    "ollama": frozenset({"serve", "runner"}),
    "sglang": frozenset({"serve"}),
    "text-generation-launcher": frozenset(),
    "text-generation-server": frozenset(),
    "vllm": frozenset({"serve"}),
}
_VARIANTS = re.compile(r"(llama-server|koboldcpp|llamafile|lm-studio)[-_.].*|.*\.(llamafile)")
"""Builds and downloads bear more in their names: ``koboldcpp-linux-x64``, ``x.llamafile``."""
_MODULES = {
    "llama_cpp.server": "llama-cpp-python",
    "mlx_lm.server": "mlx_lm.server",
    "sglang.launch_server": "sglang",
    "vllm.entrypoints.api_server": "vllm",
    "vllm.entrypoints.openai.api_server": "vllm",
}


def server_of(argv: Sequence[str]) -> str | None:
    """The inference server that runs with ``argv``, or ``None`` for any other program."""
    if not argv:
        return None
    if argv[0].startswith("VLLM::"):
        return "vllm"  # its workers rename themselves
    program, rest = program_of(argv[0]), list(argv[1:])
    if program.startswith("python"):
        module = _module(rest)
        if module is not None:
            return _MODULES.get(module)
        # A console script: the interpreter, perhaps with switches, and the script's path.
        while rest and rest[0].startswith("-"):
            rest.pop(0)
        program = program_of(rest.pop(0)).removesuffix(".py") if rest else ""
    else:
        program = program.lower().replace(" ", "-")
        variant = _VARIANTS.fullmatch(program)
        program = variant.group(variant.lastindex or 0) if variant else program
    if any(word.startswith("--type=") and word != "--type=utility" for word in rest):
        return None  # a window of a desktop program, LM Studio's
    wanted = _PROGRAMS.get(program)
    serves = wanted is not None and (not wanted or wanted.intersection(rest[:1]))
    return program if serves else None


def program_of(path: str) -> str:
    """The name of a program without its folder and ``.exe``."""
    name = PureWindowsPath(path).name if "\\" in path else PurePath(path).name
    return name.removesuffix(".exe")


def _module(rest: Sequence[str]) -> str | None:
    position = rest.index("-m") if "-m" in rest else None
    if position is None or any(not word.startswith("-") for word in rest[:position]):
        return None
    return rest[position + 1] if position + 1 < len(rest) else ""
