"""What holds of the answers of a running session."""

from __future__ import annotations

import ssl
import threading
import time
from http.client import HTTPConnection, HTTPSConnection
from urllib.parse import urlsplit

import psutil
import pytest

from velollm_core.backends.contract import Capability, Event, Finish, Message, Request
from velollm_core.testing.conformance.under_test import Answer, UnderTest, bounded, listen

_WORDS = ("copper", "violin", "harbour", "lantern", "meadow", "orbit")
_AT_ONCE_MS = 20.0
_TOLERANCE_MS = 5.0
_RELEASE_S = 2.0
_CONNECT_S = 10.0
_PORTS = {"http": 80, "https": 443}


class Answers:
    """Streams: their order and end, their counts and times, and several at once."""

    def test_an_answer_is_events_and_then_one_finish(self, under_test: UnderTest) -> None:
        """In this order, and nothing after the end."""
        answer = under_test.ask()
        assert all(isinstance(item, (Event, Finish)) for item in answer.items)
        assert len(answer.finishes) == 1
        assert answer.items[-1] is answer.finish
        assert answer.text

    def test_an_answer_of_one_token_has_its_text(self, under_test: UnderTest) -> None:
        """Servers send the last text together with the end, or before it; none of it is lost.

        A first token without text (a mark, a piece of a character) is no fault.
        """
        longer = under_test.ask(under_test.request(max_tokens=8))
        assert longer.text
        answer = under_test.ask(under_test.request(max_tokens=1))
        assert answer.finish.reason == "length"
        first = longer.events[0]
        if under_test.facts.deterministic and first.text and first.tokens == 1:
            assert answer.text == first.text

    def test_the_text_is_what_the_server_says_without_streaming(
        self, under_test: UnderTest
    ) -> None:
        """No event is lost, doubled, or out of order."""
        whole_answer = under_test.facts.whole_answer
        if whole_answer is None:
            pytest.skip("facts.whole_answer is not given: there is nothing to compare with")
        if not under_test.facts.deterministic:
            pytest.skip("facts.deterministic is false: no two answers can be compared")
        request = under_test.request()
        whole = under_test.within(
            "an answer",
            lambda: whole_answer(under_test.session, request),
            under_test.facts.answer_s,
        )
        assert under_test.ask(request).text == whole

    def test_greedy_answers_repeat(self, under_test: UnderTest) -> None:
        """Two configurations are compared by what they answer."""
        if not under_test.facts.deterministic:
            pytest.skip("facts.deterministic is false")
        assert under_test.ask().text == under_test.ask().text

    def test_characters_arrive_whole(self, under_test: UnderTest) -> None:
        """A character of several bytes is never cut in two."""
        wanted = (Message(role="user", content="Repeat exactly: 你好世界 🐕🐈 ångström"),)
        answer = under_test.ask(under_test.request(wanted))
        assert all("\ufffd" not in event.text for event in answer.events)

    def test_a_raw_text_is_continued(self, under_test: UnderTest) -> None:
        """A prompt may be a text, without a chat template."""
        answer = under_test.ask(under_test.request("Once upon a time there was a", 8))
        assert answer.text
        assert len(answer.finishes) == 1

    def test_no_answer_is_longer_than_asked_for(self, under_test: UnderTest) -> None:
        """``max_tokens`` bounds tokens, not words; an event with text has at least one."""
        for most in (1, 7, 24):
            answer = under_test.ask(under_test.request(max_tokens=most))
            assert sum(bool(event.text) for event in answer.events) <= most
            assert (answer.finish.output_tokens or 0) <= most

    def test_output_tokens_are_the_servers(self, under_test: UnderTest) -> None:
        """Not words and not events: an answer that ended at its limit has as many as the limit."""
        _claimed(under_test, Capability.TOKEN_COUNTS)
        for most in (7, 24):
            answer = under_test.ask(under_test.request(max_tokens=most))
            assert answer.finish.output_tokens is not None
            if answer.finish.reason == "length":
                assert answer.finish.output_tokens == most
            if Capability.TOKENIZE in under_test.facts.capabilities:
                again = len(under_test.session.tokenize(answer.text))
                assert again == pytest.approx(answer.finish.output_tokens, rel=0.2, abs=2)

    def test_the_events_tokens_add_up_to_the_output(self, under_test: UnderTest) -> None:
        """Bursts are counted by their tokens. A token that ends the text has none of its own."""
        _claimed(under_test, Capability.TOKEN_COUNTS)
        answer = under_test.ask()
        if answer.told is None:
            pytest.skip("events do not tell their tokens: the server counts the whole answer only")
        textless = 0 if answer.finish.reason == "length" else 1
        assert 0 <= (answer.finish.output_tokens or 0) - answer.told <= textless

    def test_prompt_tokens_are_the_servers(self, under_test: UnderTest) -> None:
        """A longer prompt has more, a raw text those of ``tokenize`` and the model's own marks."""
        _claimed(under_test, Capability.TOKEN_COUNTS)
        text = "unquestionably the antidisestablishmentarian hippopotamus, 1234567890"
        short = under_test.ask(under_test.request(text, 1)).finish
        long = under_test.ask(under_test.request(f"{text} {text}", 1)).finish
        assert short.prompt_tokens is not None
        assert long.prompt_tokens is not None
        assert short.prompt_tokens < long.prompt_tokens
        assert 0 <= (long.cached_tokens or 0) <= long.prompt_tokens
        if Capability.TOKENIZE in under_test.facts.capabilities:
            known = len(under_test.session.tokenize(text))
            assert known <= short.prompt_tokens <= known + 2

    def test_times_count_from_the_sending_of_the_request(self, under_test: UnderTest) -> None:
        """In milliseconds, in order, never later than when the event is given out.

        In one of three answers, at least, the first event has to say most of what we waited for it.
        What a connection takes comes before the sending.
        """
        answers = [under_test.ask() for _ in range(3)]
        connect_ms = min(_connect_ms(under_test.session.url) for _ in answers)
        for answer in answers:
            times = [item.at_ms for item in answer.items]
            assert times[0] >= 0
            assert times == sorted(times)
            late = [
                at_ms - received for at_ms, received in zip(times, answer.received_ms, strict=True)
            ]
            assert max(late) <= _TOLERANCE_MS, "an event says it came after it was given out"
        assert any(_honest(answer, connect_ms) for answer in answers), [
            (answer.items[0].at_ms, answer.received_ms[0], connect_ms) for answer in answers
        ]

    def test_events_arrive_while_the_server_works(self, under_test: UnderTest) -> None:
        """An answer that is collected first and handed out then has no latency to measure."""
        answers = [under_test.ask(under_test.request(max_tokens=48)) for _ in range(3)]
        if any(len(answer.events) < 2 for answer in answers):
            pytest.skip("the server sends its answers in one event")
        spans = [answer.received_ms[-1] - answer.received_ms[0] for answer in answers]
        told = [answer.items[-1].at_ms - answer.items[0].at_ms for answer in answers]
        assert any(
            span >= 0.5 * span_told - _AT_ONCE_MS
            for span, span_told in zip(spans, told, strict=True)
        )
        assert any(span_told > 0 for span_told in told), "all events bear the same time"

    def test_the_servers_timings_fit_into_the_clients(self, under_test: UnderTest) -> None:
        """They are milliseconds, and parts of what the client waited for."""
        _claimed(under_test, Capability.SERVER_TIMINGS)
        answer = under_test.ask()
        timings = answer.finish.timings
        assert timings is not None
        assert min(timings.prompt_ms, timings.predicted_ms) >= 0
        total_ms = answer.finish.at_ms
        assert timings.prompt_ms + timings.predicted_ms <= 1.05 * total_ms + _AT_ONCE_MS
        assert timings.prompt_ms + timings.predicted_ms >= 0.02 * total_ms - _AT_ONCE_MS
        if answer.events:
            assert answer.events[0].at_ms >= 0.95 * timings.prompt_ms - _TOLERANCE_MS

    def test_several_answers_at_once_are_kept_apart(self, under_test: UnderTest) -> None:
        """``generate`` is called by many threads; each gets the answer to its own prompt."""
        requests = [under_test.request(_about(word, 2 + n), 12) for n, word in enumerate(_WORDS)]
        alone = [under_test.ask(request) for request in requests]
        for own, answer in zip(alone, _at_once(under_test, requests), strict=True):
            assert len(answer.finishes) == 1
            assert answer.items[-1] is answer.finish
            assert answer.finish.prompt_tokens == own.finish.prompt_tokens
            if answer.told is not None and answer.finish.output_tokens is not None:
                assert 0 <= answer.finish.output_tokens - answer.told <= 1
            # Rounding in a batch may change an answer, but not into another's.
            others = {other.text for other in alone} - {own.text}
            assert answer.text not in others or not under_test.facts.deterministic

    def test_an_abandoned_answer_leaves_no_connection(self, under_test: UnderTest) -> None:
        """The server goes on, and its slot is taken, until the connection is closed."""
        session = under_test.session
        parts = urlsplit(session.url)
        port = parts.port or _PORTS.get(parts.scheme)
        if port is None:
            pytest.skip(f"the session's URL, {session.url!r}, has no port to look at")
        before = _connections(port)
        items = session.generate(under_test.long_request())
        bounded("an answer", lambda: listen(items, until=2), under_test.facts.answer_s)
        opened = _connections(port) - before
        bounded("closing the answer", items.close, under_test.facts.patience_s)  # type: ignore[attr-defined]
        if not opened:
            pytest.skip(
                "the client keeps its connections: it opened none for this answer"
                if before
                else f"no connection to port {port} was open after two events of a long answer"
            )
        deadline = time.monotonic() + _RELEASE_S
        while opened & _connections(port) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not opened & _connections(port)

    def test_after_an_abandoned_answer_the_next_is_whole(self, under_test: UnderTest) -> None:
        """Nothing of the one is found in the other."""
        expected = under_test.ask()
        items = under_test.session.generate(under_test.long_request())
        bounded("an answer", lambda: listen(items, until=2), under_test.facts.answer_s)
        bounded("closing the answer", items.close, under_test.facts.patience_s)  # type: ignore[attr-defined]
        answer = under_test.ask()
        assert len(answer.finishes) == 1
        assert answer.finish.output_tokens == expected.finish.output_tokens
        if under_test.facts.deterministic:
            assert answer.text == expected.text


