"""What all trials of a search say together: a Bayesian model of the logarithm of a speed.

A configuration is a point: the number of one option on each axis. The logarithm of its speed is the
sum of an effect of each option, one of every two options together, and one of the whole point. All
are normal around 0 beforehand, those of two and of the whole with a smaller spread, and options of
an ordered axis that lie near each other have like effects. Each block adds what the machine did in
its time, so that slow drift is taken out. That is one Gaussian process, so that what was measured
can be summed up exactly (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2.2); the
spread of the effects and that of the noise are those under which the trials are likeliest (5.4).
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import combinations
from operator import mul

from attrs import define, field, frozen

Point = tuple[int, ...]
Matrix = Sequence[Sequence[float]]
Shared = tuple[float, float]
"""How much two points have in common: in options by themselves, and in pairs of them."""

WHOLE = 0.1
"""The spread of what a whole point has for itself, as a part of that of an option's effect."""
BLOCK = 0.05
"""The spread of what the machine does from block to block."""
_LEVEL = 1.0
_EFFECT, _PAIR, _NOISE = 0.08, 0.012, 0.03
_DOUBT = 0.7
"""How far from those the spreads may well be, as a standard deviation of their logarithms."""
_STEPS = tuple(
    tuple(factor if place == number else 1.0 for place in range(3))
    for number, step in enumerate((1.5, 1.5, 1.25))
    for factor in (step, 1 / step)
)
_MOST_STEPS = 8
_JITTER = 1e-9


@frozen
class Seen:
    """One trial: which point, in which block, and the logarithm of its speed."""

    point: Point
    block: int
    log: float


@frozen
class Spreads:
    """Standard deviations of logarithms: of an option's effect, of that of two options together,
    and of the noise of a trial.
    """

    effect: float = _EFFECT
    pair: float = _PAIR
    noise: float = _NOISE

    def near(self, step: Sequence[float]) -> Spreads:
        """Each times a factor."""
        return Spreads(self.effect * step[0], self.pair * step[1], self.noise * step[2])

    def doubt(self) -> float:
        """The logarithm of how likely they are beforehand."""
        usual = (self.effect / _EFFECT, self.pair / _PAIR, self.noise / _NOISE)
        return -0.5 * sum((math.log(entry) / _DOUBT) ** 2 for entry in usual)

    def covariance(self, shared: Shared) -> float:
        """That of two points."""
        return self.effect**2 * shared[0] + self.pair**2 * shared[1]


@frozen
class Surface:
    """One logarithm of a speed for each point: what is expected, or one way that it may be."""

    alone: Sequence[Sequence[float]]
    together: Mapping[tuple[int, int], Matrix]
    own: Mapping[Point, float]

    def __call__(self, point: Point) -> float:
        """The value at ``point``."""
        value = self.own.get(point, 0.0)
        for axis, option in enumerate(point):
            value += self.alone[axis][option]
        for (one, other), table in self.together.items():
            value += table[point[one]][point[other]]
        return value

    def along(self, point: Point, axis: int) -> list[float]:
        """What each option of ``axis`` adds to the value at ``point``, its own part left out."""
        heights = list(self.alone[axis])
        for (one, other), table in self.together.items():
            if axis == one:
                more: Sequence[float] = [row[point[other]] for row in table]
            elif axis == other:
                more = table[point[one]]
            else:
                continue
            heights = [height + part for height, part in zip(heights, more, strict=True)]
        return heights


