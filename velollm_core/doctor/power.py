"""Clocks and power: what keeps the processors below the speed that they could run at.

Governors that raise the frequency under load (``schedutil``, ``ondemand``, ``conservative``, and
``powersave`` of the drivers that leave the choice to the processor) are no finding: they reach the
top frequency within the first token. A virtual machine has no frequency to look at.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from velollm_core.doctor.spec import Check, Context, Cost, Finding, Unseen
from velollm_core.hardware.parsing import integer

_CPU = "/sys/devices/system/cpu"
_CHOOSE_THEMSELVES = frozenset({"intel_pstate", "amd-pstate-epp"})
_SAVING_PREFERENCES = frozenset({"power", "balance_power"})
_CAPPED_SHARE = 0.9
_WINDOWS_SAVER = "a1841308-3541-4fab-bc81-f71556f20b4a"
_KERNEL = "Linux kernel documentation, admin-guide/pm"
_FLAGS = re.compile(r"^flags\s*:(.*)$", re.MULTILINE)
_PERFORMANCE = "sudo cpupower frequency-set --governor performance (until the next start)"


def governor(context: Context) -> Iterator[Finding]:
    """The governor ``powersave`` of a driver that takes it literally."""
    stuck = [
        cpu
        for cpu in _scaled(context)
        if _cpufreq(context, cpu, "scaling_governor") == "powersave"
        and _cpufreq(context, cpu, "scaling_driver") not in _CHOOSE_THEMSELVES
    ]
    if stuck:
        driver = _cpufreq(context, stuck[0], "scaling_driver") or "unknown"
        yield Finding(
            statement="The processors are held at their lowest frequency.",
            evidence=f"governor powersave with driver {driver} on {_number(stuck)} "
            f"({_CPU}/cpu{stuck[0]}/cpufreq/scaling_governor)",
            cost=Cost(
                text="powersave asks for the lowest frequency, whatever the load" + _floor(context),
                basis="cited",
                source=f"{_KERNEL}/cpufreq.rst",
            ),
            advice=f"Set another governor: {_PERFORMANCE}",
            costs_speed=True,
        )


def preference(context: Context) -> Iterator[Finding]:
    """A processor that chooses its frequency itself, and was told to save energy."""
    name = "energy_performance_preference"
    told = {cpu: _cpufreq(context, cpu, name) for cpu in _scaled(context)}
    saving = [cpu for cpu, word in told.items() if word in _SAVING_PREFERENCES]
    if saving:
        yield Finding(
            statement="The processors are told to prefer saving energy to speed.",
            evidence=f"{name} {told[saving[0]]} on {_number(saving)} "
            f"({_CPU}/cpu{saving[0]}/cpufreq)",
            cost=Cost(
                text="the processor raises its clock later and less far",
                basis="cited",
                source=f"{_KERNEL}/intel_pstate.rst, Energy vs Performance Hints",
            ),
            advice="Choose another power profile (powerprofilesctl set performance), or "
            f"{_PERFORMANCE}",
            costs_speed=True,
        )


def frequency_cap(context: Context) -> Iterator[Finding]:
    """An upper limit that somebody set well below what the processor can do."""
    shares = {}
    for cpu in _scaled(context):
        cap = integer(_cpufreq(context, cpu, "scaling_max_freq"))
        top = _top_khz(context, cpu)
        if cap and top and cap < top * _CAPPED_SHARE:
            shares[cpu] = (cap / top, cap, top)
    if shares:
        cpu, (share, cap, top) = min(shares.items(), key=lambda entry: entry[1])
        yield Finding(
            statement="The clock of the processors is capped.",
            evidence=f"scaling_max_freq {cap / 1e6:.2f} GHz of {top / 1e6:.2f} GHz on "
            f"{_number(list(shares))} ({_CPU}/cpu{cpu}/cpufreq)",
            cost=Cost(
                text=f"at most {share:.0%} of the clock, most of all while a prompt is read",
                basis="seen",
            ),
            advice="Lift the cap: sudo cpupower frequency-set --max "
            f"{top // 1000}MHz; a power profile or TLP may set it again.",
            costs_speed=True,
        )


def turbo(context: Context) -> Iterator[Finding]:
    """Frequencies above the nominal one, switched off."""
    switches = ((f"{_CPU}/intel_pstate/no_turbo", "1"), (f"{_CPU}/cpufreq/boost", "0"))
    said = {path: word for path, _ in switches if (word := context.probe.read(path)) is not None}
    if not said:
        raise Unseen("the system shows no switch for it")
    if not _may_have_turbo(context):
        raise Unseen("this processor has no turbo, or its firmware hides it")
    for path, off in switches:
        if said.get(path) == off:
            yield Finding(
                statement="The processors' turbo is switched off.",
                evidence=f"{path} is {off}",
                cost=Cost(
                    text="no frequency above the nominal one",
                    basis="cited",
                    source=f"{_KERNEL}/cpufreq.rst, Frequency Boost Support",
                ),
                advice=f"Switch it on: echo {1 - int(off)} | sudo tee {path}; "
                "the firmware's setup may forbid it.",
                costs_speed=True,
            )


def energy_saver(context: Context) -> Iterator[Finding]:
    """The energy-saving mode of the whole system."""
    system = context.probe.system
    if system not in _SAVERS:
        raise Unseen(f"where {system} shows it is not known")
    look, source = _SAVERS[system]
    evidence, advice = look(context)
    if evidence:
        yield Finding(
            statement="The system is in its energy-saving mode.",
            evidence=evidence,
            cost=Cost(
                text="the system limits the power of processor and graphics",
                basis="cited",
                source=source,
            ),
            advice=advice,
            costs_speed=True,
        )


def battery(context: Context) -> Iterator[Finding]:
    """A machine that is not plugged in."""
    if context.activity.on_battery:
        yield Finding(
            statement="The machine runs on its battery.",
            evidence="the battery discharges and no power supply is connected",
            cost=Cost(
                text="processor and graphics get less power, and timings change with the charge",
                basis="cited",
                source="pyperf documentation, Tune the system for benchmarks: Power supply",
            ),
            advice="Plug it in, above all while measuring.",
            costs_speed=True,
        )


def _linux_saver(context: Context) -> tuple[str, str]:
    path = "/sys/firmware/acpi/platform_profile"
    profile = context.probe.read(path)
    if profile is None:
        raise Unseen("the firmware offers no power profiles")
    evidence = f"{path} is {profile}" if profile == "low-power" else ""
    return evidence, "Choose another profile: powerprofilesctl set balanced (or performance)"


def _macos_saver(context: Context) -> tuple[str, str]:
    rows = dict(line.split()[:2] for line in _said(context, "pmset", "-g") if len(line.split()) > 1)
    mode = rows.get("lowpowermode")
    return (
        "pmset -g shows lowpowermode 1" if mode == "1" else "",
        "Turn off Low Power Mode in the settings of the battery: sudo pmset -a lowpowermode 0",
    )


def _windows_saver(context: Context) -> tuple[str, str]:
    # The plan's name is translated, its number is not.
    plan = " ".join(_said(context, "powercfg", "/getactivescheme")).lower()
    return (
        "powercfg /getactivescheme names the plan Power saver" if _WINDOWS_SAVER in plan else "",
        "Choose another plan: powercfg /setactive SCHEME_BALANCED",
    )


_SAVERS = {
    "Linux": (_linux_saver, "Linux kernel documentation, ABI, sysfs-platform_profile"),
    "Darwin": (_macos_saver, "Apple support, Use Low Power Mode to extend battery life"),
    "Windows": (_windows_saver, "Microsoft documentation, powercfg command-line options"),
}


def _said(context: Context, *argv: str) -> Iterable[str]:
    said = context.probe.run(*argv)
    if said is None:
        raise Unseen(f"{argv[0]} does not answer")
    return said.splitlines()


def _scaled(context: Context) -> tuple[int, ...]:
    """The processors that this process may use and whose frequency the system can set."""
    if context.probe.system != "Linux":
        raise Unseen(f"{context.probe.system} does not show it")
    cpus = context.hardware.cpu.usable_cpus
    scaled = tuple(cpu for cpu in cpus if _cpufreq(context, cpu, "scaling_governor") is not None)
    if not scaled:
        raise Unseen("the system does not set the processors' frequency, as in a virtual machine")
    return scaled


def _cpufreq(context: Context, cpu: int, name: str) -> str | None:
    return context.probe.read(f"{_CPU}/cpu{cpu}/cpufreq/{name}")


def _floor(context: Context) -> str:
    """The frequency it is held at, in words, where all processors tell the same."""
    floors = Counter(
        (
            integer(_cpufreq(context, cpu, "scaling_min_freq")),
            integer(_cpufreq(context, cpu, "cpuinfo_max_freq")),
        )
        for cpu in _scaled(context)
    )
    low, top = next(iter(floors))
    if len(floors) > 1 or not low or not top:
        return ""
    return f": {low / 1e6:.2f} GHz of {top / 1e6:.2f} GHz"


def _top_khz(context: Context, cpu: int) -> int | None:
    """What a processor can be asked for, kHz.

    ``acpi-cpufreq`` counts the boost in ``cpuinfo_max_freq``, and sets no limit above the nominal
    frequency, which is the highest that it lists.
    """
    top = integer(_cpufreq(context, cpu, "cpuinfo_max_freq"))
    listed = [
        khz
        for name in ("scaling_available_frequencies", "scaling_boost_frequencies")
        for word in (_cpufreq(context, cpu, name) or "").split()
        if (khz := integer(word))
    ]
    return min(top, max(listed)) if top and listed else top


def _may_have_turbo(context: Context) -> bool:
    """Whether an x86 processor tells it; ``no_turbo`` is 1 as well where there is none.

    Source: flag ``ida``, CPUID 06H EAX bit 1; AMD tells its own, ``cpb``.
    """
    flags = _FLAGS.search(context.probe.read("/proc/cpuinfo") or "")
    return flags is None or not {"ida", "cpb"}.isdisjoint(flags.group(1).split())


def _number(cpus: list[int]) -> str:
    return f"{len(cpus)} processor{'' if len(cpus) == 1 else 's'}"


CHECKS = (
    Check(
        code="cpu-governor",
        looks_at="the frequency governor of the processors",
        explains="A governor that holds the processors at their lowest frequency (Linux). "
        "Governors that follow the load are no finding.",
        look=governor,
    ),
    Check(
        code="cpu-energy-preference",
        looks_at="what the processors are told to prefer, speed or energy",
        explains="Processors that choose their own frequency and are told to save energy (Linux).",
        look=preference,
    ),
    Check(
        code="cpu-frequency-cap",
        looks_at="limits to the processors' clock",
        explains="A limit more than a tenth below what the processor can do (Linux).",
        look=frequency_cap,
    ),
    Check(
        code="cpu-turbo-off",
        looks_at="the processors' turbo",
        explains="Turbo (boost) switched off in the running system (Linux).",
        look=turbo,
    ),
    Check(
        code="energy-saver",
        looks_at="the system's energy-saving mode",
        explains="Low Power Mode (macOS), the plan Power saver (Windows), "
        "or the firmware's profile low-power (Linux).",
        look=energy_saver,
    ),
    Check(
        code="on-battery",
        looks_at="the power supply",
        explains="A machine that runs on its battery.",
        look=battery,
    ),
)
