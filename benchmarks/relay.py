"""A relay that makes a server slower by a known part: python relay.py PORT STRETCH.

Prints the port of 127.0.0.1 that it listens on. Whatever the server at PORT sends arrives STRETCH
times as long after its request as it would have, the first token and every other one alike.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

_CHUNK_BYTES = 65536


class Relay:
    def __init__(self, port: int, stretch: float) -> None:
        self.port = port
        self.stretch = stretch

    async def connection(
        self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        server, to_server = await asyncio.open_connection("127.0.0.1", self.port)
        asked = time.perf_counter()

        async def ask(chunk: bytes) -> None:
            nonlocal asked
            asked = time.perf_counter()
            to_server.write(chunk)
            await to_server.drain()

        async def answer(chunk: bytes) -> None:
            due = asked + self.stretch * (time.perf_counter() - asked)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            to_client.write(chunk)
            await to_client.drain()

        await asyncio.gather(pump(client, ask), pump(server, answer, to_client, to_server))
        to_client.close()

    async def serve(self) -> None:
        listening = await asyncio.start_server(self.connection, "127.0.0.1", 0)
        print(listening.sockets[0].getsockname()[1], flush=True)
        async with listening:
            await listening.serve_forever()


async def pump(
    source: asyncio.StreamReader,
    sink: Callable[[bytes], Awaitable[None]],
    *ended: asyncio.StreamWriter,
) -> None:
    """Hand every chunk to ``sink``; close ``ended`` when the source is at its end."""
    try:
        while chunk := await source.read(_CHUNK_BYTES):
            await sink(chunk)
    except ConnectionError:
        pass
    for writer in ended:
        writer.close()


if __name__ == "__main__":
    asyncio.run(Relay(int(sys.argv[1]), float(sys.argv[2])).serve())
