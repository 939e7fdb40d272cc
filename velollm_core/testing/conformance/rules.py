"""What keeps the suites whole: a test that is missing or replaced is named, unless it says why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import pytest

from velollm_core.testing.conformance.facts import Facts
from velollm_core.testing.conformance.under_test import UnderTest
from velollm_core.testing.pytest_plugin import GUARD, UNDOING, reason_of

if TYPE_CHECKING:
    from _pytest.mark.structures import MarkDecorator

MARK = "velollm_deviates"


def deviates(reason: str) -> MarkDecorator:
    """Decorates a test that takes the place of one of the kit's; the reason is shown at the end.

    Args:
        reason: why the backend cannot do what the kit asks.

    Raises:
        ValueError: the reason is empty.
    """
    if not reason.strip():
        raise ValueError("deviates() needs a reason")
    return pytest.mark.velollm_deviates(reason=reason)


class Conformance:
    """Base of the suites. Its one test cannot be replaced."""

    @pytest.fixture(scope="class")
    @classmethod
    def under_test(
        cls, facts: Facts, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[UnderTest]:
        """The backend that the author's fixture ``facts`` describes, with one session for the
        class.
        """
        shared = UnderTest(facts, tmp_path_factory.mktemp("conformance"))
        yield shared
        shared.end()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if getattr(cls, GUARD) is not getattr(Conformance, GUARD):
            raise TypeError(f"{cls.__name__} replaces the test that keeps the suite whole")

    def test_no_test_is_missing_or_replaced_without_a_reason(self) -> None:
        """Every ``test_`` of the kit is inherited as it is, or its replacement says why."""
        changed = [name for name in _names(type(self)) if not _stands(type(self), name)]
        assert not changed, (
            f"replaced without a reason: {', '.join(changed)}. Inherit them, or decorate what "
            "takes their place with @deviates(reason) or @pytest.mark.xfail(reason=...)."
        )


def _kits(cls: type) -> Iterable[type]:
    return (base for base in cls.__mro__ if base.__module__.startswith(__package__ or "?"))


def _names(cls: type) -> list[str]:
    return sorted({name for kit in _kits(cls) for name in vars(kit) if name.startswith("test_")})


def _stands(cls: type, name: str) -> bool:
    found = getattr(cls, name, None)
    original = next(vars(kit)[name] for kit in _kits(cls) if name in vars(kit))
    marks = getattr(found, "pytestmark", [])
    if any(mark.name in {MARK, "xfail"} and reason_of(mark) for mark in marks):
        return True
    # A mark that is put on an inherited test stays on the kit's own function.
    return found is original and not any(mark.name in UNDOING for mark in marks)
