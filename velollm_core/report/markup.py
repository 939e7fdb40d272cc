"""Text and lists in Markdown."""

from __future__ import annotations

from collections.abc import Iterable

from velollm_core.report.visible import visible


def bullets(lines: Iterable[tuple[str, str]]) -> str:
    """A list of labels in bold, each with its text."""
    return "\n".join(f"- **{escape(label)}**: {escape(text)}" for label, text in lines)


def escape(text: str) -> str:
    """``text`` on one line, with nothing in it that Markdown would take for markup."""
    text = visible(text).replace("\n", " ")
    for character in "\\|<*`":
        text = text.replace(character, f"\\{character}")
    return text.replace("](", "]\\(")
