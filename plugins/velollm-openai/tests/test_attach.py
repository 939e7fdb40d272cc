"""A server is found by its URL however that is written, and what it is and cannot do is said."""

from __future__ import annotations

import json

import pytest

from velollm_core.backends.contract import Capability, Finish, Message, Request
from velollm_core.config import Config
from velollm_core.errors import NeedsRestart, RequestError, Unavailable, UsageError
from velollm_core.testing.raw_server import answer

HELLO = (Message(role="user", content="Hello"),)
KEY = "sk-very-secret"


@pytest.fixture
def attached(backend, protocol, serve):
    """A session with a server of this kind, as the command opens it."""
    sessions = []

    def make(*pieces, environ=None, options=None, **server):
        planted = serve(*(pieces or protocol.WHOLE), **server)
        (found,) = backend.probe({"url": planted.url, **(options or {})}, environ or {})
        session = backend.attach(found, backend.models(found)[0], Config())
        sessions.append(session)
        return session, planted

    yield make
    for session in sessions:
        session.close()


@pytest.mark.parametrize(
    "ending", ["", "/", "/v1", "/v1/", "/v1/models", "/v1/chat/completions", "/v1/completions"]
)
def test_the_url_may_be_written_with_the_path_of_the_api_or_without(backend, serve, ending):
    server = serve()
    (found,) = backend.probe({"url": server.url + ending}, {})
    assert (found.location, found.kind) == (server.url, "server")


def test_a_prefix_before_the_api_stays(backend, serve):
    server = serve(routes={"/llm/v1/models": {"data": [{"id": "m"}]}})
    (found,) = backend.probe({"url": f"{server.url}/llm/v1"}, {})
    assert found.location == f"{server.url}/llm"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("localhost:8000", "-X url=http://localhost:8000"),
        ("127.0.0.1:8000/v1", "-X url=http://127.0.0.1:8000/v1"),
        ("ftp://host", "http://HOST:PORT"),
        ("http://", "http://HOST:PORT"),
        ("http://sk-very-secret@host:8000", "api_key_env"),
        ("sk-very-secret@host:8000", "api_key_env"),
        ("http://host:8000/v1?api_key=sk-very-secret", "api_key_env"),
        ("http://host:8000/ v1", "more than an address"),
        ("http://a..b:80", "http://HOST:PORT"),
        ("http://127.0.0.1:9/é", "/%C3%A9"),
    ],
)
def test_what_is_no_url_is_refused_with_how_to_write_it(backend, url, told):
    with pytest.raises(UsageError) as caught:
        backend.probe({"url": url}, {})
    assert told in str(caught.value)
    assert KEY not in str(caught.value)


def test_without_a_url_nothing_is_looked_for(backend):
    assert backend.probe({}, {"OPENAI_API_KEY": KEY}) == ()


def test_nothing_at_that_url(backend):
    with pytest.raises(Unavailable, match=r"nothing answers at http://127\.0\.0\.1:9"):
        backend.probe({"url": "http://127.0.0.1:9"}, {})


def test_a_server_without_this_api_is_told_apart(backend, serve):
    def missing(connection, request):
        answer(connection, b"{}", "404 Not Found")

    with pytest.raises(Unavailable, match="HTTP 404") as caught:
        backend.probe({"url": serve(routes={"/v1/models": missing}).url}, {})
    assert "in front of /v1" in caught.value.hint


@pytest.mark.parametrize("listed", [b"<html>", [], {}, {"data": None}, {"data": {}}])
def test_another_kind_of_server_is_named(backend, serve, listed):
    with pytest.raises(Unavailable, match=r"not JSON|no OpenAI-compatible server"):
        backend.probe({"url": serve(routes={"/v1/models": listed}).url}, {})


@pytest.mark.parametrize("listed", [[], [{}], [7], [{"id": {"a": 1}}], [{"id": 7}], [{"id": ""}]])
def test_a_server_without_a_model_is_named(backend, serve, listed):
    with pytest.raises(Unavailable, match="has no model"):
        backend.probe({"url": serve(routes={"/v1/models": {"data": listed}}).url}, {})


def test_every_model_that_it_lists_can_be_chosen(backend, serve, protocol):
    listed = {"data": [{"id": "org/a"}, {"id": "b"}]}
    server = serve(*protocol.WHOLE, routes={"/v1/models": listed})
    (found,) = backend.probe({"url": server.url}, {})
    known = backend.models(found)
    assert [model.served_name for model in known] == ["org/a", "b"]
    with backend.attach(found, known[1], Config()) as session:
        list(session.generate(Request(prompt=HELLO, max_tokens=1)))
    assert json.loads(server.requests[-1].partition(b"\r\n\r\n")[2])["model"] == "b"


def test_a_model_that_is_listed_twice_is_one(backend, serve):
    listed = {"data": [{"id": "b"}, {"id": "a"}, {"id": "b"}, {"id": ["a"]}]}
    (found,) = backend.probe({"url": serve(routes={"/v1/models": listed}).url}, {})
    assert [model.served_name for model in backend.models(found)] == ["b", "a"]


