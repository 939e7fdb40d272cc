"""The user's own prompts as a workload.

A ``.jsonl`` or ``.ndjson`` file holds one object a line: ``{"prompt": "..."}`` or ``{"messages":
[{"role": "user", "content": "..."}]}``, either with ``"max_tokens"``. Any other file is text, one
prompt a line. Empty lines are skipped.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from velollm_core.backends.contract import Message
from velollm_core.errors import UsageError
from velollm_core.experiment.spec import Workload

Prompt = tuple[Message, ...]

_ROLES = ("system", "user", "assistant")


def from_file(path: Path, *, max_tokens: int) -> Workload:
    """The prompts in ``path``, sent in their order, from the start again when they run out.

    Args:
        path: a text file or a JSONL file; UTF-8.
        max_tokens: bounds each answer, unless the file says otherwise.

    Raises:
        UsageError: the file cannot be read, holds no prompt, or a line is not what it should be.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"{path} cannot be read: {reason}.", "Name a file of prompts.") from error
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    bounds: set[int] = set()
    if path.suffix.lower() in {".jsonl", ".ndjson"}:
        entries = [_entry(line, f"{path}, line {number}") for number, line in lines]
        prompts = tuple(prompt for prompt, _ in entries)
        bounds = {bound for _, bound in entries if bound is not None}
    else:
        prompts = tuple(_user(line.strip()) for _, line in lines)
    if not prompts:
        raise UsageError(f"{path} holds no prompt.", "Write one prompt a line.")
    if len(bounds) > 1:
        raise UsageError(
            f"{path}: the lines differ in max_tokens ({', '.join(map(str, sorted(bounds)))}).",
            "Give all lines the same, or leave it out and use --max-tokens.",
        )
    return Workload(
        name=path.name,
        summary=f"{len(prompts)} prompts of the user's own",
        max_tokens=bounds.pop() if bounds else max_tokens,
        messages=lambda _seed, _block, index: prompts[index % len(prompts)],
        digest=_digest(prompts),
    )


def _user(text: str) -> Prompt:
    return (Message(role="user", content=text),)


def _entry(line: str, where: str) -> tuple[Prompt, int | None]:
    """The prompt and the bound in one line of JSONL."""
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise UsageError(
            f"{where} is not JSON: {error}.", 'Write {"prompt": "..."} on a line of its own.'
        ) from error
    if not isinstance(entry, dict) or ("prompt" in entry) == ("messages" in entry):
        raise UsageError(
            f'{where} must be an object with either "prompt" or "messages".',
            'For instance {"prompt": "..."} or {"messages": [{"role": "user", "content": "..."}]}.',
        )
    for key in entry:
        if key not in {"prompt", "messages", "max_tokens"}:
            raise UsageError(
                f"{where}: unknown key {key!r}.", 'Known are "prompt", "messages", "max_tokens".'
            )
    bound = entry.get("max_tokens")
    if bound is not None and (type(bound) is not int or bound < 1):
        raise UsageError(f"{where}: max_tokens must be a whole number above 0, not {bound!r}.")
    if "prompt" in entry:
        return _user(_text(entry["prompt"], f"{where}: prompt")), bound
    return _messages(entry["messages"], where), bound


def _messages(raw: Any, where: str) -> Prompt:
    if not isinstance(raw, list) or not raw:
        raise UsageError(f"{where}: messages must be a list with at least one entry.")
    messages = []
    for position, entry in enumerate(raw):
        at = f"{where}: messages[{position}]"
        if not isinstance(entry, dict) or set(entry) != {"role", "content"}:
            raise UsageError(f'{at} must be an object with "role" and "content", and no more.')
        role = entry["role"]
        if role not in _ROLES:
            raise UsageError(f"{at}.role is {role!r}.", f"Known are {', '.join(_ROLES)}.")
        messages.append(Message(role=role, content=_text(entry["content"], f"{at}.content")))
    if messages[-1].role != "user":
        raise UsageError(
            f"{where}: the last of messages is of role {messages[-1].role!r}.",
            "End with the user's turn, which is what the model answers.",
        )
    return tuple(messages)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{where} must be text that is not empty, not {value!r:.60}.")
    return value


def _digest(prompts: tuple[Prompt, ...]) -> str:
    plain = [[(message.role, message.content) for message in prompt] for prompt in prompts]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()
