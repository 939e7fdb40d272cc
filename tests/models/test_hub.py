"""Files on the Hugging Face hub: the real library, in a process of its own, against a local server.

The library reads its settings when it is imported; hence the process.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import pytest

from velollm_core.errors import ModelError, UsageError
from velollm_core.models.hub import HubSource

FETCH = """
import json, os, sys
from velollm_core.errors import VeloError
from velollm_core.models.hub import HubSource
from velollm_core.models.references import resolve
steps = []
note = lambda *step: steps.append(step)
try:
    model = resolve(sys.argv[1], [HubSource()], progress=note, environ=os.environ)
    print(json.dumps([str(model.path), model.spec.split_count, steps]))
except VeloError as error:
    print(json.dumps([type(error).__name__, error.message, error.hint]))
"""


@pytest.fixture
def hub(httpserver, tmp_path):
    """``hub(reference)`` resolves in a hub that ``hub.hold(name, path)`` has put files into."""

    def ask(reference):
        environ = {
            **os.environ,
            "HF_ENDPOINT": httpserver.url_for("").rstrip("/"),
            "HF_HOME": str(tmp_path / "home"),
        }
        done = subprocess.run(
            [sys.executable, "-c", FETCH, reference],
            env=environ,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        assert "Traceback" not in done.stderr
        return json.loads(done.stdout)

    def hold(name, path):
        content = path.read_bytes()
        marks = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": "a" * 40}
        address = f"/owner/repo/resolve/main/{name}"
        httpserver.expect_request(address).respond_with_data(content, headers=marks)

    def asked():
        return {request.path for request, _ in httpserver.log if "/resolve/" in request.path}

    def lack(name):
        httpserver.expect_request(f"/owner/repo/resolve/main/{name}").respond_with_data(
            status=404, headers={"X-Error-Code": "EntryNotFound"}
        )

    ask.hold, ask.lack, ask.asked = hold, lack, asked
    return ask


def test_one_file_is_fetched_and_nothing_else(hub, write_model):
    model = write_model("tiny.gguf")
    hub.hold("folder/tiny.gguf", model)
    path, split_count, steps = hub("hf:owner/repo/folder/tiny.gguf")
    assert path.endswith("tiny.gguf")
    assert split_count == 1
    size = model.stat().st_size
    assert steps[-1] == [size, size, "fetching tiny.gguf"]
    assert hub.asked() == {"/owner/repo/resolve/main/folder/tiny.gguf"}


def test_of_a_split_model_every_part_is_fetched(hub, write_model, tmp_path):
    write_model("m.gguf", tensors={"a": (32,), "b": (32,)}, split_max_tensors=1)
    names = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    for name in names:
        hub.hold(name, tmp_path / name)
    path, split_count, _ = hub(f"hf:owner/repo/{names[1]}")
    assert path.endswith(names[0])
    assert split_count == 2


def test_a_file_that_is_not_there_is_refused_in_one_sentence(hub):
    hub.lack("nothing.gguf")
    kind, message, hint = hub("hf:owner/repo/nothing.gguf")
    assert kind == "ModelError"
    assert message.startswith("hf:owner/repo/nothing.gguf cannot be fetched: 404 Client Error")
    assert "\n" not in message
    assert "HF_TOKEN" in hint


def test_a_name_that_the_hub_does_not_allow_is_refused_in_one_sentence(hub):
    kind, message, _ = hub("hf:ow ner/re%po/x.gguf")
    assert kind == "ModelError"
    assert "\n" not in message


@pytest.mark.parametrize(
    "rest", ["", "owner", "owner/repo", "owner/repo/README.md", "/repo/x.gguf"]
)
def test_a_reference_without_a_file_is_refused_with_the_right_form(rest):
    with pytest.raises(UsageError) as refused:
        HubSource().resolve(rest, lambda *_: None, {})
    assert "hf:owner/repo/file.gguf" in refused.value.hint


def test_without_the_extra_its_installation_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match="needs the package huggingface_hub") as refused:
        HubSource().resolve("owner/repo/x.gguf", lambda *_: None, {})
    assert refused.value.hint == "pip install 'velollm[hf]'"
