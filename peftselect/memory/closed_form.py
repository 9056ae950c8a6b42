"""Peak memory of a training step by arithmetic: milliseconds, no torch.

Peak = what stays (weights, adapter, optimizer states) + the larger of two moments: the loss, when every kept
activation and the logits are alive, and the end of the backward pass, when every gradient is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from peftselect.memory import audio, states
from peftselect.memory.activations import Work, backward_bytes, head_bytes, kept_bytes, rerun_bytes, reversal_bytes
from peftselect.memory.regime import HALF, HALF_AUTOCAST, regime_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftselect.method import Method, Recipe
    from peftselect.problem import Sharding
    from peftselect.shape import ModelShape

MIB = 2**20
#: the CUDA context and the kernels loaded with it: outside the allocator, not measured here, an assumption
CUDA_CONTEXT_BYTES = 450 * MIB
#: cuBLAS keeps a workspace from its first product on (8.125 MiB on current cards)
WORKSPACE_BYTES = round(8.125 * MIB)
#: what the caching allocator reserves beyond what is asked for, seen on the traces of the study behind this model
FRAGMENTATION = 0.03
FITS_MARGIN = 0.08
BORDERLINE_MARGIN = -0.03
VerdictName = Literal["fits", "borderline", "does_not_fit"]
Source = Literal["closed_form", "fast_trace", "exact_trace"]


@dataclass(frozen=True)
class ErrorBand:
    """How far estimates of a kind were off: the median and about the worst absolute error, in percent of the peak."""

    median_percent: float
    worst_percent: float


#: published runs of a decoder in 16 bits on one device: worst 6.4 % (benchmarks/memory_error.py)
MEASURED_BAND = ErrorBand(1.58, 8.0)
#: everywhere else: activations and weights equal those of the real modules, the peak was not measured
UNMEASURED_BAND = ErrorBand(5.0, 15.0)


@dataclass(frozen=True)
class MemoryEstimate:
    """Predicted peak of the allocator on one device, in bytes, without the CUDA context.

    ``breakdown`` sums to ``peak_bytes`` but for ``cuda_context``, which comes on top of it.
    """

    peak_bytes: int
    breakdown: Mapping[str, int]
    band: ErrorBand
    source: Source = "closed_form"

    @property
    def error_band_percent(self) -> float:
        """About the worst error of estimates of this kind."""
        return self.band.worst_percent

    @property
    def device_bytes(self) -> int:
        """Peak and context together: what the card must have."""
        return self.peak_bytes + self.breakdown.get("cuda_context", 0)


@dataclass(frozen=True)
class Verdict:
    """Whether an estimate fits a budget, and by how much (bytes; None without a budget)."""

    verdict: VerdictName
    margin_bytes: int | None

    @property
    def fits(self) -> bool:
        """True unless it does not fit; a borderline estimate may."""
        return self.verdict != "does_not_fit"


def estimate_memory(
    shape: ModelShape,
    method: Method,
    values: Mapping[str, Any],
    recipe: Recipe,
    *,
    devices: int = 1,
    sharding: Sharding = "none",
    keeps_outputs: bool = False,
) -> MemoryEstimate:
    """Price a recipe on one of ``devices``.

    The micro-batch is taken at the recipe's longest length, padded. ``keeps_outputs`` is for training loops that hold
    on to the logits and let the model build a key/value cache while it trains, which ``run`` does not.
    """
    traits = method.memory(shape, values, states.COMPUTE_BYTES[recipe.precision])
    regime = regime_of(recipe, traits)
    trainable = method.trainable_parameters(shape, values)
    width = states.trainable_bytes(traits, recipe)
    work = Work.of(shape, traits, recipe.micro_batch_size, recipe.max_length, recipe.max_target_length)
    with_gradient = 0 if traits.backward_reaches == "nothing" else trainable
    held = states.per_device(
        {
            "weights": states.weight_bytes(shape, traits, recipe),
            "adapter": (0 if traits.trains_base_weights else trainable * states.FLOAT32) + round(traits.held_bytes),
            "gradients": with_gradient * width,
            "optimizer": states.optimizer_bytes(with_gradient, traits, recipe),
        },
        devices,
        sharding,
    )
    kept = kept_bytes(
        shape, traits, work, regime, checkpointing=recipe.gradient_checkpointing, keeps_outputs=keeps_outputs
    ) + states.autocast_bytes(shape, traits, recipe, trainable)
    forward_only = traits.backward_reaches == "nothing"
    logits = head_bytes(shape, work, regime, keeps_outputs=keeps_outputs, forward_only=forward_only)
    # where nothing of the body is run backwards, what passes through a block is counted as kept already
    block = 0 if traits.backward_reaches in ("top", "nothing") else backward_bytes(shape, work, regime)
    block += reversal_bytes(shape, traits, work, regime)
    passing = max(block, states.dequantised_bytes(shape, recipe), traits.unpacking_bytes)
    if recipe.gradient_checkpointing:
        passing += rerun_bytes(shape, traits, work, regime)
    ending = max(states.tied_bytes(shape, traits, recipe), round(traits.passing_bytes))
    waiting = held["gradients"] if recipe.gradient_accumulation_steps > 1 else 0
    step = states.step_bytes(with_gradient, shape, traits, recipe)
    if forward_only:
        step = states.direction_bytes(shape, traits, recipe)
    elif traits.trains_base_weights or traits.reaches_front:
        kept += audio.kept_bytes(shape, work.batch, recipe.max_length, regime)
    moments = {
        "front": {"activations": audio.passing_bytes(shape, work.batch, recipe.max_length, regime)},
        "loss": {"activations": 0 if forward_only else kept, "logits_and_loss": logits, "gradients": waiting},
        "backward": {"activations": kept + passing, "gradients": waiting},
        "end": {"activations": max(passing, ending), "gradients": held["gradients"]},
        "step": {"optimizer_step": step, "gradients": held["gradients"]},
    }
    if before := states.loaded_bytes(shape, traits, recipe):
        moments["packing"] = {"packing": max(before - held["optimizer"] - held["adapter"], 0)}
    at_peak = max(moments.values(), key=lambda parts: sum(parts.values()))
    stays = {name: held[name] for name in ("weights", "adapter", "optimizer")}
    parts = {**stays, "gradients": 0, "activations": 0, "logits_and_loss": 0, **at_peak}
    parts["workspace"] = WORKSPACE_BYTES
    parts["fragmentation"] = round(FRAGMENTATION * (sum(at_peak.values()) + WORKSPACE_BYTES))
    peak = sum(parts.values())
    measured = (
        shape.architecture == "decoder"
        and regime in (HALF, HALF_AUTOCAST)
        and devices == 1
        and not recipe.gradient_checkpointing
        and traits.backward_reaches not in ("top", "nothing")
    )
    band = MEASURED_BAND if measured else UNMEASURED_BAND
    return MemoryEstimate(peak, {**parts, "cuda_context": CUDA_CONTEXT_BYTES}, band)


def verdict(estimate: MemoryEstimate, vram_bytes: int | None) -> Verdict:
    """Hold an estimate against a budget: margin = (budget - context - peak) / peak.

    8 % or more fits, -3 % to 8 % is borderline, less does not fit. Without a budget everything fits.
    """
    if vram_bytes is None:
        return Verdict("fits", None)
    margin = vram_bytes - estimate.device_bytes
    share = margin / max(estimate.peak_bytes, 1)
    if share >= FITS_MARGIN:
        return Verdict("fits", margin)
    return Verdict("borderline" if share >= BORDERLINE_MARGIN else "does_not_fit", margin)