@pytest.mark.parametrize(
    ("owner", "routes", "version"),
    [
        ("vllm", {"/version": {"version": "0.32.0"}}, "vllm 0.32.0"),
        ("sglang", {"/get_server_info": {"version": "0.5.2"}}, "sglang 0.5.2"),
        ("llamacpp", {"/props": {"build_info": "b11434-abc"}}, "llamacpp b11434-abc"),
        ("llamacpp", {}, "llamacpp"),
        ("someone", {"/version": {"version": "v3.2.0"}}, "v3.2.0"),
        ("someone", {"/version": b"<html>"}, None),
        ("someone", {"/version": {"version": 3}}, None),
    ],
)
def test_a_server_that_names_itself_is_recognised(backend, serve, owner, routes, version):
    (found,) = backend.probe({"url": serve(owner=owner, routes=routes).url}, {})
    assert found.version == version


def test_a_server_that_counts_is_said_to_and_has_no_timings(attached):
    session, _ = attached()
    assert session.capabilities == {Capability.TOKEN_COUNTS}
    assert (session.load_ms, session.pids, session.effective()) == (None, (), Config())


def test_a_server_that_does_not_count_is_said_not_to(attached, protocol):
    session, _ = attached(protocol.delta(content="a"), protocol.delta(finish="stop"))
    assert session.capabilities == frozenset()


@pytest.mark.parametrize("status", ["400 Bad Request", "422 Unprocessable Entity"])
def test_a_server_that_refuses_stream_options_works_without_counts(attached, protocol, status):
    plain = b"".join((protocol.delta(content="Hi"), protocol.delta(finish="stop"), protocol.DONE))

    def choosy(connection, request):
        if b"stream_options" in request:
            answer(connection, b'{"error": "unknown field stream_options"}', status)
        else:
            answer(connection, plain)

    session, server = attached(routes={"/v1/chat/completions": choosy})
    before = len(server.requests)
    *events, finish = session.generate(Request(prompt=HELLO, max_tokens=3))
    assert len(server.requests) == before + 1  # nothing is tried twice once it is measured
    assert ("".join(entry.text for entry in events), finish.output_tokens) == ("Hi", None)
    assert Capability.TOKEN_COUNTS not in session.capabilities


def test_a_model_that_cannot_chat_is_measured_at_the_other_endpoint(attached, protocol):
    def refuse(connection, request):
        answer(connection, b'{"error": {"message": "no chat template"}}', "400 Bad Request")

    routes = {"/v1/chat/completions": refuse}
    with pytest.raises(Unavailable, match="no chat template") as caught:
        attached(routes=routes)
    assert "-X endpoint=completions" in caught.value.hint
    session, _ = attached(routes=routes, options={"endpoint": "completions"})
    *_, finish = session.generate(Request(prompt=HELLO, max_tokens=3))
    assert isinstance(finish, Finish)


def test_figures_of_one_endpoint_never_pass_for_the_others(backend, serve):
    server = serve()
    (chat,) = backend.probe({"url": server.url}, {})
    (plain,) = backend.probe({"url": server.url, "endpoint": "completions"}, {})
    model = backend.models(chat)[0]
    assert backend.current(chat, model, {}) != backend.current(plain, model, {})
    with pytest.raises(UsageError, match="chat, completions"):
        backend.probe({"url": server.url, "endpoint": "embeddings"}, {})


def keys_seen(server) -> set[bytes]:
    found = set()
    for request in server.requests:
        lines = request.partition(b"\r\n\r\n")[0].split(b"\r\n")
        found |= {line for line in lines if line.lower().startswith(b"authorization")}
    return found


@pytest.mark.parametrize(
    ("environ", "options"),
    [
        ({"OPENAI_API_KEY": f" {KEY}\n"}, {}),
        ({"OPENAI_API_KEY": "sk-other", "MINE": KEY}, {"api_key_env": "MINE"}),
    ],
)
def test_the_key_comes_from_the_environment_and_is_shown_nowhere(attached, environ, options):
    session, server = attached(environ=environ, options=options)
    assert keys_seen(server) == {f"Authorization: Bearer {KEY}".encode()}
    assert KEY not in repr(session) + repr(vars(session._client).keys())


def test_without_a_key_none_is_sent(attached):
    assert keys_seen(attached(environ={"OPENAI_API_KEY": ""})[1]) == set()


def test_a_key_that_may_be_anothers_never_crosses_a_network_in_the_clear():
    from velollm_openai.server import _key

    environ = {"OPENAI_API_KEY": KEY, "MINE": KEY}
    sent = {
        "http://127.0.0.1:8000": KEY,
        "http://localhost": KEY,
        "https://example.org": KEY,
        "http://10.0.0.7:8000": None,
    }
    assert {url: _key(url, {}, environ)[0] for url in sent} == sent
    assert "not encrypted" in _key("http://10.0.0.7:8000", {}, environ)[1]
    assert _key("http://10.0.0.7:8000", {"api_key_env": "MINE"}, environ)[0] == KEY


