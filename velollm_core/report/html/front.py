"""Configurations by two of their speeds at once: what is worth having lies to the upper right."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from attrs import frozen

from velollm_core.report.html.scales import ratios
from velollm_core.report.html.svg import (
    ArmStyle,
    axis_x,
    drawing,
    grid_y,
    label,
    line,
    mark,
    panel,
)

_LEFT, _RIGHT = 44.0, 340.0
_TOP, _FOOT = 22.0, 202.0
_ASIDE = 7.0  # from a mark to its name


@frozen(kw_only=True)
class Place:
    """A configuration: a short name, a long one, its speed ratios, and whether it was chosen."""

    short: str
    name: str
    across: float
    up: float
    chosen: bool


def front_chart(places: Sequence[Place], across: str, up: str) -> Element:
    """``places`` by two speed ratios, whose names are ``across`` and ``up``."""
    x = ratios([place.across for place in places], _LEFT, _RIGHT)
    y = ratios([place.up for place in places], _FOOT, _TOP)
    style = ArmStyle(1, "")
    parts = [
        panel(f"{up}, speed ratio"),
        *grid_y(y, _LEFT, _RIGHT),
        line(x(1), _TOP, x(1), _FOOT, "one"),
        line(_LEFT, y(1), _RIGHT, y(1), "one"),
        *axis_x(
            [(x(tick), text) for tick, text in zip(x.ticks, x.labels(), strict=True)],
            _FOOT,
            _LEFT,
            _RIGHT,
        ),
        label((_LEFT + _RIGHT) / 2, _FOOT + 31, f"{across}, speed ratio"),
    ]
    for place in places:
        title = f"{place.name}: {across} {place.across:.3f}, {up} {place.up:.3f}"
        at = (x(place.across), y(place.up))
        parts.append(mark(style, *at, title, hollow=not place.chosen))
        parts.append(label(at[0] + _ASIDE, at[1] - _ASIDE / 2, place.short, anchor="start"))
    told = "; ".join(
        f"{place.short}, {place.name}: {place.across:.3f} and {place.up:.3f}" for place in places
    )
    return drawing(236, f"Speed ratios in {across} and {up}. {told}.", parts)
