"""No test of the kit is dropped or replaced in silence."""

from __future__ import annotations

import pytest

from velollm_core.testing.conformance import BackendConformance, EngineConformance, deviates

SUITE = """
import pytest
from velollm_core.testing.conformance import BackendConformance, Facts, deviates
from velollm_core.testing.fakes import FakeBackend

@pytest.fixture(scope="module")
def facts():
    return Facts(backend=FakeBackend(), registered=False)

class TestBackend(BackendConformance):
"""
GUARD = "test_no_test_is_missing_or_replaced_without_a_reason"


@pytest.fixture
def suite(tmp_path, run_suite):
    """The report on a suite with this body."""

    def run(body, mark=""):
        text = SUITE.replace("class TestBackend", f"{mark}\nclass TestBackend") + body
        (tmp_path / "test_it.py").write_text(text, encoding="utf-8")
        return run_suite(tmp_path, "test_it.py")

    return run


def test_a_suite_that_is_left_as_it_is_passes(suite):
    report = suite("    pass\n")
    assert report.failed == set(), report.output
    assert GUARD in report.passed


INHERITED = "test_probing_changes_nothing = {}(BackendConformance.test_probing_changes_nothing)"
METHOD = "    def test_probing_changes_nothing(self):\n        assert 0\n"


@pytest.mark.parametrize(
    "body",
    [
        "    test_probing_changes_nothing = None\n",
        METHOD.replace("assert 0", "pass"),
        f"    @pytest.mark.skip(reason='no')\n{METHOD}",
        f"    @pytest.mark.xfail\n{METHOD}",
        f"    @pytest.mark.xfail(reason=' ')\n{METHOD}",
        f"    {INHERITED.format('pytest.mark.skip')}\n",
        f"    {INHERITED.format('pytest.mark.xfail')}\n",
    ],
    ids=[
        "dropped",
        "replaced",
        "skipped",
        "expected to fail",
        "for an empty reason",
        "the kit's own, skipped",
        "the kit's own, expected to fail",
    ],
)
def test_a_test_that_is_gone_without_a_reason_is_named(suite, body):
    report = suite(body)
    assert report.failed == {GUARD}
    assert "replaced without a reason: test_probing_changes_nothing." in report.output


def test_a_stated_reason_stands_and_is_shown(suite):
    report = suite(
        "    @deviates('it has to write its licence')\n"
        "    def test_probing_changes_nothing(self, under_test):\n        pass\n"
        "    @pytest.mark.xfail(reason='it has no footprint', strict=False)\n"
        "    def test_a_footprint_is_bytes_or_unknown(self):\n        assert 0\n"
    )
    assert report.failed == set(), report.output
    assert "deviations from VeloLLM's conformance kit" in report.output
    assert "test_probing_changes_nothing: it has to write its licence" in report.output


def test_a_reason_may_be_given_by_place(suite):
    body = "    def test_probing_changes_nothing(self):\n        pass\n"
    report = suite(f"    @pytest.mark.velollm_deviates('it writes a log')\n{body}")
    assert report.failed == set(), report.output
    assert "test_probing_changes_nothing: it writes a log" in report.output


@pytest.mark.parametrize("mark", ["skip", "skipif(True, reason='')", "xfail"])
def test_a_suite_that_is_switched_off_without_a_reason_fails(suite, mark):
    report = suite("    pass\n", f"@pytest.mark.{mark}")
    assert report.failed == {GUARD}, report.output
    assert f"the suite is marked {mark.partition('(')[0]} without a reason" in report.output


@pytest.mark.parametrize(
    ("mark", "outcome"),
    [("skip('no engine here')", "skipped"), ("xfail(reason='no engine here')", "xpassed")],
)
def test_a_suite_that_is_switched_off_with_a_reason_is_shown(suite, mark, outcome):
    report = suite("    pass\n", f"@pytest.mark.{mark}")
    assert report.failed == set(), report.output
    assert f"::TestBackend, {outcome} as a whole: no engine here" in report.output


def test_an_authors_own_tests_are_welcome(suite):
    report = suite("    def test_of_my_own(self):\n        pass\n")
    assert report.failed == set(), report.output
    assert "test_of_my_own" in report.passed


def test_the_guard_itself_cannot_be_replaced():
    with pytest.raises(TypeError, match="keeps the suite whole"):
        type("TestMine", (BackendConformance,), {GUARD: None})


def test_a_reason_is_needed():
    with pytest.raises(ValueError, match="reason"):
        deviates("  ")


def test_every_test_of_the_kit_says_what_it_asks_for():
    for suite in (BackendConformance, EngineConformance):
        for name in dir(suite):
            if name.startswith("test_"):
                assert getattr(suite, name).__doc__, name
