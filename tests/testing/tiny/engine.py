"""A real inference server that infers nothing: its answers follow from the prompt alone.

    python engine.py MODEL --burst 1

It reads a model file that has to begin with ``tiny model``, says its address, and streams answers
whose tokens are pieces of three letters, ``burst`` of them an event. The last text comes together
with the end, as many servers have it.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import random
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PROMPT_MS = 40
TOKEN_MS = 2
FAR = 60
FAR_TOKEN_MS = 10
WORDS = ("river", "stone", "lantern", "harbour", "winter", "quietly", "orchard", "remember")


def tokens_of(text):
    """Pieces of three characters; spaces and punctuation are characters too."""
    return [text[at : at + 3] for at in range(0, len(text), 3)]


def answer_to(prompt):
    """Tokens without an end, the same for the same prompt."""
    draw = random.Random(hashlib.sha256(prompt.encode()).hexdigest())
    yield from tokens_of(f"{prompt.split()[0] if prompt.split() else 'nothing'}! ")
    while True:
        yield from tokens_of(f"{draw.choice(WORDS)} ")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/quit":
            os._exit(0)
        with self.server.lock:
            counted = self.server.counted
        known = {
            "/health": {"status": "ok"},
            "/props": {"burst": self.server.burst},
            "/counters": {"tokens_total": counted},
        }
        self.send_json(known.get(self.path))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            self.send_json([int.from_bytes(piece.encode()) for piece in tokens_of(body["text"])])
        elif self.path == "/whole":
            self.send_json({"text": "".join(self.tokens(body))})
        else:
            self.stream(body)

    def tokens(self, body):
        return list(itertools.islice(answer_to(body["prompt"]), body["most"]))

    def stream(self, body):
        time.sleep(self.server.prompt_ms / 1000)
        started = time.perf_counter()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        tokens, burst, done = self.tokens(body), self.server.burst, 0
        while done < len(tokens):
            piece = tokens[done : done + burst]
            for index in range(done, done + len(piece)):
                time.sleep((TOKEN_MS if index < FAR else FAR_TOKEN_MS) / 1000)
            done += len(piece)
            with self.server.lock:
                self.server.counted += len(piece)
            event = {"text": "".join(piece), "tokens": len(piece)}
            if done == len(tokens):
                event |= {
                    "stop": "length",
                    "prompt_tokens": len(tokens_of(body["prompt"])),
                    "output_tokens": done,
                    "prompt_ms": self.server.prompt_ms,
                    "predicted_ms": (time.perf_counter() - started) * 1000,
                }
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            self.wfile.flush()
        self.close_connection = True

    def send_json(self, value):
        data = json.dumps(value).encode()
        self.send_response(200 if value is not None else 404)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that goes away in the middle is no event."""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--burst", type=int, default=1)
    parser.add_argument("--prompt-ms", type=int, default=PROMPT_MS)
    options = parser.parse_args()
    if not options.model.read_text(encoding="utf-8").startswith("tiny model"):
        sys.exit(f"{options.model.name} is no tiny model: it begins with other words")
    server = Server(("127.0.0.1", 0), Handler)
    server.burst, server.prompt_ms = options.burst, options.prompt_ms
    server.counted, server.lock = 0, threading.Lock()
    sys.stdout.write(f"listening on http://127.0.0.1:{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