@define
class Model:
    """The process after ``seen``.

    ``alike`` says for each axis how far each two of its options have the same effect, from 0 to 1;
    ``shared`` what each two of the trials have in common, its lower half by rows. ``root`` may
    begin with rows of the Cholesky factor that are known already.
    """

    alike: Sequence[Matrix]
    seen: Sequence[Seen]
    spreads: Spreads
    shared: Sequence[Sequence[Shared]]
    root: list[list[float]] = field(factory=list)
    _centre: float = field(init=False)
    _weights: list[float] = field(init=False)
    _towards: dict[Point, tuple[list[float], list[float]]] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        for number in range(len(self.root), len(self.seen)):
            _extend(self.root, self._row(number))
        self._centre = sum(entry.log for entry in self.seen) / len(self.seen)
        self._weights = self._solved([entry.log - self._centre for entry in self.seen])

    def _row(self, number: int) -> list[float]:
        """The covariances of one trial with those before it, and with itself."""
        block = self.seen[number].block
        row = [
            self.spreads.covariance(shared)
            + _LEVEL**2
            + (BLOCK**2 if other.block == block else 0.0)
            for shared, other in zip(self.shared[number], self.seen, strict=False)
        ]
        row[-1] += self.spreads.noise**2
        return row

    @property
    def likelihood(self) -> float:
        """The logarithm of how likely the trials are, up to a constant."""
        fit = sum(
            (entry.log - self._centre) * w
            for entry, w in zip(self.seen, self._weights, strict=True)
        )
        return -0.5 * fit - sum(math.log(row[-1]) for row in self.root) + self.spreads.doubt()

    def difference(self, point: Point, other: Point) -> tuple[float, float]:
        """How much faster ``point`` is than ``other``: mean and standard deviation of the
        logarithm.
        """
        (one, half_one), (two, half_two) = self._toward(point), self._toward(other)
        shared = [first - second for first, second in zip(one, two, strict=True)]
        half = [first - second for first, second in zip(half_one, half_two, strict=True)]
        before = (
            self._covariance(point, point)
            + self._covariance(other, other)
            - 2 * self._covariance(point, other)
        )
        spread = math.sqrt(max(0.0, before - sum(map(mul, half, half))))
        return sum(map(mul, shared, self._weights)), spread

    def _toward(self, point: Point) -> tuple[list[float], list[float]]:
        """The covariances of a point with the trials, and these solved half way."""
        if point not in self._towards:
            places = {entry.point for entry in self.seen}
            by_place = {place: self._covariance(point, place) for place in places}
            shared = [by_place[entry.point] for entry in self.seen]
            self._towards[point] = shared, _forward(self.root, shared)
        return self._towards[point]

    def _covariance(self, one: Point, other: Point) -> float:
        return self.spreads.covariance(_shared(self.alike, one, other))

    def expected(self) -> Surface:
        """What is expected of each point."""
        sizes = [len(rows) for rows in self.alike]
        nothing = Surface(
            [[0.0] * size for size in sizes],
            {(a, b): [[0.0] * sizes[b]] * sizes[a] for a, b in combinations(range(len(sizes)), 2)},
            {},
        )
        return self._corrected(nothing, self._weights)

    def drawn(self, draw: random.Random) -> Surface:
        """One way that the speeds may be, as likely as the trials leave it: drawn beforehand, then
        corrected by what that misses of the trials (Matheron's rule).
        """
        effect, pair, roots = self.spreads.effect, self.spreads.pair, self._roots
        alone = [_times(root, _normal(draw, len(root), effect)) for root in roots]
        together = {
            (a, b): [
                _times(roots[b], row)
                for row in _product(
                    roots[a],
                    [_normal(draw, len(roots[b]), pair) for _ in roots[a]],
                )
            ]
            for a, b in combinations(range(len(alone)), 2)
        }
        own: dict[Point, float] = {}
        for entry in self.seen:
            if entry.point not in own:
                own[entry.point] = draw.gauss(0, WHOLE * effect)
        before = Surface(alone, together, own)
        blocks: dict[int, float] = {}
        level, missed = draw.gauss(0, _LEVEL), []
        for entry in self.seen:
            if entry.block not in blocks:
                blocks[entry.block] = draw.gauss(0, BLOCK)
            said = before(entry.point) + blocks[entry.block] + level
            missed.append(entry.log - self._centre - said - draw.gauss(0, self.spreads.noise))
        return self._corrected(before, self._solved(missed))

    @cached_property
    def _roots(self) -> list[list[list[float]]]:
        """Square roots of what is alike on each axis, all rows of one length."""
        found = []
        for rows in self.alike:
            root: list[list[float]] = []
            for number, row in enumerate(rows):
                _extend(root, [*row[:number], row[number] + _JITTER])
            found.append([row + [0.0] * (len(rows) - len(row)) for row in root])
        return found

    def _corrected(self, before: Surface, weights: Sequence[float]) -> Surface:
        """A surface moved by so much of each trial."""
        effect, pair = self.spreads.effect**2, self.spreads.pair**2
        sums = [[0.0] * len(rows) for rows in self.alike]
        tables = {(a, b): [[0.0] * len(sums[b]) for _ in sums[a]] for a, b in before.together}
        own = dict(before.own)
        for entry, weight in zip(self.seen, weights, strict=True):
            point = entry.point
            for axis, option in enumerate(point):
                sums[axis][option] += weight
            for (a, b), table in tables.items():
                table[point[a]][point[b]] += weight
            own[point] = own.get(point, 0.0) + WHOLE**2 * effect * weight
        return Surface(
            [
                [
                    value + effect * more
                    for value, more in zip(first, _times(rows, part), strict=True)
                ]
                for first, rows, part in zip(before.alone, self.alike, sums, strict=True)
            ],
            {
                (a, b): [
                    [
                        value + pair * more
                        for value, more in zip(first, _times(self.alike[b], row), strict=True)
                    ]
                    for first, row in zip(
                        before.together[a, b], _product(self.alike[a], table), strict=True
                    )
                ]
                for (a, b), table in tables.items()
            },
            own,
        )

    def _solved(self, values: Sequence[float]) -> list[float]:
        return _backward(self.root, _forward(self.root, values))


