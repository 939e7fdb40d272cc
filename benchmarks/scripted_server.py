"""A server that answers like llama-server, on a schedule that is known to the microsecond.

Run as a script it prints its port. Each answer's text holds the moment, on the machine's steady clock, at which
it was handed to the socket, so that a client's time of arrival can be held against it. Every answer ends
with the timings that a real server would give.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
)


def _chunk(document: object) -> bytes:
    data = b"data: " + json.dumps(document).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


def _event(stamp: float) -> dict[str, object]:
    return {
        "choices": [{"finish_reason": None, "index": 0, "delta": {"content": f"{stamp:.9f} "}}],
        "created": 1763000000,
        "id": "chatcmpl-scripted-0123456789abcdef",
        "model": "scripted",
        "system_fingerprint": "b0-scripted",
        "object": "chat.completion.chunk",
    }


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first_s: float, gap_s: float
) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    received = time.perf_counter()
    length = next(
        int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-length")
    )
    body = json.loads(await reader.readexactly(length))
    count = int(body["max_tokens"])
    writer.write(_HEAD)
    first = None
    for index in range(count):
        due = received + first_s + index * gap_s
        while (left := due - time.perf_counter()) > 0:
            await asyncio.sleep(left)
        stamp = time.perf_counter()
        first = stamp if first is None else first
        writer.write(_chunk(_event(stamp)))
        # No drain: nothing may hold up the schedule.
    elapsed_ms = (time.perf_counter() - (first or received)) * 1000
    end = _event(0.0)
    end["choices"] = [{"finish_reason": "length", "index": 0, "delta": {}}]
    end["timings"] = {
        "cache_n": 0,
        "prompt_n": 8,
        "prompt_ms": first_s * 1000,
        "predicted_n": count,
        "predicted_ms": elapsed_ms,
        "predicted_per_second": (count - 1) / elapsed_ms * 1000,
    }
    writer.write(_chunk(end))
    writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
    await writer.drain()
    writer.close()


async def main(first_ms: float, gap_ms: float) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _answer(reader, writer, first_ms / 1000, gap_ms / 1000)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), float(sys.argv[2])))
