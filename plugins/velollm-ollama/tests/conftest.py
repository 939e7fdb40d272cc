from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
from velollm_ollama import settings
from velollm_ollama.api import Api
from velollm_ollama.backend import Ollama
from velollm_ollama.knobs import knobs

from velollm_core.config import problems
from velollm_core.errors import RequestError
from velollm_core.hardware.probe import Finished, Probe
from velollm_core.models.spec import Model, ModelSpec

PROGRAMS = {
    "ollama": f"""
import sys
if sys.argv[1:] == ["serve"]:
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    import double
    sys.exit(double.serve())
print("Warning: could not connect to a running Ollama instance")
print("Warning: client version is 0.33.0")
""",
    "llama-server": "import sys\nsys.stdin.read()\n",
}
"""By their names, what they do; see ``double.py``."""
CONTEXT = 8192
MODEL = Model(
    reference="llama3",
    served_name="llama3",
    spec=ModelSpec(
        architecture="llama",
        parameter_count=8_000_000_000,
        layers=32,
        embedding_length=4096,
        context_length=131072,
    ),
)


@pytest.fixture(scope="session")
def backend() -> Ollama:
    return Ollama()


@pytest.fixture(scope="session")
def program(tmp_path_factory) -> Path:
    """An executable called ``ollama`` that does as Ollama does, with its engine beside it."""
    if os.name != "posix":
        pytest.skip("scripts are executables on POSIX only")
    folder = tmp_path_factory.mktemp("bin")
    for name, body in PROGRAMS.items():
        path = folder / name
        path.write_text(f"#!{sys.executable} -SE\n{body}", encoding="utf-8")
        path.chmod(0o755)
    return folder / "ollama"


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> bytes:
    """A whole model of a few kilobytes."""
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_tensor("token_embd.weight", np.zeros((8, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


@pytest.fixture(scope="session")
def put_model(weights) -> Callable[..., Path]:
    """Puts a model into a folder as Ollama does: ``put_model(folder, "library/small:latest")``.

    ``config`` is laid over that of the model, ``parameters`` are its own; ``content`` is its file.
    """

    def put(
        folder: Path,
        name: str = "library/small:latest",
        *,
        host: str = "registry.ollama.ai",
        content: bytes | None = None,
        config: dict[str, object] | None = None,
        parameters: dict[str, object] | None = None,
    ) -> Path:
        known = {"model_format": "gguf", "model_family": "llama", "context_length": CONTEXT}
        layers = [_blob(folder, weights if content is None else content, "model")]
        if parameters:
            layers.append(_blob(folder, json.dumps(parameters).encode(), "params"))
        kept = {
            "schemaVersion": 2,
            "config": _blob(folder, json.dumps(known | (config or {})).encode(), "config"),
            "layers": layers,
        }
        path = folder / "manifests" / host / name.replace(":", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(kept), encoding="utf-8")
        return path

    return put


def _blob(folder: Path, content: bytes, kind: str) -> dict[str, object]:
    digest = hashlib.sha256(content).hexdigest()
    path = folder / "blobs" / f"sha256-{digest}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    media = f"application/vnd.ollama.image.{kind}"
    return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(content)}


@pytest.fixture(scope="session")
def models_folder(put_model, tmp_path_factory) -> Path:
    """What somebody has pulled: ``small:latest`` and, the day before, ``other/one:q4``."""
    folder = tmp_path_factory.mktemp("models")
    put_model(folder)
    older = put_model(folder, "other/one:q4", parameters={"num_ctx": 2048, "stop": ["</s>"]})
    os.utime(older, (1, 1))
    return folder


@pytest.fixture(scope="module")
def double(program, models_folder) -> Iterator[Callable[..., SimpleNamespace]]:
    """Starts a server as a user would: ``double(fault="busy", OLLAMA_NUM_PARALLEL="2")``.

    What it gives has the ``url``, the ``environ`` in which it is found, the ``process``, its
    ``requests()`` until now, and ``show(fault)`` for another fault.
    """
    started = []

    def start(fault: str = "", models: Path = models_folder, **variables: str) -> SimpleNamespace:
        from velollm_ollama.launch import _free_port

        address = f"127.0.0.1:{_free_port()}"
        environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("OLLAMA_", "LLAMA_"))},
            "OLLAMA_MODELS": str(models),
            "OLLAMA_HOST": address,
            "OLLAMA_NOPRUNE": "1",
            **variables,
        }
        process = subprocess.Popen(
            [program, "serve"],
            env=environ | {"DOUBLE_FAULT": fault},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        started.append(process)
        api = Api(f"http://{address}")
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                api.version()
                break
            except RequestError:
                time.sleep(0.01)
        return SimpleNamespace(
            url=f"http://{address}",
            environ=environ | {"PATH": ""},
            process=process,
            requests=lambda: api.client.get("/double")["requests"],
            show=lambda name: api.client.post("/double", {"fault": name}),
        )

    yield start
    for process in started:
        process.terminate()
        process.wait()


class Machine:
    """A computer made of files below ``root`` and of what its ``tools`` answer."""

    def __init__(self, root):
        self.root = root
        self.system = "Linux"
        self.environ = {"HOME": "/home/somebody"}
        self.tools = {}
        self.asked = []
        self.gpus = ()
        self.parameters = ""
        self.model = MODEL

    def plant(self, path, text):
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text.encode())

    def runs(self, pid, **variables):
        self.plant(f"/proc/{pid}/environ", "".join(f"{k}={v}\0" for k, v in variables.items()))

    def execute(self, argv, timeout_s, environ):
        self.asked.append(tuple(argv))
        if argv[0] not in self.tools:
            raise FileNotFoundError(argv[0])
        return Finished(0, self.tools[argv[0]](*argv[1:]))

    @property
    def probe(self):
        return Probe(root=self.root, system=self.system, environ=self.environ, execute=self.execute)

    def current(self, installation, pid=None):
        told = settings.current(
            installation,
            self.model,
            self.environ,
            self.gpus,
            self.parameters,
            probe=self.probe,
            pid=pid,
        )
        assert problems(knobs(installation, self.model), told.config) == ()
        assert set(told.config) <= set(told.origins)
        return told

    @staticmethod
    def left_out(told):
        return {entry.name: (entry.origin, entry.reason) for entry in told.left_out}


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path / "machine")
