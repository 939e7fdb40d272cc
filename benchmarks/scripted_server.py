"""A server that answers like llama-server, on a schedule that is known to the microsecond.

Run as a script it prints its port. The text of each event holds two moments on the machine's steady
clock: when its request was read, and when the event was handed to the socket, so that a client's
times can be held against them. Each event bears the timings that a real server adds to it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from contextlib import suppress

_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
)


# An event as llama-server writes it. Only numbers are put in, so that the schedule is kept.
_EVENT = (
    'data: {{"choices":[{{"finish_reason":null,"index":0,'
    '"delta":{{"content":"{read:.9f} {sent:.9f}"}}}}],'
    '"created":1763000000,"id":"chatcmpl-scripted-0123456789abcdef","model":"scripted",'
    '"system_fingerprint":"b0-scripted","object":"chat.completion.chunk","timings":{{"cache_n":0,'
    '"prompt_n":8,"prompt_ms":50.0,"prompt_per_token_ms":6.25,"prompt_per_second":160.0,'
    '"predicted_n":{number},"predicted_ms":1234.567,"predicted_per_token_ms":7.654321,'
    '"predicted_per_second":130.645}}}}\n\n'
)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _end(count: int, first_ms: float, predicted_ms: float) -> bytes:
    document = {
        "choices": [{"finish_reason": "length", "index": 0, "delta": {}}],
        "timings": {
            "cache_n": 0,
            "prompt_n": 8,
            "prompt_ms": first_ms,
            "predicted_n": count,
            "predicted_ms": predicted_ms,
        },
    }
    data = b"data: " + json.dumps(document).encode() + b"\n\ndata: [DONE]\n\n"
    return _chunk(data) + b"0\r\n\r\n"


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first_s: float, gap_s: float
) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    received = time.perf_counter()
    if not head.startswith("POST"):
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()
        return
    length = next(
        int(line.split(":")[1])
        for line in head.splitlines()
        if line.lower().startswith("content-length")
    )
    body = json.loads(await reader.readexactly(length))
    count = int(body["max_tokens"])
    writer.write(_HEAD)
    first = None
    for index in range(count):
        due = received + first_s + index * gap_s
        while (left := due - time.perf_counter()) > 0:
            await asyncio.sleep(left)
        sent = time.perf_counter()
        first = sent if first is None else first
        event = _EVENT.format(read=received, sent=sent, number=index + 1)
        writer.write(_chunk(event.encode()))
        # No drain: nothing may hold up the schedule.
    predicted_ms = (time.perf_counter() - (first or received)) * 1000
    writer.write(_end(count, first_s * 1000, predicted_ms))
    await writer.drain()
    writer.close()


async def main(first_ms: float, gap_ms: float) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):  # a client that has seen enough
            await _answer(reader, writer, first_ms / 1000, gap_ms / 1000)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    gc.disable()  # a collection would be taken for lateness
    asyncio.run(main(float(sys.argv[1]), float(sys.argv[2])))
