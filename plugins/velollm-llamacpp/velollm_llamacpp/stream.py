"""An answer of llama.cpp's server as events: bodies of requests, and what the chunks mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import orjson
from attrs import frozen

from velollm_core.backends.contract import Event, Finish, Message, Request, ServerTimings
from velollm_core.backends.http import HttpClient
from velollm_core.errors import FailureKind, RequestError

_CUT = "The server died or was stopped."
_REASONS: Mapping[str, Literal["stop", "length"]] = {
    "stop": "stop",
    "eos": "stop",
    "word": "stop",
    "length": "length",
    "limit": "length",
}


@frozen
class Call:
    """Where a request goes and what is posted. ``chat`` tells the form of the answer's chunks."""

    path: str
    body: Mapping[str, Any]
    chat: bool


def call_for(request: Request, fields: Mapping[str, Any], model: str | None) -> Call:
    """The HTTP call of ``request``: messages go through the chat template, the rest is raw.

    Args:
        request: what to generate.
        fields: per-request settings, by the server's names.
        model: the name of the model to use where a server has several.
    """
    body: dict[str, Any] = {
        "stream": True,
        "temperature": request.sampling.temperature,
        "seed": request.sampling.seed,
        **{key: value for key, value in _optional(request) if value is not None},
        **fields,
    }
    if model is not None:
        body["model"] = model
    prompt = request.prompt
    if isinstance(prompt, tuple) and prompt and isinstance(prompt[0], Message):
        body["messages"] = [
            {"role": turn.role, "content": turn.content}
            for turn in prompt
            if isinstance(turn, Message)
        ]
        # Chat chunks carry no number of tokens, save in their timings.
        body |= {"max_tokens": request.max_tokens, "timings_per_token": True}
        if request.top_logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        return Call("/v1/chat/completions", body, chat=True)
    body["prompt"] = prompt if isinstance(prompt, str) else list(prompt)
    body |= {"n_predict": request.max_tokens, "return_tokens": True}
    if request.top_logprobs is not None:
        body["n_probs"] = request.top_logprobs
    return Call("/completion", body, chat=False)


def _optional(request: Request) -> tuple[tuple[str, float | None], ...]:
    return ("top_k", request.sampling.top_k), ("top_p", request.sampling.top_p)


def decode(
    payloads: Iterator[tuple[float, bytes]], client: HttpClient, *, chat: bool
) -> Iterator[Event | Finish]:
    """Events of one answer, and its end.

    Tokens that bring no text of their own, such as the first bytes of a character, are counted with
    the next event that does.

    Args:
        payloads: milliseconds and data of the events of a stream.
        client: what they came through.
        chat: whether they are chat chunks.

    Raises:
        RequestError: the server reported an error, or the answer is not whole.
    """
    counted = 0
    end: dict[str, Any] | None = None
    reason = ""
    at_ms = 0.0
    for arrival_ms, payload in payloads:
        if payload == b"[DONE]":
            break
        at_ms = arrival_ms
        data = _parsed(payload, client)
        chunk = _chat_chunk(data) if chat else _completion_chunk(data)
        if chunk.text:
            new = None if chunk.total is None else chunk.total - counted
            counted = counted if chunk.total is None else chunk.total
            yield Event(
                at_ms=at_ms,
                text=chunk.text,
                tokens=new,
                token_ids=chunk.token_ids,
                logprobs=chunk.logprobs,
            )
        reason = chunk.reason or reason
        if reason and "timings" in data:
            end = data
    if not reason:
        raise RequestError(f"{client.url} ended an answer before its end.", _CUT)
    yield _finish(at_ms, reason, end or {})


def _parsed(payload: bytes, client: HttpClient) -> dict[str, Any]:
    try:
        data = orjson.loads(payload)
    except ValueError as error:
        raise RequestError(f"{client.url} stopped in the middle of a line.", _CUT) from error
    if not isinstance(data, dict):
        raise RequestError(
            f"{client.url} sent an event that is no object: {client.quoted(payload, 80)!r}."
        )
    if "error" in data:
        fault = data["error"]
        said = fault.get("message", fault) if isinstance(fault, dict) else fault
        raise RequestError(
            f"{client.url} gave up an answer: {client.quoted(str(said))}.", "", FailureKind.REFUSED
        )
    return data


class _Chunk(NamedTuple):  # made for every event: a tuple costs a third of a class
    text: str
    total: int | None  # tokens of the answer until now
    reason: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()


def _chat_chunk(data: dict[str, Any]) -> _Chunk:
    choices = data.get("choices") or [{}]
    choice = choices[0]
    delta = choice.get("delta") or {}
    told = (choice.get("logprobs") or {}).get("content") or ()
    return _Chunk(
        (delta.get("reasoning_content") or "") + (delta.get("content") or ""),
        (data.get("timings") or {}).get("predicted_n"),
        choice.get("finish_reason") or "",
        tuple(entry["id"] for entry in told if "id" in entry) if told else (),
        tuple(entry["logprob"] for entry in told if "logprob" in entry) if told else (),
    )


def _completion_chunk(data: dict[str, Any]) -> _Chunk:
    told = data.get("completion_probabilities") or ()
    return _Chunk(
        data.get("content") or "",
        data.get("tokens_predicted"),
        (data.get("stop_type") or "unknown") if data.get("stop") else "",
        tuple(data.get("tokens") or ()),
        tuple(entry["logprob"] for entry in told if "logprob" in entry),
    )


def _finish(at_ms: float, reason: str, end: dict[str, Any]) -> Finish:
    timings = end.get("timings") or {}
    evaluated, cached = timings.get("prompt_n"), timings.get("cache_n")
    return Finish(
        at_ms=at_ms,
        reason=_REASONS.get(reason, "unknown"),
        prompt_tokens=None if evaluated is None else evaluated + (cached or 0),
        cached_tokens=cached,
        output_tokens=timings.get("predicted_n"),
        timings=ServerTimings(
            prompt_ms=timings["prompt_ms"],
            predicted_ms=timings["predicted_ms"],
            prompt_per_second=timings.get("prompt_per_second"),
            predicted_per_second=timings.get("predicted_per_second"),
        )
        if "prompt_ms" in timings and "predicted_ms" in timings
        else None,
        drafted_tokens=timings.get("draft_n"),
        accepted_tokens=timings.get("draft_n_accepted"),
    )
