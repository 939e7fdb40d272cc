"""A double of Ollama: what the program ``ollama`` of the tests does when it is to ``serve``.

It does what Ollama's documentation and source say of the API, its environment and its engine; only
its texts are made up. A model that is loaded has a process below the server, the ``llama-server``
that lies beside the program, with the arguments that Ollama would give. Standard library only, as
it starts often.

A fault is chosen by the variable ``DOUBLE_FAULT`` or by POST to ``/double``, ``{"fault": NAME}``:
``busy``, ``load``, ``memory``, ``slow``, ``truncated``, ``hang``, ``error``, ``runner``,
``death``, ``unended``, ``cached``; and of a start ``unhealthy``, ``broken``. GET of ``/double``
tells which requests came.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

VERSION = "0.33.0"
WORDS = ["the", "of", "river", "dog", "and", "seven", "days", "ångström", "🐕", "harbour", "met"]
RUNNER = {
    "num_ctx": 0,
    "num_batch": 512,
    "num_gpu": -1,
    "main_gpu": None,
    "use_mmap": None,
    "num_thread": 0,
    "draft_num_predict": 0,
}
TOKEN_S = 0.001
LOAD_S = 0.01
SLOW_S = 30.0
RUNNER_DIED = "model runner has unexpectedly stopped, this may be due to resource limitations"
OUT_OF_MEMORY = "model requires more system memory (9.1 GiB) than is available (2.0 GiB)"


def say(words):
    sys.stderr.write(f"{words}\n")
    sys.stderr.flush()


def variable(name, default=""):
    return os.environ.get(name, "").strip().strip("\"'") or default


class RefusedError(Exception):
    def __init__(self, status, words):
        super().__init__(words)
        self.status = status


class Loaded:
    """A model in memory, with the process that runs it."""

    def __init__(self, model, options, engine):
        self.model = model
        self.options = options
        self.engine = engine
        self.slots = threading.Semaphore(int(variable("OLLAMA_NUM_PARALLEL", "1")))
        self.expires = None

    def stop(self):
        if self.engine is not None:
            self.engine.kill()
            self.engine.wait()


class Ollama:
    """What the server knows: its models by name, those that are loaded, and the fault to show."""

    def __init__(self):
        self.folder = Path(variable("OLLAMA_MODELS", Path.home() / ".ollama" / "models"))
        self.fault = variable("DOUBLE_FAULT")
        self.requests = []
        self.loaded = {}
        self.waiting = 0
        self.lock = threading.RLock()
        if variable("OLLAMA_NOPRUNE") not in {"1", "true"}:
            self.prune()

    def manifests(self):
        for path in sorted(self.folder.glob("manifests/*/*/*/*")):
            raw = path.read_bytes()
            host, namespace, model, tag = path.parts[-4:]
            name = f"{model}:{tag}" if namespace == "library" else f"{namespace}/{model}:{tag}"
            name = name if host == "registry.ollama.ai" else f"{host}/{namespace}/{model}:{tag}"
            layers = json.loads(raw)
            yield {
                "name": name,
                "layers": layers["layers"],
                "config": json.loads(self.blob(layers["config"]["digest"]).read_bytes()),
                "digest": hashlib.sha256(raw).hexdigest(),
                "modified": path.stat().st_mtime,
            }

    def blob(self, digest):
        return self.folder / "blobs" / digest.replace(":", "-")

    def prune(self):
        used = {layer["digest"] for model in self.manifests() for layer in model["layers"]}
        used |= {
            json.loads(path.read_bytes())["config"]["digest"]
            for path in self.folder.glob("manifests/*/*/*/*")
        }
        for path in self.folder.glob("blobs/sha256-*"):
            if path.name.replace("-", ":", 1) not in used:
                path.unlink()

    def find(self, name):
        if not isinstance(name, str) or not re.fullmatch(r"[\w][\w./:-]*", name):
            raise RefusedError(400, "invalid model name")
        wanted = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
        for model in self.manifests():
            if model["name"].lower() == wanted.lower():
                return model
        raise RefusedError(404, f"model '{name}' not found")

    def layer(self, model, kind):
        found = [x for x in model["layers"] if x["mediaType"].endswith(f".image.{kind}")]
        return self.blob(found[0]["digest"]) if found else None

    def parameters(self, model):
        path = self.layer(model, "params")
        return json.loads(path.read_bytes()) if path else {}

    def options(self, model, asked):
        default = int(variable("OLLAMA_CONTEXT_LENGTH", "4096")) or 4096
        given = {**self.parameters(model), **(asked or {})}
        for name, value in given.items():
            if name in {"num_ctx", "num_batch", "num_gpu", "num_thread"} and type(value) is not int:
                raise RefusedError(500, f'option "{name}" must be of type integer')
        options = {name: given.get(name, usual) for name, usual in RUNNER.items()}
        options["num_ctx"] = max(4, options["num_ctx"] or default)
        options["num_ctx"] = min(options["num_ctx"], model["config"].get("context_length", 4096))
        return options, given

    def load(self, model, options, keep_alive):
        """The model, loaded anew if it is not there with these options."""
        if self.fault == "load":
            raise RefusedError(500, "llama-server process has terminated: error loading model")
        if self.fault == "memory":
            raise RefusedError(500, OUT_OF_MEMORY)
        with self.lock:
            held = self.loaded.get(model["name"])
            if held is None or held.options != options:
                if held is not None:
                    held.stop()
                time.sleep(LOAD_S)
                held = Loaded(model, options, self.engine(model, options))
                self.loaded[model["name"]] = held
            self.keep(held, keep_alive)
            return held

    def keep(self, held, keep_alive):
        seconds = duration(
            variable("OLLAMA_KEEP_ALIVE", "5m") if keep_alive is None else keep_alive
        )
        held.expires = None if seconds < 0 else time.time() + seconds

    def engine(self, model, options):
        program = Path(sys.argv[0]).with_name("llama-server")
        weights = self.layer(model, "model")
        if weights is None or not program.exists():
            return None
        slots = variable("OLLAMA_NUM_PARALLEL", "1")
        words = [
            "--model",
            weights,
            "--port",
            "0",
            "--host",
            "127.0.0.1",
            "--no-webui",
            "--offline",
        ]
        words += ["-c", options["num_ctx"] * int(slots), "-np", slots, "--log-verbosity", "4"]
        if options["use_mmap"] is not True:  # on a processor Ollama switches it off by itself
            words += ["--load-mode", "none"]
        kind = variable("OLLAMA_KV_CACHE_TYPE")
        if kind:
            words += ["--cache-type-k", kind, "--cache-type-v", kind]
        flash = variable("OLLAMA_FLASH_ATTENTION")
        words += ["--flash-attn", {"": "auto", "0": "off", "false": "off"}.get(flash, "on")]
        words += ["-b", options["num_batch"], "-ub", options["num_batch"]]
        if options["num_gpu"] >= 0:
            words += ["-ngl", options["num_gpu"]]
        if options["num_thread"] > 0:
            words += ["-t", options["num_thread"]]
        if options["main_gpu"] is not None:
            words += ["--split-mode", "none", "--main-gpu", options["main_gpu"]]
        return subprocess.Popen([str(program), *map(str, words), "--context-shift", "--keep", "4"])

    def running(self):
        with self.lock:
            for name, held in list(self.loaded.items()):
                if held.expires is not None and held.expires <= time.time():
                    held.stop()
                    del self.loaded[name]
            return list(self.loaded.values())

    def stop(self, *_):
        for held in self.loaded.values():
            held.stop()
        os._exit(0)


def duration(value):
    """Seconds of ``5m``, ``1h30m``, ``-1`` or a number."""
    if isinstance(value, int | float):
        return value
    parts = re.findall(r"([\d.]+)([hms])", value)
    unit = {"h": 3600, "m": 60, "s": 1}
    total = sum(float(number) * unit[kind] for number, kind in parts) if parts else float(value)
    return -total if parts and value.startswith("-") else total


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    @property
    def ollama(self):
        return self.server.ollama

    def do_GET(self):
        routes = {
            "/api/version": lambda: {"version": VERSION},
            "/api/tags": self.tags,
            "/api/ps": self.ps,
            "/double": lambda: {"requests": self.ollama.requests},
        }
        self.answer(lambda: self.send(routes[self.path]()))

    def do_POST(self):
        raw = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.answer(lambda: self.post(json.loads(raw)))

    def answer(self, act):
        try:
            act()
        except RefusedError as refusal:
            self.send({"error": str(refusal)}, refusal.status)
        except KeyError:
            self.send("404 page not found", 404)
        except ValueError as error:
            self.send({"error": str(error)}, 400)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def send(self, data, status=200):
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def post(self, body):
        if self.path == "/double":
            self.ollama.fault = body["fault"]
            self.send({})
            return
        self.ollama.requests.append([self.path, body])
        routes = {
            "/api/show": self.show,
            "/api/generate": self.generate,
            "/api/chat": self.generate,
            "/api/pull": self.pull,
        }
        routes[self.path](body)

    def tags(self):
        listed = sorted(self.ollama.manifests(), key=lambda model: -model["modified"])
        return {"models": [self.listed(model) for model in listed]}

    def listed(self, model):
        config = model["config"]
        return {
            "name": model["name"],
            "model": model["name"],
            "digest": model["digest"],
            "size": sum(layer["size"] for layer in model["layers"]),
            "modified_at": datetime.fromtimestamp(model["modified"], UTC).isoformat(),
            "details": {"format": "gguf", "family": config.get("model_family", "llama")},
            "capabilities": config.get("capabilities", ["completion"]),
            **({"remote_host": config["remote_host"]} if "remote_host" in config else {}),
        }

    def ps(self):
        return {
            "models": [
                {
                    **{k: v for k, v in self.listed(held.model).items() if k != "modified_at"},
                    "size_vram": 0,
                    "expires_at": (
                        datetime.now(UTC) + timedelta(days=36500)
                        if held.expires is None
                        else datetime.fromtimestamp(held.expires, UTC)
                    ).isoformat(),
                    "context_length": held.options["num_ctx"],
                }
                for held in self.ollama.running()
            ]
        }

    def show(self, body):
        model = self.ollama.find(body["model"])
        parameters = self.ollama.parameters(model)
        weights = self.ollama.layer(model, "model")
        self.send(
            {
                "modelfile": f'# Modelfile generated by "ollama show"\n# FROM {model["name"]}\n\n'
                f"FROM {weights}\n",
                "parameters": "\n".join(f"{k:<30} {json.dumps(v)}" for k, v in parameters.items()),
                "model_info": {"general.architecture": "llama"},
                "capabilities": ["completion"],
            }
        )

    def pull(self, body):
        self.begin()
        self.line({"status": "pulling manifest"})
        if "nowhere" in body["model"]:
            self.line({"error": "pull model manifest: file does not exist"})
        else:
            for done in (0, 50, 100):
                step = {"status": "pulling abc", "digest": "sha256:abc", "total": 100}
                self.line(step | ({"completed": done} if done else {}))
            if self.ollama.fault != "truncated":
                self.line({"status": "success"})
        self.end()

    def generate(self, body):
        ollama, began = self.ollama, time.perf_counter()
        model = ollama.find(body.get("model"))
        said = body.get("prompt", "") if self.path == "/api/generate" else body.get("messages", [])
        if not said and body.get("keep_alive") == 0:
            held = ollama.loaded.pop(model["name"], None)
            if held is not None:
                held.stop()
            self.send({"model": body["model"], "done": True, "done_reason": "unload"})
            return
        with ollama.lock:
            busy = ollama.waiting > int(variable("OLLAMA_MAX_QUEUE", "512"))
            ollama.waiting += 1
        try:
            if busy or ollama.fault == "busy":
                words = "server busy, please try again.  maximum pending requests exceeded"
                raise RefusedError(503, words)
            options, given = ollama.options(model, body.get("options"))
            held = ollama.load(model, options, body.get("keep_alive"))
            if not said:
                self.send({"model": body["model"], "done": True, "done_reason": "load"})
                return
            with held.slots:
                self.complete(body, said, held, given, began)
        finally:
            with ollama.lock:
                ollama.waiting -= 1

    def complete(self, body, said, held, given, began):
        ollama, fault = self.ollama, self.ollama.fault
        loaded = time.perf_counter()
        text = said if isinstance(said, str) else "\n".join(turn["content"] for turn in said)
        draw = random.Random(text if not given.get("temperature") else f"{text}{given.get('seed')}")
        prompt_tokens = min(len(text.split()) + 1, held.options["num_ctx"])
        most = given.get("num_predict", -1)
        count = 3 if "Say: yes" in text else 10**9
        if most < 0:
            most = 10 * held.options["num_ctx"]
        if fault == "slow":
            self.wait_for_nothing()
            return
        time.sleep(TOKEN_S)
        first = time.perf_counter()
        stream = body.get("stream", True)
        if stream:
            self.begin()
        words = []
        for number in range(min(count, most)):
            if number == 3 and fault in {
                "error",
                "runner",
                "death",
                "truncated",
                "unended",
                "hang",
            }:
                self.break_off(fault)
                return
            word = (" " if words else "") + draw.choice(WORDS)
            words.append(word)
            if stream:
                self.line(self.chunk(body, word, done=False))
            time.sleep(TOKEN_S)
        ended = time.perf_counter()
        final = {
            **self.chunk(body, "" if stream else "".join(words), done=True),
            "done_reason": "stop" if count <= most else "length",
            "total_duration": nanoseconds(began, ended),
            "load_duration": nanoseconds(began, loaded),
            "prompt_eval_count": prompt_tokens,
            "prompt_eval_duration": nanoseconds(loaded, first),
            "eval_count": len(words),
            "eval_duration": nanoseconds(first, ended),
        }
        if fault == "cached":
            del final["prompt_eval_count"], final["prompt_eval_duration"]
        ollama.keep(held, body.get("keep_alive"))
        if stream:
            self.line(final)
            self.end()
        else:
            self.send(final)

    def chunk(self, body, text, *, done):
        chat = self.path == "/api/chat"
        part = {"message": {"role": "assistant", "content": text}} if chat else {"response": text}
        told = {}
        if body.get("logprobs") and text:
            told = {"logprobs": [{"token": text, "logprob": -0.5, "top_logprobs": []}]}
        stamp = datetime.now(UTC).isoformat()
        return {"model": body["model"], "created_at": stamp, **part, "done": done, **told}

    def break_off(self, fault):
        if fault == "error":
            self.line({"error": "an error was encountered while running the model: boom"})
            self.end()
        elif fault == "runner":
            self.line({"error": RUNNER_DIED})
            self.end()
        elif fault == "unended":
            self.end()
        elif fault == "truncated":
            self.piece(b'{"model":"m","response":" ha')
            self.end()
        elif fault == "hang":
            self.wait_for_nothing()
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    def wait_for_nothing(self):
        """Until the client is tired of it."""
        select.select([self.connection], [], [], SLOW_S)
        self.close_connection = True

    def begin(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def line(self, data):
        self.piece(json.dumps(data).encode() + b"\n")

    def piece(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def end(self):
        self.wfile.write(b"0\r\n\r\n")


def nanoseconds(start, end):
    return round((end - start) * 1e9)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True


def serve():
    if variable("DOUBLE_FAULT") == "broken":
        say("Error: could not create the key pair")
        return 1
    if variable("DOUBLE_FAULT") == "unhealthy":
        say("time=now level=INFO msg=starting")
        time.sleep(SLOW_S)
    host, _, port = variable("OLLAMA_HOST", "127.0.0.1:11434").rpartition(":")
    limit = duration(variable("OLLAMA_LOAD_TIMEOUT", "5m"))
    told = {
        "OLLAMA_GPU_OVERHEAD": variable("OLLAMA_GPU_OVERHEAD", "0"),
        "OLLAMA_LOAD_TIMEOUT": f"{limit:g}s" if limit > 0 else "2562047h47m16.854775807s",
        "OLLAMA_MAX_LOADED_MODELS": variable("OLLAMA_MAX_LOADED_MODELS", "0"),
        "OLLAMA_MAX_QUEUE": variable("OLLAMA_MAX_QUEUE", "512"),
        "OLLAMA_MODELS": variable("OLLAMA_MODELS"),
        "OLLAMA_ORIGINS": "[http://localhost https://localhost]",
        "OLLAMA_SCHED_SPREAD": str(variable("OLLAMA_SCHED_SPREAD") in {"1", "true"}).lower(),
    }
    try:
        server = Server((host, int(port)), Handler)
    except OSError:
        words = f"Error: listen tcp {host}:{port}: bind: address already in use"
        say(words)
        return 1
    shown = " ".join(f"{name}:{value}" for name, value in told.items())
    say(f'time=now level=INFO source=routes.go:1 msg="server config" env="map[{shown}]"')
    say(f'time=now level=INFO msg="Listening on {host}:{port} (version {VERSION})"')
    server.ollama = Ollama()
    signal.signal(signal.SIGTERM, server.ollama.stop)
    server.serve_forever()
    return 0
