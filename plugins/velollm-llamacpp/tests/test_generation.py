"""What a user gets from a running engine, the same from either."""

from __future__ import annotations

import threading

import pytest

from velollm_core.backends.contract import (
    Capability,
    Event,
    Finish,
    Message,
    Request,
    Sampling,
    Session,
)
from velollm_core.errors import FailureKind, NeedsRestart, RequestError

pytestmark = pytest.mark.engine

STORY = (Message(role="user", content="Write a long story about a dog and a river."),)


@pytest.fixture(scope="module", params=["embedded", "native"])
def session(request, backend, demo, tmp_path_factory) -> Session:
    """One server for all tests of this module and one engine."""
    import os
    import time

    from velollm_core.backends.processes import Place
    from velollm_core.config import Config, Settings

    installation = request.getfixturevalue(request.param)
    directory = tmp_path_factory.mktemp(request.param)
    place = Place(
        directory=directory,
        log_path=directory / "log",
        environ=dict(os.environ),
        deadline=time.monotonic() + 90,
    )
    config = backend.defaults(installation, demo).config | Config({"threads": 1, "context": 2048})
    with backend.launch(installation, demo, Settings(config=config), place) as running:
        yield running


@pytest.fixture(autouse=True)
def no_process_left():
    """The server of this module outlives each test on purpose."""


def answer(session, prompt, **more) -> tuple[list[Event], Finish]:
    more.setdefault("max_tokens", 24)
    *events, finish = session.generate(Request(prompt=prompt, **more))
    assert isinstance(finish, Finish)
    assert all(isinstance(event, Event) for event in events)
    return events, finish


def test_messages_are_answered_through_the_chat_template_with_counts_and_timings(session):
    events, finish = answer(session, STORY)
    assert sum(event.tokens for event in events) == finish.output_tokens == 24
    assert finish.reason == "length"
    # The template adds roles and a system prompt to the words themselves.
    assert finish.prompt_tokens > len(session.tokenize(STORY[0].content))
    times = [event.at_ms for event in events]
    assert times == sorted(times)
    assert times[0] >= finish.timings.prompt_ms
    assert finish.at_ms >= times[-1]


def test_the_clients_rate_is_the_servers(session):
    events, finish = answer(session, STORY, max_tokens=120)
    span_ms = events[-1].at_ms - events[0].at_ms
    client = (sum(event.tokens for event in events) - events[0].tokens) / span_ms * 1000
    assert client == pytest.approx(finish.timings.predicted_per_second, rel=0.02)


def test_greedy_answers_repeat_and_a_temperature_makes_them_depend_on_the_seed(session):
    first, second = (answer(session, STORY)[0] for _ in range(2))
    assert [event.text for event in first] == [event.text for event in second]
    drawn = {
        "".join(
            event.text
            for event in answer(session, STORY, sampling=Sampling(temperature=1.5, seed=seed))[0]
        )
        for seed in (1, 2, 3)
    }
    assert len(drawn) > 1


def test_a_raw_text_is_continued_with_token_ids(session):
    events, finish = answer(session, "1 2 3 4 5 6 7 8 9", max_tokens=6)
    ids = [token for event in events for token in event.token_ids]
    assert len(ids) == finish.output_tokens == 6
    assert session.tokenize("".join(event.text for event in events)) == ids


def test_token_ids_are_as_good_as_their_text(session):
    text = "The capital of France is"
    from_text, _ = answer(session, text, max_tokens=8)
    from_ids, finish = answer(session, tuple(session.tokenize(text)), max_tokens=8)
    assert [event.text for event in from_ids] == [event.text for event in from_text]
    assert finish.prompt_tokens == len(session.tokenize(text))


@pytest.mark.parametrize("prompt", [STORY, "Once upon a time"], ids=["messages", "text"])
def test_logprobs_come_with_their_tokens_when_asked_for(session, prompt):
    events, _ = answer(session, prompt, top_logprobs=3)
    for event in events:
        assert len(event.logprobs) == len(event.token_ids) == event.tokens
        assert all(value <= 0 for value in event.logprobs)


def test_the_end_of_the_text_is_told_apart_from_the_limit(session):
    _, finish = answer(session, (Message(role="user", content="Say: yes"),), max_tokens=200)
    assert finish.reason == "stop"


def test_characters_of_several_tokens_arrive_whole_and_every_token_is_counted(session):
    wanted = (Message(role="user", content="Repeat exactly: 你好世界 🐕🐈 ångström"),)
    events, finish = answer(session, wanted, max_tokens=40)
    assert all("\ufffd" not in event.text for event in events)
    # The token that ends the answer has no text.
    assert 0 <= finish.output_tokens - sum(event.tokens for event in events) <= 1


def test_a_prompt_is_reused_unless_the_request_says_no(session):
    answer(session, STORY)
    assert answer(session, STORY)[1].cached_tokens > 0
    assert answer(session, STORY, config={"cache_prompt": False})[1].cached_tokens == 0
    session.reconfigure({"cache_prompt": False})
    assert answer(session, STORY)[1].cached_tokens == 0
    session.reconfigure({"cache_prompt": True})


def test_knobs_of_the_start_are_refused_on_a_running_server(session):
    with pytest.raises(NeedsRestart, match="threads"):
        session.reconfigure({"threads": 2})
    with pytest.raises(NeedsRestart, match="batch"):
        list(session.generate(Request(prompt="a", max_tokens=1, config={"batch": 8})))


def test_many_threads_may_ask_at_once(session):
    counts = []

    def client(number: int) -> None:
        counts.append(answer(session, f"Number {number}:", max_tokens=8)[1].output_tokens)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [8] * 6


def test_a_prompt_longer_than_the_context_is_refused_with_the_servers_reason(session):
    with pytest.raises(RequestError, match="context") as caught:
        answer(session, "word " * 4000)
    assert caught.value.kind is FailureKind.REFUSED


def test_counters_memory_and_load_time_are_told(session):
    assert session.capabilities == frozenset(Capability)
    before = session.counters()["tokens_predicted_total"]
    answer(session, "One two three", max_tokens=5)
    assert session.counters()["tokens_predicted_total"] == before + 5
    assert session.memory().rss_bytes > 50 * 1024**2
    assert session.load_ms > 0