def fitted(
    alike: Sequence[Matrix],
    seen: Sequence[Seen],
    spreads: Spreads,
    *,
    look: bool,
    before: Model | None = None,
) -> Model:
    """The model of ``seen``, at least one.

    Args:
        alike: how far options have the same effect, for each axis.
        seen: the trials.
        spreads: of the effects and the noise.
        look: for the spreads under which the trials are likeliest, a step at a time from those.
        before: a model of some trials; where ``seen`` goes on from those, much is known.
    """
    known = 0 if before is None or before.seen != seen[: len(before.seen)] else len(before.seen)
    shared = list(before.shared[:known]) if before else []
    for number in range(known, len(seen)):
        mine, others = seen[number].point, [entry.point for entry in seen[: number + 1]]
        by_place = {place: _shared(alike, mine, place) for place in set(others)}
        shared.append([by_place[place] for place in others])
    root = list(before.root[:known]) if before and before.spreads == spreads else []
    best = Model(alike, seen, spreads, shared, root)
    for _ in range(_MOST_STEPS if look else 0):
        start = best
        for step in _STEPS:
            model = Model(alike, seen, start.spreads.near(step), shared)
            if model.likelihood > best.likelihood:
                best = model
        if best is start:
            break
    return best


def _shared(alike: Sequence[Matrix], one: Point, other: Point) -> Shared:
    total = squares = 0.0
    for rows, a, b in zip(alike, one, other, strict=True):
        value = rows[a][b]
        total += value
        squares += value * value
    own = WHOLE**2 if one == other else 0.0
    return total + own, (total * total - squares) / 2


def _extend(root: list[list[float]], given: Sequence[float]) -> None:
    """Add a row to a Cholesky factor: that of the next row of a symmetric matrix, as far as its
    diagonal.
    """
    row: list[float] = []
    for value, above in zip(given, root, strict=False):
        row.append((value - sum(map(mul, row, above))) / above[-1])
    row.append(math.sqrt(max(_JITTER**2, given[len(root)] - sum(map(mul, row, row)))))
    root.append(row)


def _forward(root: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    found: list[float] = []
    for row, value in zip(root, values, strict=True):
        found.append((value - sum(map(mul, row, found))) / row[-1])
    return found


def _backward(root: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    found = list(values)
    for number in range(len(root) - 1, -1, -1):
        row = root[number]
        value = found[number] = found[number] / row[number]
        found[:number] = [
            entry - part * value for entry, part in zip(found, row[:number], strict=False)
        ]
    return found


def _times(rows: Matrix, column: Sequence[float]) -> list[float]:
    return [sum(map(mul, row, column)) for row in rows]


def _product(rows: Matrix, table: Matrix) -> list[list[float]]:
    columns = list(zip(*table, strict=True))
    return [[sum(map(mul, row, column)) for column in columns] for row in rows]


def _normal(draw: random.Random, count: int, spread: float) -> list[float]:
    return [draw.gauss(0, spread) for _ in range(count)]
