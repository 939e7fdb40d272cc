"""Makes one plan of what was suggested: no knob twice, nothing in force already, all of it fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from attrs import define, evolve, field

from velollm_core import __version__
from velollm_core.backends.advice import AdviceContext
from velollm_core.config import Config, Kept, Knob, Problem, Suggestion, Value, inactive, show
from velollm_core.models.spec import Model
from velollm_core.optimize.memory import resolve, use_of
from velollm_core.optimize.required import at_once
from velollm_core.optimize.rooms import overload_bytes, rooms
from velollm_core.optimize.shape import shape
from velollm_core.optimize.spec import Move, Plan, Proposal, Room, Withdrawn, moved
from velollm_core.optimize.words import requirements, size

Check = Callable[[Config], tuple[Problem, ...]]
"""What is wrong with a configuration, by the backend."""


def plan(context: AdviceContext, offered: Iterable[Suggestion | Kept], *, check: Check) -> Plan:
    """One plan of what was ``offered``; whoever speaks of a knob first goes before later ones.

    A suggestion is taken whole or not at all. With all of the plan the engine takes no more memory
    than the process may use: else what takes most of it is withdrawn. Where the model does not fit
    in any way, the plan says so and proposes nothing.
    """
    decided = shape(context)
    obstacle = None if decided is None else decided.obstacle
    merge = _Merge(context=context, check=check)
    for entry in offered:
        merge.take(entry)
    merge.drop_inactive()
    if obstacle is None:
        obstacle = merge.withdraw_until_it_fits() or merge.what_is_missing()
    proposals = () if obstacle else tuple(merge.proposals)
    changes = moved(proposals)
    return Plan(
        velollm_version=__version__,
        backend=context.backend,
        engine_version=context.installation.version,
        model=model_name(context.model),
        fingerprint=context.model.fingerprint,
        goal=context.goal,
        requirements=context.requirements,
        proposals=proposals,
        withdrawn=tuple(merge.withdrawn),
        kept=tuple(_remaining(context, merge.kept, changes)),
        left_out=context.current.left_out,
        rooms=rooms(context, changes),
        obstacle=obstacle,
    )


def model_name(model: Model) -> str:
    """What a model is called, without the folders that it lies in."""
    return model.served_name or (model.path.name if model.path else model.reference)


@define
class _Merge:
    """Suggestions as they come. ``claimed`` is what those that were taken rely on."""

    context: AdviceContext
    check: Check
    proposals: list[Proposal] = field(factory=list)
    withdrawn: list[Withdrawn] = field(factory=list)
    kept: list[Kept] = field(factory=list)
    claimed: dict[str, Value] = field(factory=dict)

    def take(self, entry: Suggestion | Kept) -> None:
        """Add ``entry``, or note why not."""
        if isinstance(entry, Kept):
            self.kept.append(entry)
            return
        fault = self._fault(entry)
        if fault is not None:
            self.withdrawn.append(Withdrawn(assignments=entry.assignments, reason=fault))
            return
        fresh = {k: v for k, v in entry.assignments.items() if k not in self.claimed}
        if not fresh:
            return
        self.claimed |= fresh
        moves = tuple(self._move(name, value) for name, value in fresh.items())
        if all(move.current == move.proposed for move in moves):
            self.kept += [
                Kept(knobs=(move.knob,), reason=f"It is {show(move.proposed)} already.")
                for move in moves
            ]
            return
        self.proposals.append(
            Proposal(
                moves=moves,
                reason=entry.reason,
                effect=entry.effect,
                source=entry.source,
                confidence=entry.confidence,
                experimental=self._is_experimental(entry),
            )
        )

    def _fault(self, entry: Suggestion) -> str | None:
        """Why a suggestion cannot be taken, in one sentence."""
        for name, value in entry.assignments.items():
            if name not in self._knobs:
                return f"This engine has no knob {name}."
            if self.claimed.get(name, value) != value:
                return f"{name} is to be {show(self.claimed[name])}, by what was suggested before."
        if self._is_experimental(entry) and not self.context.experimental:
            return "It is experimental: ask for it with --experimental."
        before = self.context.current.config | self.claimed
        accepted = set(self.check(before))
        for problem in self.check(before | entry.assignments):
            if problem not in accepted:
                return f"{problem.message[:1].upper()}{problem.message[1:].rstrip('.')}."
        return None

    @property
    def _knobs(self) -> dict[str, Knob]:
        return {knob.name: knob for knob in self.context.knobs}

    def _is_experimental(self, entry: Suggestion) -> bool:
        knobs = self._knobs
        return entry.experimental or any(knobs[name].experimental for name in entry.assignments)

    def _move(self, name: str, value: Value) -> Move:
        knob = self._knobs[name]
        return Move(
            knob=name,
            current=self.context.value(name),
            proposed=value,
            unit=knob.unit,
            origin=self.context.current.origins.get(name),
            numerics=knob.numerics,
            change=knob.change,
        )

    def drop_inactive(self) -> None:
        """Withdraw what means nothing under the rest of the plan."""
        config = self.context.defaults.config | self.context.current.config | self.claimed
        idle = set(inactive(self.context.knobs, config))
        for entry in list(self.proposals):
            names = [move.knob for move in entry.moves if move.knob in idle]
            if names:
                self._withdraw(entry, f"{names[0]} has no effect with the rest of the settings.")

    def withdraw_until_it_fits(self) -> str | None:
        """Withdraw what takes most memory until the rest fits; a sentence where nothing does."""
        over = self._over(self.proposals)
        while over and self.proposals:
            rest = {n: self._over(self._without(n)) for n in range(len(self.proposals))}
            heaviest = min(rest, key=lambda n: rest[n])
            if rest[heaviest] >= over:
                break
            self._withdraw(
                self.proposals[heaviest],
                f"With it, the configuration takes {size(over)} more than this process may use.",
            )
            over = rest[heaviest]
        if not over:
            return None
        full = next(room for room in self._rooms(self.proposals) if _is_full(room))
        return (
            f"The configuration takes {size(full.planned_bytes)} of {full.name}, of which this "
            f"process may use {size(full.usable_bytes)}, and nothing that is proposed helps."
        )

    def what_is_missing(self) -> str | None:
        """A sentence where what the user requires is not met with all that is left, or nobody can
        say whether it is.
        """
        changes, required = moved(self.proposals), self.context.requirements
        found = resolve(self.context, changes)
        use = use_of(self.context, changes) if found is None else found.use
        short = (required.parallel or 0) > use.slots
        each = use.context_tokens // at_once(self.context, use)
        if not short and each >= (required.context_tokens or 0):
            return None
        if found is None:
            return (
                f"Whether there can be {requirements(required)} cannot be told here: set it where "
                "the server is started, or ask without --context and --parallel."
            )
        if short:
            return (
                f"{requirements(evolve(required, context_tokens=None))} are required, and this "
                f"engine can be made to answer {use.slots}."
            )
        return (
            f"{requirements(evolve(required, parallel=None))} are required, and of this engine "
            f"{each} can be had."
        )

    def _without(self, number: int) -> list[Proposal]:
        return [entry for n, entry in enumerate(self.proposals) if n != number]

    def _over(self, proposals: Iterable[Proposal]) -> int:
        return overload_bytes(self.context, moved(proposals))

    def _rooms(self, proposals: Iterable[Proposal]) -> tuple[Room, ...]:
        return rooms(self.context, moved(proposals))

    def _withdraw(self, entry: Proposal, reason: str) -> None:
        self.proposals.remove(entry)
        self.withdrawn.append(Withdrawn(assignments=moved((entry,)), reason=reason))


def _is_full(room: Room) -> bool:
    return room.planned_bytes > room.usable_bytes


def _remaining(context: AdviceContext, kept: Iterable[Kept], changes: Config) -> Iterator[Kept]:
    """What is left alone of the knobs that there are, each with the first reason given for it."""
    named = set(changes)
    known = {knob.name for knob in context.knobs}
    for entry in kept:
        names = tuple(name for name in entry.knobs if name in known - named)
        named.update(names)
        if names:
            yield Kept(knobs=names, reason=entry.reason)
