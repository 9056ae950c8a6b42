"""How long training takes: floating-point operations over what the device does a second, with an honest interval.

A forward pass costs 2 operations a parameter and token, the backward pass as much again for what must reach the
trained parts, and once more where the base's own weights get gradients; checkpointing adds a forward pass. What a
device really does a second is a share of its peak that depends on the model and the batch: that share is the
interval's width. Table 2.10 of the thesis checks the order of the methods (adapters below full fine-tuning, masks
above), not the seconds.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftselect.method import Method, Recipe
    from peftselect.problem import Problem

#: dense 16-bit peak in 1e12 operations a second, from the makers' data sheets; matched within the device's name
PEAK_TERAFLOPS: dict[str, float] = {
    "h200": 989, "h100": 989, "a100": 312, "l40s": 362, "l40": 181, "a40": 150, "a10": 125, "v100": 125, "t4": 65,
    "rtx 5090": 209, "rtx 4090": 165, "rtx 4080": 97, "rtx 4070": 58, "rtx 3090": 71, "rtx 3080": 60, "rtx 3070": 41,
    "rtx 3060": 26, "rtx 3050": 18,
}  # fmt: skip
#: a core with wide vector units, float32
CPU_TERAFLOPS_A_CORE = 0.05
#: share of the peak that training reaches: middle, and the ends of an 80 % interval
UTILISATION = (0.3, 0.12, 0.5)
#: a card that is not in the table is taken for one between an RTX 3050 and an A100
UNKNOWN_TERAFLOPS = (71.0, 18.0, 312.0)
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
    operations = _operations(problem, method, values, recipe) * examples * recipe.num_train_epochs
    scale = QUANTISED_FACTOR if recipe.quantization else 1.0
    middle, slow, fast = (scale * operations / speed for speed in speeds)
    return Interval(*(round(seconds + START_SECONDS, 1) for seconds in (middle, fast, slow)))


def _operations(problem: Problem, method: Method, values: Mapping[str, Any], recipe: Recipe) -> float:
    """Floating-point operations of one training example, forward and backward."""
    shape, data = problem.shape, problem.data
    traits = method.memory(shape, values, 2)
    source = data.source_tokens_p50 or math.ceil(TYPICAL_SHARE * recipe.max_length)
    target = data.target_tokens_p50 or math.ceil(TYPICAL_SHARE * recipe.max_target_length)
    lengths = {
        "encoder": min(source, recipe.max_length) + traits.virtual_tokens,
        "decoder": (target or source) + (traits.virtual_tokens if shape.architecture == "decoder" else 0),
    }
    if shape.architecture == "decoder":
        lengths["decoder"] = min(source + target, recipe.max_length + recipe.max_target_length) + traits.virtual_tokens
    forward = sum(2.0 * x.runs * x.in_features * x.out_features * lengths[x.stack] for x in shape.linears)
    logits = shape.head.width if shape.head.kind in ("causal_lm", "seq2seq_lm") else 0
    forward += 2.0 * logits * shape.hidden_size * lengths["decoder"]
    passes = 1.0 if traits.backward_reaches == "top" else 2.0
    passes += 1.0 if traits.trains_base_weights else 0.0
    passes += 1.0 if recipe.gradient_checkpointing else 0.0
    return forward * passes


def _speeds(problem: Problem) -> tuple[float, float, float] | None:
    """Operations a second of all devices: middle, slow and fast end; None for a device nobody named."""
    machine = problem.hardware
    name = machine.name.lower()
    if name == "cpu":
        peak = (CPU_TERAFLOPS_A_CORE * (os.cpu_count() or 1),) * 3
    elif name:
        known = next((speed for card, speed in PEAK_TERAFLOPS.items() if card in name), None)
        peak = (known,) * 3 if known else UNKNOWN_TERAFLOPS
    elif machine.vram_bytes is not None:
        peak = UNKNOWN_TERAFLOPS
    else:
        return None
    middle, slow, fast = (1e12 * machine.devices * rate * share for rate, share in zip(peak, UTILISATION, strict=True))
    return middle, slow, fast
