"""What a user of the command sees: how to name the server, what it cannot tell, and never a key."""

from __future__ import annotations

import json

KEY = "sk-very-secret"


def test_without_a_url_the_option_that_names_one_is_said(velollm):
    done = velollm("--backend", "openai", "bench")
    assert done.returncode == 3
    assert "-X url=..." in done.stderr
    assert "http://127.0.0.1:8000" in done.stderr


def test_a_model_that_is_not_served_is_refused_with_those_that_are(velollm, serve):
    server = serve(routes={"/v1/models": {"data": [{"id": "org/a"}, {"id": "b"}]}})
    words = ("--backend", "openai", "-X", f"url={server.url}/v1/", "--model", "c", "bench")
    done = velollm(*words)
    assert done.returncode == 2
    assert "does not serve c; loaded: org/a, b." in done.stderr


def test_a_server_that_counts_nothing_is_measured_without_rates_and_the_key_stays_secret(
    velollm, serve, protocol, tmp_path
):
    server = serve(
        protocol.delta(content="a b"), protocol.delta(content=" c"), protocol.delta(finish="stop")
    )
    target = tmp_path / "result.json"
    words = ("--backend", "openai", "-X", f"url={server.url}", "bench", "--workload", "short")
    done = velollm(
        *words, "--requests", "2", "--force", "-o", str(target), env={"OPENAI_API_KEY": KEY}
    )
    assert done.returncode == 0, done.stderr
    assert "the server counts no tokens" in " ".join(done.stdout.split())
    assert "tok/s" not in done.stdout
    (trial,) = json.loads(target.read_text(encoding="utf-8"))["trials"]
    for sample in trial["phases"][0]["samples"]:
        assert (sample["output_tokens"], sample["timings"], sample["error"]) == (None, None, None)
    assert f"Bearer {KEY}".encode() in b"".join(server.requests)
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    shown = [done.stdout.encode(), done.stderr.encode()]
    assert not [content for content in (*written, *shown) if KEY.encode() in content]