class Telling:
    """What a session claims to tell, it tells."""

    def test_it_claims_what_the_facts_say(self, under_test: UnderTest) -> None:
        """Reports leave out what is not claimed, and show what is."""
        assert under_test.session.capabilities == under_test.facts.capabilities

    def test_token_ids_come_with_the_text(self, under_test: UnderTest) -> None:
        """As many as tokens, and as good a prompt as their text."""
        _claimed(under_test, Capability.TOKEN_IDS)
        answer = under_test.ask(under_test.request("1 2 3 4 5 6 7 8 9", 6))
        ids = [token for event in answer.events for token in event.token_ids]
        assert len(ids) == answer.finish.output_tokens
        if Capability.TOKENIZE in under_test.facts.capabilities:
            prompt = tuple(under_test.session.tokenize("1 2 3 4 5 6 7 8 9"))
            again = under_test.ask(Request(prompt=prompt, max_tokens=6))
            assert again.text == answer.text or not under_test.facts.deterministic

    def test_log_probabilities_come_when_asked_for(self, under_test: UnderTest) -> None:
        """One a token, none above zero."""
        _claimed(under_test, Capability.LOGPROBS)
        request = Request(
            prompt="Once upon a time", max_tokens=6, top_logprobs=2,
            timeout_s=under_test.facts.answer_s,
        )  # fmt: skip
        answer = under_test.ask(request)
        values = [value for event in answer.events for value in event.logprobs]
        assert len(values) == answer.finish.output_tokens
        assert all(value <= 0 for value in values)

    def test_text_is_tokenized(self, under_test: UnderTest) -> None:
        """The same text to the same ids, a longer text to more, nothing to nothing."""
        _claimed(under_test, Capability.TOKENIZE)
        tokenize = under_test.session.tokenize
        short = tokenize("one two three")
        assert short == tokenize("one two three")
        assert all(isinstance(token, int) for token in short)
        assert len(short) < len(tokenize("one two three four five six seven"))
        assert tokenize("") == []

    def test_counters_count(self, under_test: UnderTest) -> None:
        """A request changes at least one, and none of those that end in ``_total`` falls."""
        _claimed(under_test, Capability.COUNTERS)
        before = dict(under_test.session.counters() or {})
        under_test.ask()
        after = dict(under_test.session.counters() or {})
        assert before
        assert before != after
        for name, value in before.items():
            if name.endswith("_total"):
                assert after[name] >= value

    def test_memory_is_told(self, under_test: UnderTest) -> None:
        """Resident bytes of the server: more than nothing, less than the machine has."""
        _claimed(under_test, Capability.MEMORY)
        use = under_test.session.memory()
        assert use is not None
        assert 0 < use.rss_bytes < psutil.virtual_memory().total


