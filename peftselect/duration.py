"""How long training takes: floating-point operations over what the device does a second, with an honest interval.

A forward pass costs 2 operations a parameter and token, the backward pass as much again for what must reach the
trained parts, and once more where the base's own weights get gradients; checkpointing adds a forward pass. What a
device really does a second is a share of its peak that depends on the model and the batch: that share is the
interval's width. Small models wait for the card to start their operations, which sets a floor.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from peftselect.method import LANGUAGE_MODEL_HEADS
from peftselect.resources import shipped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftselect.method import Method, Recipe
    from peftselect.problem import Problem
    from peftselect.shape import LinearModule

DEVICES = "devices.toml"
#: a core with wide vector units, float32
CPU_TERAFLOPS_A_CORE = 0.05
#: share of the peak that training reaches: middle, and the ends of an 80 % interval. The published runs of
#: benchmarks/results/peft_metamathqa (L40S, batch 4, evaluation included) reach 0.12 to 0.21.
UTILISATION = (0.2, 0.08, 0.45)
#: float32 products take about twice the time of 16-bit ones where the card has TF32, more where it has not
FLOAT32_FACTOR = 2.0
#: a card that is not in the table is taken for one between an RTX 3050 and an A100
UNKNOWN_TERAFLOPS = (71.0, 18.0, 312.0)
#: a card cannot start the small operations of one block, forward and backward, faster than this (middle, slow, fast)
LAUNCH_SECONDS = (1.2e-3, 3e-3, 0.5e-3)
#: dequantising a 4-bit base for every product
QUANTISED_FACTOR = 1.4
START_SECONDS = 20.0
#: padding makes batches longer than their typical row
TYPICAL_SHARE = 0.6


@dataclass(frozen=True)
class Interval:
    """A predicted value with the ends of its 80 % interval."""

    value: float
    low: float
    high: float


def predict_train_seconds(
    problem: Problem, method: Method, values: Mapping[str, Any], recipe: Recipe
) -> Interval | None:
    """Seconds of training with an interval; None where the number of examples or the device is unknown."""
    examples = problem.data.num_examples
    speeds = _speeds(problem)
    if not examples or speeds is None:
        return None
    steps = examples * recipe.num_train_epochs / recipe.micro_batch_size / problem.hardware.devices
    launches = (
        [0.0] * 3 if problem.hardware.name == "cpu" else [steps * problem.shape.num_layers * t for t in LAUNCH_SECONDS]
    )
    scale = (QUANTISED_FACTOR if recipe.quantization else 1.0) * _precision_factor(problem, recipe)
    operations = scale * examples * recipe.num_train_epochs * _operations(problem, method, values, recipe)
    middle, slow, fast = (max(operations / speed, wait) for speed, wait in zip(speeds, launches, strict=True))
    return Interval(*(round(seconds + START_SECONDS, 1) for seconds in (middle, fast, slow)))


def _precision_factor(problem: Problem, recipe: Recipe) -> float:
    return FLOAT32_FACTOR if recipe.precision == "fp32" and problem.hardware.name != "cpu" else 1.0


@cache
def peak_teraflops() -> dict[str, float]:
    """Peak of each known device by name, the longest names first (``rules/devices.toml``)."""
    document = tomllib.loads(shipped("rules", DEVICES).read_text(encoding="utf-8"))
    found = {str(entry["name"]): float(entry["teraflops"]) for entry in document["device"]}
    return dict(sorted(found.items(), key=lambda item: -len(item[0])))


def _operations(problem: Problem, method: Method, values: Mapping[str, Any], recipe: Recipe) -> float:
    """Floating-point operations of one training example, forward and backward."""
    shape, data = problem.shape, problem.data
    traits = method.memory(shape, values, 2)
    source = data.source_tokens_p50 or math.ceil(TYPICAL_SHARE * recipe.max_length)
    target = data.target_tokens_p50 or math.ceil(TYPICAL_SHARE * recipe.max_target_length)
    lengths = {
        "encoder": shape.positions(min(source, recipe.max_length)) + traits.virtual_tokens,
        "decoder": (target or source) + (traits.virtual_tokens if shape.architecture == "decoder" else 0),
    }
    if shape.architecture == "decoder":
        lengths["decoder"] = min(source + target, recipe.max_length + recipe.max_target_length) + traits.virtual_tokens
    forward = sum(2.0 * x.runs * x.in_features * x.out_features * lengths[_read_by(x)] for x in shape.linears)
    logits = shape.head.width if shape.head.kind in LANGUAGE_MODEL_HEADS else 0
    forward += 2.0 * logits * shape.hidden_size * lengths["decoder"]
    if traits.backward_reaches == "nothing":
        return 2.0 * forward  # the loss on both sides of the weights
    passes = 1.0 if traits.backward_reaches == "top" else 2.0
    passes += 1.0 if traits.trains_base_weights else 0.0
    passes += 1.0 if recipe.gradient_checkpointing else 0.0
    return forward * passes


def _read_by(linear: LinearModule) -> str:
    """The stack whose positions the layer reads: keys and values of a cross-attention read the encoder's."""
    return "encoder" if linear.cross_attention and linear.role in ("key", "value") else linear.stack


def _speeds(problem: Problem) -> tuple[float, float, float] | None:
    """Operations a second of all devices: middle, slow and fast end; None for a device nobody named."""
    machine = problem.hardware
    name = machine.name
    if name == "cpu":
        peak = (CPU_TERAFLOPS_A_CORE * (os.cpu_count() or 1),) * 3
    elif name:
        table = peak_teraflops()
        known = next((table[card] for card in table if re.search(rf"\b{card}\b", name, re.IGNORECASE)), None)
        peak = (known,) * 3 if known else UNKNOWN_TERAFLOPS
    elif machine.vram_bytes is not None:
        peak = UNKNOWN_TERAFLOPS
    else:
        return None
    middle, slow, fast = (1e12 * machine.devices * rate * share for rate, share in zip(peak, UTILISATION, strict=True))
    return middle, slow, fast
