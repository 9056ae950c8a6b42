"""Every extension point of peftselect. If it is not here, plugins cannot do it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.resources.abc import Traversable

    from peftselect.method import Method
    from peftselect.stage import Stage
    from peftselect.task import Task

hookspec = pluggy.HookspecMarker("peftselect")
hookimpl = pluggy.HookimplMarker("peftselect")


@hookspec
def register_methods() -> Iterable[type[Method]]:
    """Return the fine-tuning methods which this plugin adds (classes, not instances)."""
    return ()


@hookspec
def register_stages() -> Iterable[type[Stage]]:
    """Return the stages (done before or after a method) which this plugin adds (classes, not instances)."""
    return ()


@hookspec
def register_tasks() -> Iterable[type[Task]]:
    """Return the tasks which this plugin adds (classes, not instances)."""
    return ()


@hookspec
def register_rules() -> Iterable[Traversable]:
    """Return TOML files with rules (see rules/README.md)."""
    return ()


@hookspec
def register_records() -> Iterable[Traversable]:
    """Return JSON-lines files with run records (see benchmarks/README.md)."""
    return ()


@hookspec
def register_techniques() -> Iterable[Traversable]:
    """Return TOML files with techniques which cannot be run, why, and what to use instead (rules/techniques.toml)."""
    return ()