def _claimed(under_test: UnderTest, capability: Capability) -> None:
    if capability not in under_test.facts.capabilities:
        pytest.skip(f"facts.capabilities does not claim {capability.value}")


def _honest(answer: Answer, connect_ms: float) -> bool:
    told, waited = answer.items[0].at_ms, answer.received_ms[0] - connect_ms
    return told >= 0.5 * waited or waited - told <= _AT_ONCE_MS


def _connect_ms(url: str) -> float:
    """How long it takes to connect to an ``http`` or ``https`` URL; 0 for any other."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        return 0.0
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_CONNECT_S)
    began = time.perf_counter()
    try:
        connection.connect()
    except ssl.SSLError:
        pass  # a certificate that only the backend knows: the handshake took its time all the same
    except OSError:
        return 0.0
    finally:
        connection.close()
    return (time.perf_counter() - began) * 1000.0


def _about(word: str, times: int) -> tuple[Message, ...]:
    """A prompt like no other of its kind, in its words and in their number."""
    text = f"{f'{word} ' * times}: say only this word, many times."
    return (Message(role="user", content=text),)


def _at_once(under_test: UnderTest, requests: list[Request]) -> list[Answer]:
    """Answers to all requests, asked for at the same moment."""
    start = threading.Barrier(len(requests))
    answers: dict[int, Answer] = {}
    errors: list[BaseException] = []
    session = under_test.session

    def client(index: int) -> None:
        try:
            start.wait()
            answers[index] = listen(session.generate(requests[index]))
        except BaseException as error:  # noqa: BLE001 - raised below, in the test's own thread
            errors.append(error)

    threads = [
        threading.Thread(target=client, args=(index,), daemon=True)
        for index in range(len(requests))
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + under_test.facts.answer_s
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if errors:
        raise errors[0]
    assert len(answers) == len(requests), "not all answers came in time"
    return [answers[index] for index in range(len(requests))]


def _connections(port: int) -> set[tuple[str, int]]:
    """Own ends of this process's connections to that port, those that the server alone has closed
    included.

    Not their number: one that an earlier answer left may end while this one is looked at.
    """
    held = {psutil.CONN_ESTABLISHED, psutil.CONN_CLOSE_WAIT}
    return {
        (entry.laddr.ip, entry.laddr.port)
        for entry in psutil.Process().net_connections("tcp")
        if entry.raddr and entry.raddr.port == port and entry.status in held
    }
