"""What a user of the command gets: a measurement, and the models for other engines."""

from __future__ import annotations

import json

SHORT = ("bench", "--workload", "short", "--requests", "2", "--max-tokens", "8", "--force")


def test_a_setting_of_the_server_is_measured_on_a_private_one(
    velollm, double, program, models_folder, tmp_path
):
    users = double()
    target = tmp_path / "result.json"
    words = ("--backend", "ollama", "-X", "mode=private", "--model", "small", *SHORT)
    environ = {"PATH": str(program.parent), "OLLAMA_MODELS": str(models_folder)}
    done = velollm(
        *words,
        *("--launches", "1", "--set", "kv_cache_type=q8_0", "-o", str(target)),
        env=environ | {"OLLAMA_HOST": users.environ["OLLAMA_HOST"]},
    )
    assert done.returncode == 0, done.stderr
    text = target.read_text(encoding="utf-8")
    (trial,) = json.loads(text)["trials"]
    assert trial["effective"]["kv_cache_type"] == "q8_0"
    assert (trial["failure"], trial["mismatches"]) == (None, [])
    assert users.requests() == []
    assert str(models_folder) not in text
    for sample in trial["phases"][0]["samples"]:
        assert (sample["output_tokens"], sample["error"]) == (8, None)
        assert sample["timings"]["predicted_ms"] > 0


def test_a_pulled_model_is_one_for_every_engine(velollm, models_folder):
    done = velollm("models", "show", "ollama:small", env={"OLLAMA_MODELS": str(models_folder)})
    assert done.returncode == 0, done.stderr
    assert "ollama:small" in done.stdout
