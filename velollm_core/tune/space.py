"""The space of a search: axes, each with the options of a knob, and what may be started of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from attrs import define, field

from velollm_core.config import Config, Knob, Range, Role
from velollm_core.tune.candidates import Axis, over, possible
from velollm_core.tune.model import Matrix, Point, Surface
from velollm_core.tune.requirements import in_force, knob_of
from velollm_core.tune.spec import Task
from velollm_core.tune.values import between, beyond

_SMOOTH = 0.8
"""So much of an option's effect is like that of its neighbours on an ordered axis ..."""
_REACH = 0.5
"""... that lie nearer than this part of what was to be tried of it at first."""
_MOST_OPTIONS = 12


@define
class Space:
    """All combinations of the options of ``axes``.

    ``start`` is where the search begins, as changes from the user's own settings; of each axis
    option 0 is what it is there.
    """

    task: Task
    start: Config
    axes: Sequence[Axis]
    options: list[list[Config]] = field(factory=list, init=False)
    _wholes: dict[Point, Config | None] = field(factory=dict, init=False)
    _points: dict[Config, Point] = field(factory=dict, init=False)
    _scales: list[_Scale | None] = field(factory=list, init=False)
    _rest: Config = field(factory=Config, init=False)

    def __attrs_post_init__(self) -> None:
        context = knob_of(self.task, Role.CONTEXT)
        moved = {name for axis in self.axes for name in axis.knobs}
        # What is only to be confirmed stays as it is; else the context follows what is required.
        derived = set(moved)
        if context is not None and self.task.proposed is None:
            derived.add(context.name)
        self._rest = Config({n: v for n, v in self.start.items() if n not in derived})
        for axis in self.axes:
            first = Config({n: v for n, v in self.start.items() if n in axis.knobs})
            found = dict.fromkeys([first, Config(), *axis.options])
            self.options.append(list(found))
            self._scales.append(self._scale(axis, found))

    @property
    def origin(self) -> Point:
        """Where the search begins."""
        return (0,) * len(self.axes)

    def singles(self) -> list[Config]:
        """Every step of one axis that may be started, the likeliest of each axis first."""
        steps = [
            (number, axis)
            for axis, options in enumerate(self.options)
            for number in range(1, len(options))
        ]
        wholes = (
            self.whole(self._set(self.origin, axis, number)) for number, axis in sorted(steps)
        )
        return [whole for whole in wholes if whole is not None]

    def point(self, changes: Config) -> Point | None:
        """The point whose options are those of ``changes``; ``None`` where there is none."""
        if changes not in self._points:
            found = []
            for axis, options in zip(self.axes, self.options, strict=True):
                part = Config({n: v for n, v in changes.items() if n in axis.knobs})
                found.append(options.index(part) if part in options else -1)
            if -1 in found or self.whole(tuple(found)) != changes:
                return None
        return self._points[changes]

    def whole(self, point: Point) -> Config | None:
        """``point`` as changes from the user's own settings; ``None`` where it may not be
        started.
        """
        if point not in self._wholes:
            change = Config(
                {
                    name: value
                    for option, options in zip(point, self.options, strict=True)
                    for name, value in options[option].items()
                }
            )
            whole = over(self.task, self._rest, change)
            if whole != self.start and possible(self.task, whole) is not None:
                self._wholes[point] = None
            else:
                self._wholes[point] = whole
                self._points.setdefault(whole, point)
        return self._wholes[point]

    def alike(self) -> list[Matrix]:
        """How far each two options of each axis have the same effect, from 0 to 1."""
        return [
            [[_near(scale, one, other) for other in options] for one in options]
            for scale, options in zip(self._scales, self.options, strict=True)
        ]

    def refine(self, point: Point) -> bool:
        """Add values between that of ``point`` and those next to it, and beyond the ends; whether
        there were any.
        """
        before = sum(map(len, self.options))
        for axis, scale in enumerate(self._scales):
            options = self.options[axis]
            if scale is None or len(options) >= _MOST_OPTIONS:
                continue
            for value in scale.around(options[point[axis]], options):
                name = scale.knob.name
                option = over(self.task, Config(), Config({name: value}))
                option = Config({n: v for n, v in option.items() if n == name})
                if option not in options:
                    options.append(option)
        return sum(map(len, self.options)) > before

    def best(
        self, surface: Surface, starts: Iterable[Point], free: Callable[[Point], bool]
    ) -> Point:
        """The highest point of ``surface`` that steps of one axis lead to from any of ``starts``,
        and from there steps of two at once.

        Args:
            surface: what is to be high.
            starts: at least one.
            free: whether a point may be taken.
        """
        best = max((self._climbed(surface, start, free) for start in starts), key=surface)
        while step := next(filter(free, self._higher_by_two(surface, best)), None):
            best = self._climbed(surface, step, free)
        return best

    def steps(self, point: Point, wanted: Callable[[Point], bool]) -> list[Point]:
        """The steps of one axis from ``point`` that are ``wanted``."""
        steps = (
            self._set(point, axis, number)
            for axis, options in enumerate(self.options)
            for number in range(len(options))
            if number != point[axis]
        )
        return [step for step in steps if wanted(step)]

    def _climbed(self, surface: Surface, point: Point, free: Callable[[Point], bool]) -> Point:
        still = 0
        while still < len(self.axes):
            for axis in range(len(self.axes)):
                higher = self._higher(surface, point, axis)
                step = next((step for step in higher if free(step)), point)
                still = 0 if step != point else still + 1
                point = step
        return point

    def _higher(self, surface: Surface, point: Point, axis: int) -> list[Point]:
        """Steps up of one axis, the highest first."""
        steps = [self._set(point, axis, number) for number in range(len(self.options[axis]))]
        heights = [
            height + surface.own.get(step, 0.0)
            for height, step in zip(surface.along(point, axis), steps, strict=True)
        ]
        here = heights[point[axis]]
        found = [
            (height, step) for height, step in zip(heights, steps, strict=True) if height > here
        ]
        return [step for _, step in sorted(found, reverse=True)]

    def _higher_by_two(self, surface: Surface, point: Point) -> list[Point]:
        """Steps up of two axes at once, the highest first: where the best of one moves that of
        another, no step of one leads on.
        """
        gains = [
            [height - heights[here] for height in heights]
            for heights, here in (
                (surface.along(point, axis), here) for axis, here in enumerate(point)
            )
        ]
        here = surface(point)
        found = []
        for (a, b), table in surface.together.items():
            row, column = table[point[a]], point[b]
            for one, (first, part) in enumerate(zip(gains[a], table, strict=True)):
                more = first - part[column] + row[column]
                for other, (second, pair) in enumerate(zip(gains[b], part, strict=True)):
                    if more + second + pair - row[other] > 0:
                        found.append(self._set(self._set(point, a, one), b, other))
        steps = [(height, step) for step in found if (height := surface(step)) > here]
        return [step for _, step in sorted(steps, reverse=True)]

    @staticmethod
    def _set(point: Point, axis: int, number: int) -> Point:
        return (*point[:axis], number, *point[axis + 1 :])

    def _scale(self, axis: Axis, options: Collection[Config]) -> _Scale | None:
        knob = next(knob for knob in self.task.knobs if knob.name == axis.knobs[0])
        if len(axis.knobs) > 1 or not isinstance(knob.domain, Range):
            return None
        scale = _Scale(self.task, knob)
        numbers = [n for option in options if (n := scale.number(option)) is not None]
        if len(numbers) < 2:
            return None
        scale.by_ratio = min(numbers) > 0
        places = [scale.place(number) for number in numbers]
        scale.span = max(places) - min(places)
        return scale


