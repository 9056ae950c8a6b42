"""Published names for tasks, metrics, methods and models, and ours (``rules/vocabulary.toml``)."""

from __future__ import annotations

import tomllib
from functools import cache
from typing import Any

from peftselect.resources import shipped


@cache
def _tables() -> dict[str, dict[str, Any]]:
    return tomllib.loads(shipped("rules", "vocabulary.toml").read_text(encoding="utf-8"))


def _ours(table: str, name: str) -> str:
    return str(_tables()[table].get(name.strip().lower(), name.strip()))


def task_name(task_type: str, dataset: str = "") -> str:
    """Our task for a published task type; the data set decides where it is printed under another task's name."""
    return str(_tables()["datasets"].get(dataset.lower()) or _ours("tasks", task_type))


def task_family(task: str) -> str:
    """The family of one of our tasks, or of a task that only records have; empty for one that is not known."""
    return str(_tables()["families"].get(task, ""))


def metric_name(metric: str) -> str:
    """Our name of a published metric."""
    return _ours("metrics", metric)


def method_name(method: str) -> str:
    """Our name of a published method."""
    return _ours("methods", method)


def model_facts(model: str) -> dict[str, str]:
    """``model_type`` and ``architecture`` of a model named in published tables; empty for one that is not known."""
    return dict(_tables()["models"].get(model.lower(), {}))
