"""What holds of the beginning and the end of a session, above all of a bad one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise

import psutil
import pytest
from attrs import evolve

from velollm_core.backends.contract import Capability, Event
from velollm_core.errors import FailureKind, LaunchError, ModelError, RequestError, VeloError
from velollm_core.models.spec import Model
from velollm_core.testing.conformance.under_test import Answer, UnderTest, bounded, listen
from velollm_core.testing.processes import Family

_LEAST_SILENCE_S = 1.0
_SILENCE_FACTOR = 5.0


class Lifetime:
    """Starting, ending, and what happens in between when the server dies or hangs."""

    def test_a_session_says_where_it_is(self, under_test: UnderTest) -> None:
        """Its URL, its processes, and how long it took to load."""
        session = under_test.session
        assert session.url
        assert session.load_ms is None or session.load_ms >= 0
        if under_test.facts.mode == "attach":
            assert session.load_ms is None, "an attached server was not loaded by us"
        assert all(psutil.pid_exists(pid) for pid in session.pids)

    def test_engines_are_started_through_the_place(self, under_test: UnderTest) -> None:
        """``place.start`` puts a guard above the engine, which ends it when VeloLLM is killed."""
        _launches(under_test)
        family = Family()
        with under_test.opened() as session:
            started = family.alive()
            own = [process for process in started if process.ppid() == psutil.Process().pid]
            assert {process.pid for process in own} <= set(under_test.record.guards)
            if started:
                assert set(session.pids) <= {process.pid for process in started}
                assert session.pids, "the session does not name the engine's processes"

    def test_closing_leaves_no_process(self, under_test: UnderTest) -> None:
        """Children and grandchildren are gone; closing twice is as good as once."""
        _launches(under_test)
        with under_test.nothing_left() as family:
            session = under_test.open(under_test.config, under_test.place())
            under_test.ask(under_test.request(max_tokens=4), session)
            family.look()
            under_test.within("close", session.close)
            under_test.within("closing twice", session.close)

    def test_closing_ends_an_answer_under_way(self, under_test: UnderTest) -> None:
        """In bounded time, and whoever reads the answer is told by a RequestError."""
        ended: list[BaseException | None] = []
        with under_test.nothing_left() as family:
            session = under_test.open(under_test.config, under_test.place())
            begun = threading.Event()

            def read() -> None:
                try:
                    for item in session.generate(under_test.long_request()):
                        if isinstance(item, Event):
                            begun.set()
                    ended.append(None)
                except BaseException as error:  # noqa: BLE001 - looked at below
                    ended.append(error)

            reader = threading.Thread(target=read, daemon=True)
            reader.start()
            assert begun.wait(under_test.facts.answer_s), "no answer came"
            family.look()
            under_test.within("close", session.close)
            reader.join(under_test.facts.patience_s)
        assert ended, "the answer went on after its session was closed"
        assert ended[0] is None or isinstance(ended[0], RequestError), repr(ended[0])

    def test_a_closed_session_answers_no_more(self, under_test: UnderTest) -> None:
        """A request after the end is a RequestError, whatever lies behind it."""
        with under_test.opened() as session:
            pass
        with pytest.raises(RequestError):
            under_test.ask(session=session)

    def test_the_death_of_the_server_is_a_request_error(self, under_test: UnderTest) -> None:
        """In the middle of an answer and after it: no error of a library comes through."""
        with under_test.fragile() as fragile:
            items = fragile.session.generate(under_test.long_request())
            bounded("an answer", lambda: listen(items, until=2), under_test.facts.answer_s)
            fragile.kill()
            with pytest.raises(RequestError) as caught:
                under_test.within("an answer of a dead server", lambda: listen(items))
            assert caught.value.message
            with pytest.raises(RequestError):
                under_test.within(
                    "a request to a dead server",
                    lambda: listen(fragile.session.generate(under_test.request())),
                )

    def test_a_dead_server_makes_no_call_fail_without_words(self, under_test: UnderTest) -> None:
        """Whatever a dead session is asked, the answer is a value or one of VeloLLM's errors."""
        with under_test.fragile() as fragile:
            session = fragile.session
            fragile.kill()
            calls: dict[str, Callable[[], object]] = {
                "effective": session.effective,
                "counters": session.counters,
                "memory": session.memory,
                "log_tail": session.log_tail,
            }
            if Capability.TOKENIZE in session.capabilities:
                calls["tokenize"] = lambda: session.tokenize("a text")
            for name, call in calls.items():
                try:
                    under_test.within(name, call)
                except VeloError:
                    continue
                except Exception as error:  # noqa: BLE001 - this is what is looked for
                    pytest.fail(f"{name}() of a dead server raised {error!r}")

    def test_a_server_that_falls_silent_is_given_up(self, under_test: UnderTest) -> None:
        """After ``timeout_s`` without an event, with the kind of a time-out."""
        with under_test.fragile() as fragile:
            silence_s = _bearable_silence_s(under_test.ask(session=fragile.session))
            request = evolve(under_test.long_request(), timeout_s=silence_s)
            items = fragile.session.generate(request)
            bounded("an answer", lambda: listen(items, until=2), under_test.facts.answer_s)
            fragile.hang()
            with pytest.raises(RequestError) as caught:
                under_test.within(
                    "an answer of a silent server",
                    lambda: listen(items),
                    silence_s + under_test.facts.patience_s,
                )
            assert caught.value.kind is FailureKind.TIMEOUT
            fragile.kill()

    def test_an_impossible_model_is_refused_in_words(self, under_test: UnderTest) -> None:
        """The engine's own, with nothing left running."""
        _launches(under_test)
        if under_test.model.path is None:
            pytest.skip("the model is no file: there is no bad one to give")
        place = under_test.place()
        path = place.directory / f"impossible{under_test.model.path.suffix}"
        path.write_text("these are my notes, and no model at all\n" * 100, encoding="utf-8")
        with under_test.nothing_left(), pytest.raises((LaunchError, ModelError)) as caught:
            under_test.open(under_test.config, place, Model(reference=str(path), path=path))
        assert len(caught.value.message.split()) >= 3, caught.value.message

    def test_a_start_beyond_its_deadline_is_given_up(self, under_test: UnderTest) -> None:
        """With nothing left running; an engine that is ready at once may be there in time."""
        _launches(under_test)
        with under_test.nothing_left():
            try:
                session = under_test.open(under_test.config, under_test.place(0.0))
            except LaunchError as error:
                assert error.kind is FailureKind.TIMEOUT  # noqa: PT017 - to be ready is as good
            else:
                under_test.within("close", session.close)
                assert not under_test.session.pids, "it was ready after its deadline"

    def test_its_last_words_can_be_quoted(self, under_test: UnderTest) -> None:
        """Whatever the engine wrote, errors can show the end of it."""
        _launches(under_test)
        place = under_test.place()
        with under_test.opened(place=place) as session:
            said = session.log_tail()
        if not place.log_path.exists() or not place.log_path.stat().st_size:
            pytest.skip("the engine writes nothing")
        assert said.strip()

    def test_an_attached_server_is_left_alone(self, under_test: UnderTest) -> None:
        """Closing a session ends its connections, not the server."""
        if under_test.facts.mode != "attach":
            pytest.skip("facts.mode is launch: the server is ended with its session")
        with under_test.opened() as session:
            under_test.ask(under_test.request(max_tokens=4), session)
        with under_test.opened() as session:
            assert under_test.ask(under_test.request(max_tokens=4), session).text

    def test_velollm_measures_it(self, under_test: UnderTest) -> None:
        """One block of an experiment, as ``velollm bench`` runs it: no failure, no mismatch."""
        from velollm_core.testing.conformance.measured import trial_of

        trial = under_test.within(
            "a benchmark",
            lambda: trial_of(under_test),
            under_test.facts.launch_s + 4 * under_test.facts.answer_s,
        )
        assert trial.failure is None
        assert trial.mismatches == ()
        (phase,) = trial.phases
        assert [sample.error for sample in phase.samples] == [None] * len(phase.samples)
        assert all(sample.first_token_ms is not None for sample in phase.samples)


def _bearable_silence_s(answer: Answer) -> float:
    """Longer than a healthy server is ever silent: before its first token, or between two."""
    times = [0.0, *answer.received_ms]
    longest_ms = max(later - earlier for earlier, later in pairwise(times))
    return max(_LEAST_SILENCE_S, _SILENCE_FACTOR * longest_ms / 1000.0)


def _launches(under_test: UnderTest) -> None:
    if under_test.facts.mode == "attach":
        pytest.skip("facts.mode is attach: nothing is started")
