"""What charts are drawn with. Colours, dashes and type stand in the style sheet, by class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from xml.etree.ElementTree import Element

from attrs import evolve, frozen

from velollm_core.report.html.markup import points, tag
from velollm_core.report.html.scales import Scale

WIDTH = 360
"""Units across every chart: about the pixels of a phone, so that type keeps its size there."""

COLOURS = 6
"""How many classes ``arm-0``, ``arm-1``, ... the style sheet has."""

_RADIUS = 3.6
_LABEL_DROP = 3.5  # from the middle of a line to the foot of a label beside it
_LEAST_GAP = 20  # between the middles of two labels below an axis
_CHARACTER = 6.2  # the width of a digit
_MOST_CHARACTERS = 6  # that fit beside an axis that stands at 44
_THOUSANDS = ((1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G"))


@frozen
class ArmStyle:
    """How an arm looks everywhere: a colour, a dash and the shape of its marks."""

    index: int
    name: str

    @property
    def css(self) -> str:
        """Its class in the style sheet."""
        return f"arm-{self.index % COLOURS}"


def drawing(height: float, label: str, children: Iterable[Element]) -> Element:
    """A chart; ``label`` says what it shows to whoever cannot see it."""
    return tag("svg", *children, viewBox=f"0 0 {WIDTH} {height:g}", role="img", aria_label=label)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Element:
    """A straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def area(x1: float, y1: float, x2: float, y2: float, class_: str) -> Element:
    """A rectangle between two corners, in any order."""
    return tag(
        "rect",
        x=min(x1, x2),
        y=min(y1, y2),
        width=abs(x2 - x1),
        height=abs(y2 - y1),
        class_=class_,
    )


def path(pairs: Iterable[tuple[float, float]], class_: str) -> Element:
    """A line through points."""
    return tag("polyline", points=points(pairs), class_=class_)


def label(
    x: float, y: float, text: str, *, anchor: str = "middle", width: float | None = None
) -> Element:
    """Text whose foot is at ``y``, squeezed or stretched to a ``width`` if there is one."""
    adjust = None if width is None else "spacingAndGlyphs"
    return tag("text", text, x=x, y=y, text_anchor=anchor, textLength=width, lengthAdjust=adjust)


def mark(
    style: ArmStyle,
    x: float,
    y: float,
    title: str,
    *,
    radius: float = _RADIUS,
    hollow: bool = False,
) -> Element:
    """A value of an arm in the arm's shape."""
    shape = _SHAPES[style.index % len(_SHAPES)](x, y, radius)
    return tag(
        "g", tag("title", title), shape, class_=f"mark {style.css}{' hollow' if hollow else ''}"
    )


def cross(x: float, y: float, title: str) -> Element:
    """Where a value is missing."""
    r = _RADIUS
    return tag(
        "g",
        tag("title", title),
        line(x - r, y - r, x + r, y + r, "missing"),
        line(x - r, y + r, x + r, y - r, "missing"),
    )


def whisker_x(low: float, high: float, y: float, class_: str, *, cap: float = 4) -> list[Element]:
    """An interval lying at ``y``."""
    return [
        line(low, y, high, y, class_),
        line(low, y - cap, low, y + cap, class_),
        line(high, y - cap, high, y + cap, class_),
    ]


def whisker_y(x: float, low: float, high: float, class_: str, *, cap: float = 3) -> list[Element]:
    """An interval standing at ``x``."""
    return [
        line(x, low, x, high, class_),
        line(x - cap, low, x + cap, low, class_),
        line(x - cap, high, x + cap, high, class_),
    ]


def grid_y(scale: Scale, left: float, right: float) -> list[Element]:
    """A line across at each tick, with its label to the left, none wider than the room there."""
    room = left - 6
    parts = []
    for tick, text in zip(scale.ticks, _short_labels(scale), strict=True):
        width = room if len(text) > _MOST_CHARACTERS else None
        parts += [
            line(left, scale(tick), right, scale(tick), "grid"),
            label(room, scale(tick) + _LABEL_DROP, text, anchor="end", width=width),
        ]
    return parts


def _short_labels(scale: Scale) -> tuple[str, ...]:
    """Those of ``scale``, in thousands or more (``1250k``) where they are long in full."""
    shortest: tuple[str, ...] = ()
    for size, letter in _THOUSANDS:
        parts = evolve(scale, ticks=tuple(tick / size for tick in scale.ticks))
        texts = tuple(
            f"{text}{letter}" if tick else "0"
            for tick, text in zip(scale.ticks, parts.labels(), strict=True)
        )
        if not shortest or _longest(texts) < _longest(shortest):
            shortest = texts
        if _longest(shortest) <= _MOST_CHARACTERS:
            break
    return shortest


def _longest(texts: Iterable[str]) -> int:
    return max(map(len, texts), default=0)


def axis_x(
    marks: Sequence[tuple[float, str]], y: float, left: float, right: float, name: str = ""
) -> list[Element]:
    """A line at ``y`` with short marks at positions, and labels below as far as there is room.

    ``name`` stands before the labels.
    """
    parts = [line(left, y, right, y, "axis")]
    parts += [label(0, y + 15, name, anchor="start")] if name else []
    last = float("-inf")
    for x, text in marks:
        parts.append(line(x, y, x, y + 4, "axis"))
        width = len(text) * _CHARACTER
        if x - last >= max(_LEAST_GAP, width + _CHARACTER):
            parts.append(label(min(x, WIDTH - width / 2), y + 15, text))
            last = x
    return parts


def panel(name: str, y: float = 0) -> Element:
    """What the axis on the left shows, above a panel that begins at ``y``."""
    return label(0, y + 11, name, anchor="start")


def _circle(x: float, y: float, r: float) -> Element:
    return tag("circle", cx=x, cy=y, r=r)


def _polygon(*corners: tuple[float, float]) -> Callable[[float, float, float], Element]:
    """A shape by its corners, in radii from its middle."""

    def draw(x: float, y: float, r: float) -> Element:
        return tag("polygon", points=points((x + dx * r, y + dy * r) for dx, dy in corners))

    return draw


_SHAPES: tuple[Callable[[float, float, float], Element], ...] = (
    _circle,
    _polygon((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    _polygon((0, -1.2), (1.1, 0.8), (-1.1, 0.8)),
    _polygon((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
    _polygon((0, 1.2), (1.1, -0.8), (-1.1, -0.8)),
)
