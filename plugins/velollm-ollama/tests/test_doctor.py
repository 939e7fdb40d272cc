"""What doctor says of Ollama's variables: each fault is found, and it alone."""

from __future__ import annotations

import pytest
from velollm_ollama import diagnose

from velollm_core.doctor.diagnosis import diagnose as ask
from velollm_core.doctor.spec import Context, Script
from velollm_core.experiment.activity import Activity
from velollm_core.hardware.probe import Probe
from velollm_core.hardware.spec import CpuInfo, HardwareSpec, MemoryInfo, OsInfo


@pytest.fixture
def findings(tmp_path):
    """What is found with these variables, this drop-in and this script."""

    def look(environ=None, drop_in="", script=""):
        folder = tmp_path / "etc/systemd/system"
        (folder / "ollama.service.d").mkdir(parents=True, exist_ok=True)
        (folder / "ollama.service").write_text("[Service]\nExecStart=/bin/ollama serve\n")
        (folder / "ollama.service.d/a.conf").write_text(drop_in)
        context = Context(
            hardware=HardwareSpec(
                cpu=CpuInfo(model="x", architecture="x86_64", logical=4, physical=4),
                memory=MemoryInfo(total_bytes=1 << 34, available_bytes=1 << 33),
                os=OsInfo(system="Linux", release="6"),
            ),
            probe=Probe(root=tmp_path, system="Linux", environ=environ or {}),
            activity=Activity(watched_s=0.5),
            scripts=(Script(shown="run.sh", text=script),),
        )
        told, failures = ask({"ollama": diagnose.CHECKS}, context)
        assert failures == ()
        return [(check.code, found) for check in told.checks for found in check.findings]

    return look


def test_settings_that_ollama_reads_are_no_finding(findings):
    good = {"OLLAMA_NUM_PARALLEL": "4", "OLLAMA_KEEP_ALIVE": "-1", "OLLAMA_FLASH_ATTENTION": "1"}
    good |= {"OLLAMA_KEEP_ALIVE": "876000h", "OLLAMA_MAX_QUEUE": "2000000"}
    assert findings(good, "[Service]\nEnvironment=OLLAMA_KV_CACHE_TYPE=q8_0\n") == []


def test_a_believed_variable_is_found_wherever_it_stands(findings):
    ((code, found),) = findings({"OLLAMA_NUM_CTX": "8192"})
    assert code == "ollama-unread-variables"
    assert "PARAMETER num_ctx 8192 in a Modelfile" in found.advice
    assert "OLLAMA_CONTEXT_LENGTH" in found.advice
    ((_, found),) = findings(drop_in="[Service]\nEnvironment=OLLAMA_NUM_THREAD=8\n")
    assert "/etc/systemd/system/ollama.service.d/a.conf" in found.evidence
    ((_, found),) = findings(script="#!/bin/sh\n  export OLLAMA_NUM_GPU='99'\n# OLLAMA_NUM_GPU=1\n")
    assert "run.sh, line 2" in found.evidence
    assert "PARAMETER num_gpu 99" in found.advice
    told = findings(
        script='docker run -e "OLLAMA_NUM_CTX=8192" -e OLLAMA_NUM_BATCH=9 ollama/ollama'
    )
    assert [found.statement for _, found in told] == [
        "Ollama does not read OLLAMA_NUM_CTX.",
        "Ollama does not read OLLAMA_NUM_BATCH.",
    ]


@pytest.mark.parametrize("text", ["$slots", '"${SLOTS:-4}"', "$(nproc)", "`nproc`"])
def test_what_a_shell_has_yet_to_work_out_is_no_value_to_judge(findings, text):
    assert findings(script=f"export OLLAMA_NUM_PARALLEL={text}\n") == []
    ((code, found),) = findings(script=f"export OLLAMA_NUM_CTX={text}\n")
    assert code == "ollama-unread-variables"
    assert "$" not in found.advice


def test_what_somebody_wrote_is_not_repeated_as_advice(findings):
    ((_, found),) = findings({"OLLAMA_NUM_CTX": "8192; rm -rf ~"})
    assert "rm" not in found.advice


@pytest.mark.parametrize(
    ("name", "text", "takes"),
    [
        ("OLLAMA_FLASH_ATTENTION", "off", "1 or 0"),
        ("OLLAMA_NUM_PARALLEL", "four", "whole number"),
        ("OLLAMA_CONTEXT_LENGTH", "8k", "whole number"),
        ("OLLAMA_KEEP_ALIVE", "1 day", "10m"),
        ("OLLAMA_KV_CACHE_TYPE", "int8", "documentation"),
    ],
)
def test_a_value_that_ollama_misreads_is_found(findings, name, text, takes):
    ((code, found),) = findings({name: text})
    assert code == "ollama-malformed-values"
    assert repr(text) in found.evidence
    assert takes in found.advice


def test_the_plugin_offers_its_checks():
    from velollm_ollama import plugin

    assert plugin.velollm_diagnose() == diagnose.CHECKS
