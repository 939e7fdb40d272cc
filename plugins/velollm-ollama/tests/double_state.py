"""What the double of Ollama knows: its models, those that are loaded, and their engines."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

RUNNER = {
    "num_ctx": 0,
    "num_batch": 512,
    "num_gpu": -1,
    "main_gpu": None,
    "use_mmap": None,
    "num_thread": 0,
    "draft_num_predict": 0,
}
LOAD_S = 0.01
OUT_OF_MEMORY = "model requires more system memory (9.1 GiB) than is available (2.0 GiB)"


def variable(name, default=""):
    return os.environ.get(name, "").strip().strip("\"'") or default


class RefusedError(Exception):
    def __init__(self, status, words):
        super().__init__(words)
        self.status = status


def pace(engine):
    """The factor on the time of a token; see ``double.py``."""
    words = "" if engine is None else " ".join(engine.args)
    planted = json.loads(variable("DOUBLE_PACE", "{}"))
    return math.prod(factor for part, factor in planted.items() if part in words)


class Loaded:
    """A model in memory, with the process that runs it."""

    def __init__(self, model, options, engine):
        self.model = model
        self.options = options
        self.engine = engine
        self.pace = pace(engine)
        self.slots = threading.Semaphore(int(variable("OLLAMA_NUM_PARALLEL", "1")))
        self.stays = duration(variable("OLLAMA_KEEP_ALIVE", "5m"))
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
        """As long as this request says, else as the last one did (useLoadedRunner in sched.go)."""
        if keep_alive is not None:
            held.stays = duration(keep_alive)
        held.expires = None if held.stays < 0 else time.time() + held.stays

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
        words += ["--context-shift", "--keep", "4"]
        # It ends with the server, also one that is killed: then its standard input ends.
        return subprocess.Popen([str(program), *map(str, words)], stdin=subprocess.PIPE)

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
