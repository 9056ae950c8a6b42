"""The embedded example: a small model and generated dialogues with their summaries, so that ``run`` works offline.

``benchmarks/build_example.py`` generates all of it. The model is an example, no language model of any quality: it was
taught to answer questions about such dialogues, and has never seen a summary.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from peftselect.resources import shipped

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class ExampleSettings:
    """What ``run`` uses when it is called without arguments.

    ``values`` override the method's hyperparameters, ``recipe`` the fields of :class:`peftselect.method.Recipe` by
    their names (``batch_size`` is the effective one of the problem). A model this small wants a higher learning rate
    and more epochs than the defaults, which are made for models a hundred times its size.
    """

    task: str
    method: str
    values: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)


def example_model() -> Path:
    """The folder of the embedded model: config.json, weights and tokenizer."""
    return Path(str(shipped("example", "model")))


def example_data() -> dict[str, Path]:
    """The files of the embedded data by split: "train", "validation" and "test"."""
    return {split: Path(str(shipped("example", "data", f"{split}.jsonl"))) for split in SPLITS}


@cache
def settings() -> ExampleSettings:
    """The example's own settings, as settings.toml has them."""
    return ExampleSettings(**tomllib.loads(shipped("example", "settings.toml").read_text(encoding="utf-8")))
