"""AdaLoRA must have ranks to take away: peft fails in the middle of training when it has none."""

from __future__ import annotations

import pytest

from peftselect.method import resolve_values
from peftselect.plugin_manager import host
from peftselect.shapes import read_shape
from tests.tiny import config


@pytest.mark.parametrize(
    ("init_r", "target_r", "reason"),
    [
        (9, 8, None),
        (8, 8, "target_r=8 equals init_r: there is no rank to take away (LoRA does that)"),
        (4, 8, "target_r=8 is above init_r=4: ranks are only taken away"),
    ],
)
def test_the_target_lies_below_the_start(init_r: int, target_r: int, reason: str | None) -> None:
    method, shape = host().method("adalora"), read_shape(config("llama").to_dict())
    values = resolve_values(method, shape, {"init_r": init_r, "target_r": target_r})
    assert method.unsupported(shape, values) == reason
