"""VeloLLM itself: its plugins, and the folders that it writes to."""

from __future__ import annotations

from collections.abc import Iterator

from velollm_core.doctor.spec import Check, Context, Cost, Finding
from velollm_core.hardware.parsing import MIB


def broken_plugins(context: Context) -> Iterator[Finding]:
    """Plugins that cannot be loaded, fail in a hook, or were built for another VeloLLM."""
    for entry in context.broken_plugins:
        yield Finding(
            statement=f"The plugin {entry.name} does not work.",
            evidence=str(entry),
            cost=Cost(text="what it brings is missing", basis="seen"),
            advice=f"Update it (pip install --upgrade {entry.distribution or entry.name}) "
            "or uninstall it.",
            costs_speed=False,
        )


def folders(context: Context) -> Iterator[Finding]:
    """Folders of VeloLLM's own that cannot be written."""
    for folder in context.folders:
        if folder.obstacle is not None:
            yield Finding(
                statement=f"The folder of {folder.purpose} cannot be written.",
                evidence=f"{context.shown(folder.path)}: {folder.obstacle}",
                cost=Cost(text="nothing is kept there", basis="seen"),
                advice=f"Make it writable, or name another with {folder.variable}.",
                costs_speed=False,
            )


def disk(context: Context) -> Iterator[Finding]:
    """Folders on disks that are all but full."""
    for folder in context.folders:
        if folder.free_bytes is not None and folder.free_bytes < folder.needed_bytes:
            yield Finding(
                statement=f"There is too little room for {folder.purpose}.",
                evidence=f"{context.shown(folder.path)}: {folder.free_bytes / MIB:.0f} MiB free, "
                f"{folder.needed_bytes / MIB:.0f} MiB wanted",
                cost=Cost(text="what is written there is cut short, or not kept", basis="seen"),
                advice=f"Make room, or name another folder with {folder.variable}.",
                costs_speed=False,
            )


CHECKS = (
    Check(
        code="broken-plugins",
        looks_at="the installed plugins",
        explains="Plugins that cannot be loaded, fail in a hook, or were built for another set of "
        "hooks.",
        look=broken_plugins,
    ),
    Check(
        code="unwritable-folders",
        looks_at="the folders that VeloLLM writes to",
        explains="Folders of the journal, of the cache, of the settings, or of temporary files "
        "that cannot be written.",
        look=folders,
    ),
    Check(
        code="disk-space",
        looks_at="free room on their disks",
        explains="Less room than a run, or the demo model where it is not here yet, takes.",
        look=disk,
    ),
)
