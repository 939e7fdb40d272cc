"""Spaces to search whose best is known: not monotone, with knobs that interact, and with parts that
crash.
"""

from __future__ import annotations

import math
import random
from itertools import product
from typing import Self

from attrs import frozen
from planted import knob

from velollm_core.config import Choices, Config, Range, Role
from velollm_core.errors import FailureKind

_THREADS = range(1, 9)
_ATTENTION = ("auto", "on", "off")
_SLOTS = range(4, 33)
_TILES = (1, 2, 3, 4, 5)
_UBATCH = (32, 4096)
_STEPS_AN_OCTAVE = 4


@frozen(kw_only=True)
class Space:
    """One space.

    The logarithm of the time of a token is a sum of three parts: of both numbers of threads, which
    share a ridge that does not lie along an axis; of batch, attention, slots, shared cache and
    tile, each of which moves the best of another; and of ``poll`` alone.
    """

    ridge: tuple[float, float, float]
    threads_weight: float
    ubatch_best: float
    ubatch_weight: float
    ubatch_shift: float
    ripple: float
    attention: dict[str, float]
    slots_best: float
    slots_weight: float
    unified_gap: float
    tiles: dict[tuple[int, str], float]
    poll_best: int
    poll_weight: float
    most_threads: int
    most_rows: int
    broken_tiles: frozenset[tuple[int, str]]

    knobs = (
        knob("threads", Role.THREADS_DECODE, Range(1, 8)),
        knob("threads_batch", Role.THREADS_PREFILL, Range(1, 8)),
        knob("ubatch", Role.BATCH_PHYSICAL, Range(*_UBATCH)),
        knob("attention", Role.ATTENTION, Choices(_ATTENTION)),
        knob("slots", Role.SLOTS, Range(_SLOTS.start, _SLOTS.stop - 1)),
        knob("unified", Role.UNIFIED_KV, Choices((True, False))),
        knob("poll", Role.OTHER, Range(0, 100)),
        knob("tile", Role.OTHER, Choices(_TILES)),
    )
    defaults = Config(
        {
            "threads": 4,
            "threads_batch": 4,
            "ubatch": 512,
            "attention": "auto",
            "slots": 4,
            "unified": True,
            "poll": 50,
            "tile": 1,
        }
    )

    @classmethod
    def drawn(cls, seed: int) -> Self:
        """The space of ``seed``, in which the defaults run."""
        draw = random.Random(f"space {seed}")
        tiles = list(product(_TILES, _ATTENTION))
        defaults = (cls.defaults["tile"], cls.defaults["attention"])
        return cls(
            ridge=(draw.uniform(2.5, 7.0), draw.uniform(2.5, 7.0), draw.uniform(-0.5, 0.5)),
            threads_weight=draw.uniform(0.01, 0.03),
            ubatch_best=draw.uniform(6.0, 11.0),
            ubatch_weight=draw.uniform(0.01, 0.03),
            ubatch_shift=draw.uniform(-2.0, 2.0),
            ripple=draw.uniform(0.0, 0.02),
            attention={
                "auto": 0.0,
                "on": draw.uniform(-0.08, 0.08),
                "off": draw.uniform(-0.05, 0.10),
            },
            slots_best=draw.uniform(2.0, 4.5),
            slots_weight=draw.uniform(0.01, 0.05),
            unified_gap=draw.uniform(0.02, 0.10),
            tiles={pair: draw.gauss(0.0, 0.04) for pair in tiles},
            poll_best=draw.randrange(101),
            poll_weight=draw.uniform(0.0, 0.08),
            most_threads=draw.randrange(9, 13),
            most_rows=2 ** draw.randrange(12, 15),
            broken_tiles=frozenset(draw.sample([p for p in tiles if p != defaults], 3)),
        )

    def cost(self, config: Config) -> float:
        """The logarithm of the time of a token."""
        return (
            self._threads(config["threads"], config["threads_batch"])
            + self._batches(
                config["ubatch"],
                config["attention"],
                config["slots"],
                config["unified"],
                config["tile"],
            )
            + self._poll(config["poll"])
        )

    def crash(self, config: Config) -> FailureKind | None:
        """How a start with ``config`` fails, if it does."""
        if self._crowded(config["threads"], config["threads_batch"]):
            return FailureKind.TIMEOUT
        if self._too_large(config["ubatch"], config["slots"]):
            return FailureKind.OUT_OF_MEMORY
        if (config["tile"], config["attention"]) in self.broken_tiles:
            return FailureKind.CRASH
        return None

    def best(self) -> float:
        """The least cost of all that runs, by looking at all of it, a quarter of an octave apart
        where ``ubatch`` is concerned. The three parts share no knob.
        """
        octaves = round(math.log2(_UBATCH[1] / _UBATCH[0]))
        ubatches = {
            round(_UBATCH[0] * 2 ** (step / _STEPS_AN_OCTAVE))
            for step in range(octaves * _STEPS_AN_OCTAVE + 1)
        }
        return (
            min(
                self._threads(*pair)
                for pair in product(_THREADS, _THREADS)
                if not self._crowded(*pair)
            )
            + min(
                self._batches(ubatch, attention, slots, unified, tile)
                for ubatch, slots in product(ubatches, _SLOTS)
                if not self._too_large(ubatch, slots)
                for attention, unified, tile in product(_ATTENTION, (True, False), _TILES)
                if (tile, attention) not in self.broken_tiles
            )
            + min(map(self._poll, range(101)))
        )

    def _threads(self, decode: int, prefill: int) -> float:
        first, second, slant = self.ridge
        along = decode - first
        across = prefill - second - slant * along
        return self.threads_weight * (along**2 + across**2)

    def _batches(self, ubatch: int, attention: str, slots: int, unified: bool, tile: int) -> float:
        size = math.log2(ubatch)
        best = self.ubatch_best + (self.ubatch_shift if attention == "on" else 0.0)
        apart = unified != (slots >= 8)
        return (
            self.ubatch_weight * (size - best) ** 2
            + self.ripple * math.cos(math.pi * size)
            + self.attention[attention]
            + self.slots_weight * (math.log2(slots) - self.slots_best) ** 2
            + (0.0 if apart else self.unified_gap)
            + self.tiles[tile, attention]
        )

    def _poll(self, poll: int) -> float:
        return self.poll_weight * ((poll - self.poll_best) / 100) ** 2

    def _crowded(self, decode: int, prefill: int) -> bool:
        return decode + prefill > self.most_threads

    def _too_large(self, ubatch: int, slots: int) -> bool:
        return ubatch * slots > self.most_rows
