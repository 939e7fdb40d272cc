"""Types of option values that click does not have."""

from __future__ import annotations

import math
import re
from typing import Any

import click

_NUMBER = r"(\d{1,9}(?:\.\d{1,9})?)"
_DURATION = re.compile(rf"(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?", re.ASCII)
_LONGEST_S = 7 * 86400


class Concurrency(click.ParamType[tuple[int, ...]]):
    """``1,4,8``: numbers of clients, each once."""

    name = "N[,N...]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if not numbers or min(numbers) < 1 or max(numbers) > 1024:
            self.fail(f"{value!r} is not of the form 1,4,8 (1 to 1024 clients).", param, ctx)
        # One number twice would be two phases that no row of the report could tell apart.
        return tuple(dict.fromkeys(numbers))


class Seconds(click.FloatRange):
    """A finite number of seconds."""

    name = "seconds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number of seconds.", param, ctx)
        return number


class Duration(click.ParamType[float]):
    """``90s``, ``10m`` or ``1h30m``, in seconds. A bare number would leave open which it is."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        found = _DURATION.fullmatch(str(value).strip().lower())
        seconds = 0.0
        if found is not None:
            parts = zip(found.groups(), (3600, 60, 1), strict=True)
            seconds = sum(float(text) * unit for text, unit in parts if text)
        if not 0 < seconds <= _LONGEST_S:
            self.fail(f"{value!r} is not of the form 90s, 10m or 1h30m (up to a week).", param, ctx)
        return seconds


class Percent(click.ParamType[float]):
    """``5%``, as the part 0.05. A bare number would leave open which of the two it is."""

    name = "percent"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        text = str(value).strip()
        try:
            number = float(text.removesuffix("%"))
        except ValueError:
            number = math.nan
        if not text.endswith("%") or not 0 < number < 100:
            self.fail(f"{value!r} is not of the form 5% (above 0%, below 100%).", param, ctx)
        return number / 100
