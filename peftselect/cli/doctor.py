"""Check this installation: versions, card, memory, hub, plugins, folders; and what to do about each."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import click

from peftselect.cli import options

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: memory of the machine under which even loading a base model is a strain
LITTLE_MEMORY_GIB = 8
_MARKS = {"ok": ("ok", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "bold red")}


@dataclass(frozen=True)
class Check:
    """One finding; ``advice`` says what to do about it. Only "fail" makes the exit code 1."""

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""


@click.command()
@options.json_option
def doctor(as_json: bool) -> int:
    """Check versions, card, memory, hub access, plugins and folders, and say what to do about each.

    Exit code 0: all that is needed is there; 1: something must be mended. Nothing heavy is imported.
    """
    from peftselect.cli import console

    checks = [
        *check_packages(),
        check_device(),
        check_memory(),
        check_hub(),
        *check_plugins(),
        *check_folders(),
    ]
    failed = any(check.status == "fail" for check in checks)
    if as_json:
        console.print_json({"schema": 1, "ok": not failed, "checks": [asdict(check) for check in checks]})
        return int(failed)
    rows = [
        (console.styled(*_MARKS[check.status]), check.name, ". ".join(filter(None, (check.found, check.advice))))
        for check in checks
    ]
    console.table("peftselect doctor", ("", "what", "found"), rows)
    console.say("Something must be mended (FAIL)." if failed else "All that is needed is there.")
    return int(failed)


def check_packages() -> Iterator[Check]:
    """Python, peftselect, and every required package against the version it was declared with."""
    from importlib import metadata

    yield Check("python", "ok", f"{sys.version.split()[0]} ({sys.executable})")
    try:
        needs = metadata.requires("peftselect") or []
        yield Check("peftselect", "ok", metadata.version("peftselect"))
    except metadata.PackageNotFoundError:
        yield Check("peftselect", "fail", "not installed", "install it: pip install -e . in the clone")
        return
    from packaging.requirements import Requirement

    for need in map(Requirement, sorted(needs)):
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        install = f"pip install '{need.name}{need.specifier}'"
        try:
            version = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            yield Check(need.name, "fail", "not installed", install)
            continue
        right = need.specifier.contains(version, prereleases=True)
        wanted = f"{version}, but {need.specifier} is needed"
        yield Check(need.name, "ok", version) if right else Check(need.name, "fail", wanted, install)


def check_device() -> Check:
    """The card, as the driver reports it."""
    from peftselect.hardware import read_card
    from peftselect.words import size

    card = read_card()
    if card is None:
        advice = "recommend works without one (give --vram); run will train on the CPU, slowly"
        return Check("card", "warn", "none found", advice)
    return Check("card", "ok", f"{card[0]}, {size(card[1])}")


def check_memory() -> Check:
    """The machine's own memory."""
    from peftselect.words import size

    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return Check("memory", "warn", "cannot be read on this system")
    found = f"{size(total)}, {os.cpu_count()} CPU cores"
    if total < LITTLE_MEMORY_GIB * 1024**3:
        return Check("memory", "warn", found, "take small base models: loading one needs its size in memory")
    return Check("memory", "ok", found)


def check_hub() -> Check:
    """Whether models may be fetched."""
    switched_off = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name, "0") != "0"]
    if switched_off:
        advice = "only local folders and cached models can be used; unset it to fetch others"
        return Check("hub", "warn", f"offline ({switched_off[0]} is set)", advice)
    return Check("hub", "ok", "models may be fetched (not tried)")


def check_plugins() -> Iterator[Check]:
    """The plugin host, and each plugin that could not be loaded."""
    from peftselect.plugin_manager import host

    yield Check("plugins", "ok", f"{len(host().methods())} methods, {len(host().tasks())} tasks")
    for name, reason in sorted(host().broken.items()):
        yield Check(f"plugin {name}", "fail", reason, "reinstall it, or PEFTSELECT_DISABLE_PLUGINS=NAME")


def check_folders() -> Iterator[Check]:
    """The folders for the user's records and cache."""
    from peftselect.resources import HOME_VARIABLE, user_cache_folder, user_data_folder

    for name, folder in (("data folder", user_data_folder()), ("cache folder", user_cache_folder())):
        if _writable(folder):
            yield Check(name, "ok", str(folder))
        else:
            yield Check(name, "fail", f"{folder} cannot be written", f"set {HOME_VARIABLE} to a folder of yours")


def _writable(folder: Path) -> bool:
    """Whether ``folder`` can be written, or made in the nearest folder above that exists."""
    for place in (folder, *folder.parents):
        if place.exists():
            return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    return False
