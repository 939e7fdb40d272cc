"""HTML and SVG as a tree, so that whatever a name holds is text and never markup."""

from __future__ import annotations

import math
from collections.abc import Iterable
from xml.etree.ElementTree import Element, tostring

from velollm_core.report.visible import visible


def tag(name: str, /, *children: Element | str, **attributes: str | float | None) -> Element:
    """An element. An attribute's underscores stand for hyphens; ``class_`` is ``class``.

    Characters that no page may hold, or that turn the direction of what follows, become visible.

    Args:
        name: of the element.
        children: elements, and text between them.
        attributes: text or finite numbers; one that is ``None`` is left out.

    Raises:
        ValueError: a number is not finite.
    """
    element = Element(name)
    for key, value in attributes.items():
        if value is not None:
            text = visible(value) if isinstance(value, str) else number(value)
            element.set(key.rstrip("_").replace("_", "-"), text)
    for child in children:
        if not isinstance(child, str):
            element.append(child)
        elif len(element):
            element[-1].tail = (element[-1].tail or "") + visible(child)
        else:
            element.text = (element.text or "") + visible(child)
    return element


def number(value: float) -> str:
    """A coordinate with two decimals at most.

    Raises:
        ValueError: it is not finite.
    """
    if not math.isfinite(value):
        raise ValueError(f"nothing can be drawn at {value}")
    return f"{value:.2f}".rstrip("0").rstrip(".")


def points(pairs: Iterable[tuple[float, float]]) -> str:
    """Coordinates as SVG's ``points`` take them."""
    return " ".join(f"{number(x)},{number(y)}" for x, y in pairs)


def document(root: Element) -> str:
    """``root`` as a whole HTML document."""
    return f"<!doctype html>\n{tostring(root, encoding='unicode', method='html')}\n"
