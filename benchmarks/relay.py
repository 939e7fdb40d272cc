"""A relay that makes a server slower by a known part: python relay.py PORT STRETCH.

Prints the port of 127.0.0.1 that it listens on. Whatever the server at PORT sends arrives STRETCH
times as long after its request as it would have, the first token and every other one alike.
"""

from __future__ import annotations

import asyncio
import sys
import time

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
        answers: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def requests() -> None:
            nonlocal asked
            while chunk := await received(client):
                asked = time.perf_counter()
                to_server.write(chunk)
                await to_server.drain()
            to_server.close()

        async def arrivals() -> None:
            # Stamped as they arrive, whatever still waits to be sent on.
            while True:
                chunk = await received(server)
                waited = time.perf_counter() - asked
                answers.put_nowait((asked + self.stretch * waited, chunk))
                if not chunk:
                    return

        async def departures() -> None:
            while True:
                due, chunk = await answers.get()
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                if not chunk:
                    to_client.close()
                    return
                to_client.write(chunk)
                await to_client.drain()

        await asyncio.gather(requests(), arrivals(), departures(), return_exceptions=True)

    async def serve(self) -> None:
        listening = await asyncio.start_server(self.connection, "127.0.0.1", 0)
        print(listening.sockets[0].getsockname()[1], flush=True)
        async with listening:
            await listening.serve_forever()


async def received(source: asyncio.StreamReader) -> bytes:
    """The next bytes, none at the end, however it comes."""
    try:
        return await source.read(_CHUNK_BYTES)
    except ConnectionError:
        return b""


if __name__ == "__main__":
    asyncio.run(Relay(int(sys.argv[1]), float(sys.argv[2])).serve())