@pytest.mark.parametrize(
    ("environ", "options", "hint"),
    [
        ({}, {}, "Set OPENAI_API_KEY"),
        ({"OPENAI_API_KEY": KEY}, {}, "OPENAI_API_KEY is not one of this server's"),
        ({"MINE": KEY}, {"api_key_env": "MINE"}, "MINE is not one of this server's"),
    ],
)
def test_a_refused_key_is_said_without_it(backend, serve, environ, options, hint):
    def refuse(connection, request):
        words = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}})
        answer(connection, words.encode(), "401 Unauthorized")

    server = serve(routes={"/v1/models": refuse})
    with pytest.raises(Unavailable, match="HTTP 401, Incorrect API key") as caught:
        backend.probe({"url": server.url, **options}, environ)
    assert hint in caught.value.hint
    assert (KEY in str(caught.value)) == (not environ)  # unknown here, it cannot be told from words
    assert caught.value.__suppress_context__


def test_a_key_that_a_server_quotes_in_mid_stream_is_hidden(serve, connect, protocol):
    fault = protocol.event({"error": {"message": f"quota of {KEY} used up"}})
    session = connect(serve(fault).url, {"OPENAI_API_KEY": KEY})
    with pytest.raises(RequestError) as caught:
        list(session.generate(Request(prompt=HELLO, max_tokens=1)))
    assert "quota of *** used up" in caught.value.message


@pytest.mark.parametrize("before", [0, 60, 70, 455, 495])
@pytest.mark.parametrize("whole", [True, False])
def test_a_key_that_is_cut_off_in_mid_stream_is_hidden(serve, connect, protocol, before, whole):
    said = "z" * before + KEY
    fault = protocol.event({"error": {"message": said}}) if whole else f"data: {said}\n\n".encode()
    session = connect(serve(fault).url, {"OPENAI_API_KEY": KEY})
    with pytest.raises(RequestError) as caught:
        list(session.generate(Request(prompt=HELLO, max_tokens=1)))
    assert "sk-v" not in str(caught.value)


def test_a_server_that_never_ends_its_first_answer_is_given_up(backend, serve, protocol):
    def endless(connection, request):
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(protocol.delta(content="a") * 100)

    (found,) = backend.probe({"url": serve(routes={"/v1/chat/completions": endless}).url}, {})
    with pytest.raises(RequestError, match="did not end"):
        backend.attach(found, backend.models(found)[0], Config())


def test_a_variable_without_a_key_and_a_key_that_is_none_are_refused(backend, serve):
    url = serve().url
    for name in ("NOT_THERE", KEY):
        with pytest.raises(UsageError, match="not set") as caught:
            backend.probe({"url": url, "api_key_env": name}, {})
        assert KEY not in str(caught.value)
    with pytest.raises(UsageError) as caught:
        backend.probe({"url": url}, {"OPENAI_API_KEY": f"{KEY}\r\nX-Other: 1"})
    assert KEY not in str(caught.value)


def test_only_a_llama_server_has_knobs_and_they_go_with_each_request(backend, serve, protocol):
    server = serve(*protocol.WHOLE, owner="llamacpp")
    (found,) = backend.probe({"url": server.url}, {})
    model = backend.models(found)[0]
    names = {knob.name for knob in backend.knobs(found, model)}
    assert names == {"cache_prompt", "n_cache_reuse"}
    with backend.attach(found, model, Config({"cache_prompt": False})) as session:
        list(session.generate(Request(prompt=HELLO, max_tokens=1)))
        session.reconfigure(Config({"cache_prompt": True}))
        more = Request(prompt=HELLO, max_tokens=1, config=Config({"n_cache_reuse": 64}))
        list(session.generate(more))
        assert session.effective() == Config()
    bodies = [json.loads(sent.partition(b"\r\n\r\n")[2]) for sent in server.requests[-2:]]
    assert [body["cache_prompt"] for body in bodies] == [False, True]
    assert [body.get("n_cache_reuse") for body in bodies] == [None, 64]
    assert backend.expected(found, model, Config({"cache_prompt": False})) == Config()


def test_what_no_request_can_change_is_refused(backend, serve, protocol):
    server = serve(*protocol.WHOLE, owner="vllm")
    (found,) = backend.probe({"url": server.url}, {})
    model = backend.models(found)[0]
    assert backend.knobs(found, model) == ()
    with pytest.raises(NeedsRestart, match="cache_prompt"):
        backend.attach(found, model, Config({"cache_prompt": False}))
    with backend.attach(found, model, Config()) as session, pytest.raises(NeedsRestart):
        list(session.generate(Request(prompt=HELLO, max_tokens=1, config=Config({"a": 1}))))
