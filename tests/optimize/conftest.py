"""Machines and models as data: what people have, and what they run on it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from attrs import evolve

from velollm_core.backends.advice import AdviceContext
from velollm_core.backends.contract import Installation
from velollm_core.backends.machine import used_gpus
from velollm_core.config import Config, Settings, problems
from velollm_core.hardware.spec import (
    ContainerInfo,
    CpuInfo,
    GpuInfo,
    HardwareSpec,
    MemoryInfo,
    NumaNode,
    OsInfo,
)
from velollm_core.models.ggml_types import BY_NAME as TYPES
from velollm_core.models.gguf import GgufFile, TensorInfo
from velollm_core.models.header import model_spec
from velollm_core.models.spec import Model
from velollm_core.optimize.plan import plan
from velollm_core.optimize.rules import suggestions

GIB = 1024**3


def cpu(cores, *, threads=2, performance=None, **more):
    """``cores`` of which ``performance`` are fast ones, the only ones with ``threads`` each."""
    if performance is None:
        logical = cores * threads
        return CpuInfo(model="", architecture="x86_64", logical=logical, physical=cores, **more)
    return CpuInfo(
        model="",
        architecture="x86_64",
        logical=performance * threads + cores - performance,
        physical=cores,
        performance_cores=performance,
        efficiency_cores=cores - performance,
        **more,
    )


def gpu(gib, vendor="nvidia", index=0, **more):
    """A card of which the desktop takes 3 %."""
    return GpuInfo(
        uuid=f"{vendor}-{index}",
        vendor=vendor,
        name=f"{vendor} {gib:g} GB",
        index=index,
        memory_total_bytes=int(gib * GIB),
        memory_free_bytes=int(gib * GIB * 0.97),
        **more,
    )


def machine(cpu, gib, *gpus, free=0.8, system="Linux", container=None, **memory):
    """A machine with ``gib`` of main memory, of which the share ``free`` is available."""
    return HardwareSpec(
        cpu=cpu,
        memory=MemoryInfo(
            total_bytes=int(gib * GIB), available_bytes=int(gib * GIB * free), **memory
        ),
        os=OsInfo(system=system, release=""),
        gpus=gpus,
        container=container,
    )


def apple(cores, performance, gib):
    shared = gpu(gib, "apple", unified_memory=True)
    return machine(
        cpu(cores, threads=1, performance=performance),
        gib,
        evolve(shared, memory_free_bytes=int(gib * GIB * 0.7)),
        free=0.7,
        system="Darwin",
    )


_DOCKER = ContainerInfo(kind="docker", evidence="/.dockerenv")

MACHINES = {
    "laptop-8gb": machine(cpu(4), 8, free=0.6),
    "container-2-of-64": machine(
        cpu(64, quota_cpus=2.0),
        256,
        free=0.9,
        container=_DOCKER,
        limit_bytes=12 * GIB,
        limit_used_bytes=GIB // 2,
    ),
    "container-affinity": machine(
        cpu(64, usable_cpus=(0, 1, 2, 3)), 256, container=_DOCKER, limit_bytes=32 * GIB
    ),
    "hybrid-32gb": machine(cpu(14, performance=6), 32),
    "hybrid-without-smt": machine(cpu(20, threads=1, performance=8), 64),
    "nvidia-8gb": machine(cpu(8), 32, gpu(8)),
    "nvidia-12gb": machine(cpu(8), 32, gpu(12)),
    "nvidia-16gb": machine(cpu(8), 32, gpu(16)),
    "nvidia-24gb": machine(cpu(8), 64, gpu(24)),
    "nvidia-80gb": machine(cpu(32), 256, gpu(80)),
    "nvidia-24gb-and-8gb": machine(cpu(12), 64, gpu(24), gpu(8, index=1)),
    "amd-16gb": machine(cpu(8), 32, gpu(16, "amd")),
    "apple-16gb": apple(8, 4, 16),
    "apple-64gb": apple(12, 8, 64),
    "intel-arc-16gb": machine(cpu(16, performance=8), 32, gpu(16, "intel")),
    "two-sockets": machine(
        cpu(
            64,
            packages=2,
            numa_nodes=(
                NumaNode(id=0, cpus=tuple(range(64))),
                NumaNode(id=1, cpus=tuple(range(64, 128))),
            ),
        ),
        512,
    ),
}


def tensor(name, columns, rows=1, experts=0, kind="Q4_K"):
    kind = "F32" if rows == 1 else kind
    shape = tuple(n for n in (columns, rows if rows > 1 else 0, experts) if n)
    size = TYPES[kind].row_bytes(columns) * rows * max(1, experts)
    return TensorInfo(name=name, shape=shape, type=kind, offset=0, bytes=size)


def spec_of(arch, layers, width, tensors, **keys):
    """What the header of a file with these tensors says."""
    values = {"block_count": layers, "embedding_length": width, **keys}
    file = GgufFile(
        path=Path("model.gguf"),
        version=3,
        big_endian=False,
        alignment=32,
        metadata={
            "general.architecture": arch,
            **{f"{arch}.{key.replace('__', '.')}": value for key, value in values.items()},
        },
        tensors=tuple(tensors),
        data_offset=0,
        file_bytes=sum(entry.bytes for entry in tensors),
        header=memoryview(b""),
    )
    return model_spec((file,))


def transformer(
    arch, layers, width, *, heads, kv_heads, head_dim, vocabulary, context, kind="Q4_K", **more
):
    """A transformer: ``feed_forward`` wide, or with ``experts`` of that width; ``tied`` or not.

    ``mamba`` lists the layers that have a recurrent state in place of attention.
    """
    feed_forward, experts = more.pop("feed_forward"), more.pop("experts", 0)
    tied, mamba = more.pop("tied", False), more.pop("mamba", ())
    inner, state = 2 * width, 128
    outside = [
        tensor("token_embd.weight", width, vocabulary, kind=kind),
        tensor("output_norm.weight", width),
        *([] if tied else [tensor("output.weight", width, vocabulary, kind=kind)]),
    ]
    found = outside
    for layer in range(layers):
        if layer in mamba:
            parts = [
                ("attn_norm.weight", width),
                ("ssm_in.weight", width, 2 * inner + 2 * state + inner // 64),
                ("ssm_conv1d.weight", inner + 2 * state),
                ("ssm_out.weight", inner, width),
            ]
        else:
            parts = [
                ("attn_norm.weight", width),
                ("attn_q.weight", width, heads * head_dim),
                ("attn_k.weight", width, kv_heads * head_dim),
                ("attn_v.weight", width, kv_heads * head_dim),
                ("attn_output.weight", heads * head_dim, width),
            ]
        suffix = "_exps" if experts else ""
        parts += [
            ("ffn_norm.weight", width),
            *([("ffn_gate_inp.weight", width, experts)] if experts else []),
            (f"ffn_gate{suffix}.weight", width, feed_forward, experts),
            (f"ffn_up{suffix}.weight", width, feed_forward, experts),
            (f"ffn_down{suffix}.weight", feed_forward, width, experts),
        ]
        found += [tensor(f"blk.{layer}.{name}", *shape, kind=kind) for name, *shape in parts]
    return spec_of(
        arch,
        layers,
        width,
        found,
        context_length=context,
        vocab_size=vocabulary,
        feed_forward_length=feed_forward,
        attention__head_count=heads,
        attention__head_count_kv=kv_heads,
        attention__key_length=head_dim,
        attention__value_length=head_dim,
        expert_count=experts,
        **{
            "ssm__conv_kernel": 4,
            "ssm__inner_size": inner,
            "ssm__state_size": state,
            "ssm__group_count": 1,
            "ssm__time_step_rank": inner // 64,
        }
        if mamba
        else {},
        **more,
    )


LLAMA3 = {"kv_heads": 8, "head_dim": 128, "vocabulary": 128256}
MODELS = {
    "small": transformer(  # as SmolLM2 135M
        "llama",
        30,
        576,
        heads=9,
        kv_heads=3,
        head_dim=64,
        vocabulary=49152,
        context=8192,
        feed_forward=1536,
        tied=True,
        kind="Q4_1",
    ),
    "8b": transformer(  # as Llama 3.1 8B
        "llama", 32, 4096, heads=32, feed_forward=14336, context=131072, **LLAMA3
    ),
    "70b": transformer(  # as Llama 3.1 70B
        "llama", 80, 8192, heads=64, feed_forward=28672, context=131072, **LLAMA3
    ),
    "moe-30b": transformer(  # as Qwen3 30B-A3B
        "qwen3moe",
        48,
        2048,
        heads=32,
        kv_heads=4,
        head_dim=128,
        vocabulary=151936,
        context=40960,
        feed_forward=768,
        experts=128,
        expert_used_count=8,
        expert_feed_forward_length=768,
    ),
    "moe-47b": transformer(  # as Mixtral 8x7B
        "llama",
        32,
        4096,
        heads=32,
        kv_heads=8,
        head_dim=128,
        vocabulary=32000,
        context=32768,
        feed_forward=14336,
        experts=8,
        expert_used_count=2,
    ),
    "hybrid-7b": transformer(  # as Granite 4.0 Tiny: four layers of forty attend
        "granitehybrid",
        40,
        1536,
        heads=12,
        kv_heads=4,
        head_dim=128,
        vocabulary=100352,
        context=131072,
        feed_forward=512,
        experts=64,
        expert_used_count=6,
        tied=True,
        mamba=tuple(layer for layer in range(40) if layer not in {5, 15, 25, 35}),
    ),
    "window-12b": transformer(  # as Gemma 3 12B: five layers of six have a window
        "gemma3",
        48,
        3840,
        heads=16,
        kv_heads=8,
        head_dim=256,
        vocabulary=262208,
        context=131072,
        feed_forward=15360,
        tied=True,
        attention__sliding_window=1024,
    ),
    "405b": transformer(  # as Llama 3.1 405B
        "llama", 126, 16384, heads=128, feed_forward=53248, context=131072, **LLAMA3
    ),
}


REPACKING = ("REPACK", "AVX2", "AVX512")


def llamacpp(hardware, model):
    """llama.cpp as it was recorded, built for the GPUs that the machine has."""
    from velollm_llamacpp import advice, checks, footprint, settings
    from velollm_llamacpp.arguments import settable
    from velollm_llamacpp.engines import Engine
    from velollm_llamacpp.record import recorded_flags

    gpus = tuple(card.uuid for card in hardware.gpus)
    engine = Engine(
        version="11434", build=None, flags=recorded_flags(), gpus=gpus, cpu_features=REPACKING
    )
    knobs = settable(engine.flags, gpus=bool(gpus))

    def estimate(config):
        complete = settings.completed(engine, config)
        if gpus:
            return footprint.on_gpus(model.spec, complete, used_gpus(hardware))
        return footprint.on_the_host(model.spec, complete, REPACKING)

    return SimpleNamespace(
        name="llamacpp",
        kind="binary",
        knobs=knobs,
        defaults=settings.defaults(engine, {}, embedded=True),
        suggest=advice.suggestions,
        footprint=estimate,
        contradictions=lambda config: checks.contradictions(
            config, settings.completed(engine, config)
        ),
    )


def ollama(hardware, model):
    """Ollama as it is when nobody has set anything."""
    from velollm_ollama import advice, knobs, settings

    installation = Installation(backend="ollama", kind="server", location="http://127.0.0.1:11434")
    return SimpleNamespace(
        name="ollama",
        kind="server",
        knobs=knobs.knobs(installation, model),
        defaults=settings.defaults(installation, model, hardware.gpus),
        suggest=advice.suggest,
        footprint=lambda _: None,
        contradictions=lambda _: (),
    )


ENGINES = {"llamacpp": llamacpp, "ollama": ollama}


def advice(machine, model, engine="llamacpp", *, changes=(), **wanted):
    """What is known before the rules are asked, and the backend's own check.

    ``changes`` are the user's own settings, over the engine's defaults.
    """
    hardware = MACHINES[machine] if isinstance(machine, str) else machine
    named = Model(reference=str(model), spec=MODELS[model] if isinstance(model, str) else model)
    made = ENGINES[engine](hardware, named)
    changes = Config(dict(changes))
    context = AdviceContext(
        hardware=hardware,
        backend=made.name,
        installation=Installation(
            backend=made.name, kind=made.kind, location="http://127.0.0.1:11434", version="1"
        ),
        model=named,
        knobs=made.knobs,
        defaults=made.defaults,
        current=Settings(
            config=made.defaults.config | changes,
            origins={**made.defaults.origins, **dict.fromkeys(changes, "the user's file")},
        ),
        footprint=made.footprint,
        **wanted,
    )

    def check(config):
        return (*problems(context.knobs, config), *made.contradictions(config))

    return SimpleNamespace(context=context, check=check, own=made.suggest)


def planned(case):
    """The plan for what :func:`advice` gives."""
    offered = (*case.own(case.context), *suggestions(case.context))
    return plan(case.context, offered, check=case.check)


@pytest.fixture(scope="session")
def profiles():
    """Machines, models, and how to ask for a plan."""
    return SimpleNamespace(
        machines=MACHINES,
        models=MODELS,
        advice=advice,
        planned=planned,
        machine=machine,
        cpu=cpu,
        gpu=gpu,
        transformer=transformer,
    )
