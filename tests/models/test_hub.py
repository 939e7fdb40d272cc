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

COMMIT = "a" * 40
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

    def ask(reference, **settings):
        environ = {
            **os.environ,
            "HF_ENDPOINT": httpserver.url_for("").rstrip("/"),
            "HF_HOME": str(tmp_path / "home"),
            **settings,
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

    def hold(name, path, commit=COMMIT, checksum=None, sent=None):
        """``main`` is at ``commit``; ``sent`` is what arrives instead of the file's content."""
        content = path.read_bytes()
        marks = {
            "ETag": f'"{checksum or hashlib.sha256(content).hexdigest()}"',
            "X-Repo-Commit": commit,
        }
        moved = b"of a later commit".ljust(len(content))
        for revision, body in [(commit, sent or content), ("main", moved)]:
            httpserver.expect_request(f"/owner/repo/resolve/{revision}/{name}").respond_with_data(
                body, headers=marks
            )

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
    assert [size, size, "fetching tiny.gguf"] in steps
    assert steps[-1] == [size, size, "checking tiny.gguf"]
    assert hub.asked() == {
        f"/owner/repo/resolve/{revision}/folder/tiny.gguf" for revision in ("main", COMMIT)
    }


def test_what_is_in_the_cache_is_not_fetched_again_and_serves_without_a_network(hub, write_model):
    hub.hold("tiny.gguf", write_model("tiny.gguf"))
    path, _, _ = hub("hf:owner/repo/tiny.gguf")
    assert hub("hf:owner/repo/tiny.gguf") == [path, 1, []]
    assert hub("hf:owner/repo/tiny.gguf", HF_HUB_OFFLINE="1") == [path, 1, []]


def test_without_a_network_and_without_the_file_the_reason_is_given(hub):
    kind, message, _ = hub("hf:owner/repo/tiny.gguf", HF_HUB_OFFLINE="1")
    assert kind == "ModelError"
    assert "HF_HUB_OFFLINE" in message
    assert "\n" not in message


def test_a_file_that_arrives_changed_is_refused_and_not_kept(hub, write_model, tmp_path):
    model = write_model("tiny.gguf")
    content = model.read_bytes()
    hub.hold("tiny.gguf", model, sent=content[:-1] + bytes([content[-1] ^ 1]))
    for _ in range(2):  # the second time, the cache must not have it
        kind, message, _ = hub("hf:owner/repo/tiny.gguf")
        assert kind == "ModelError"
        assert "hf:owner/repo/tiny.gguf arrived damaged: its checksum is" in message
        assert hashlib.sha256(content).hexdigest() in message
        assert "\n" not in message
    kept = [file for file in (tmp_path / "home").rglob("*") if file.is_file()]
    assert not [file for file in kept if file.stat().st_size >= len(content)]


@pytest.mark.parametrize("right", [True, False])
def test_a_file_that_git_itself_holds_is_checked_as_git_does(right, hub, write_model):
    model = write_model("tiny.gguf")
    content = model.read_bytes()
    blob = b"blob %d\0" % len(content) + content
    hub.hold(
        "tiny.gguf",
        model,
        checksum=hashlib.sha1(blob, usedforsecurity=False).hexdigest(),
        sent=content if right else content[:-1] + b"x",
    )
    answer = hub("hf:owner/repo/tiny.gguf")
    assert answer[0].endswith("tiny.gguf") if right else "arrived damaged" in answer[1]


@pytest.mark.parametrize(
    ("marks", "lacking"),
    [({"checksum": "5f3-1"}, "gives no checksum"), ({"commit": "main"}, "of which commit")],
)
def test_a_hub_that_does_not_say_what_it_sends_is_refused(marks, lacking, hub, write_model):
    hub.hold("tiny.gguf", write_model("tiny.gguf"), **marks)
    kind, message, _ = hub("hf:owner/repo/tiny.gguf")
    assert kind == "ModelError"
    assert message.startswith("hf:owner/repo/tiny.gguf is not fetched")
    assert lacking in message


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