@define
class _Scale:
    """Where the values of a knob lie: by their logarithms where all are above 0."""

    task: Task
    knob: Knob
    by_ratio: bool = False
    span: float = 1.0

    def number(self, option: Config) -> float | None:
        """The value of an option, where it is a number that leaves no choice to the engine."""
        value = in_force(self.task, self.knob.name, option)
        if value is None or isinstance(value, (bool, str)) or value == self.knob.own_choice:
            return None
        return value

    def place(self, number: float) -> float:
        return math.log(number) if self.by_ratio and number > 0 else number

    def around(self, option: Config, options: Sequence[Config]) -> Iterator[float]:
        """Values beside that of ``option`` which are not among ``options`` yet."""
        now = self.number(option)
        if now is None:
            return
        known = {n for entry in options if (n := self.number(entry)) is not None}
        below = max((number for number in known if number < now), default=None)
        above = min((number for number in known if number > now), default=None)
        for near in (below, above):
            middle = None if near is None else between(self.knob, now, near)
            if middle is not None:
                yield middle
        for value in beyond(self.knob, now):
            if (below if value < now else above) is None:
                yield value


def _near(scale: _Scale | None, one: Config, other: Config) -> float:
    if one == other:
        return 1.0
    a, b = (None, None) if scale is None else (scale.number(one), scale.number(other))
    if scale is None or a is None or b is None:
        return 0.0
    apart = (scale.place(a) - scale.place(b)) / scale.span / _REACH
    return _SMOOTH * math.exp(-0.5 * apart * apart)
