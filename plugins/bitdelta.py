"""BitDelta: what fine-tuning has changed is kept at one bit a weight and one scale a matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Reference, Stage, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import Hyperparameter, Method, ModelShape, StageContext


class BitDelta(Stage):
    """The sign of each change, times the mean size of the matrix's changes (Liu et al. 2024, section 3.1)."""

    name = "bitdelta"
    title = "BitDelta"
    summary = "Keeps of each change that fine-tuning made to a block's weights the sign alone, and one scale a matrix."
    aliases = ("bit_delta",)
    references = (
        Reference("BitDelta: Your Fine-Tune May Only Be Worth One Bit", "https://arxiv.org/abs/2402.10193", 2024),
    )
    thesis = ("2.3",)
    places = frozenset({"after"})
    limits = ("Heads, embeddings and norms stay as they were trained.",)
    simplified = (
        "Scales are the means of the changes; the paper also trains them on the tuned model's logits.",
        "The result is stored added up, so that plain transformers loads it: the report says what signs alone take.",
    )

    def hyperparameters(self) -> Sequence[Hyperparameter]:
        """None."""
        return ()

    def refuse(self, shape: ModelShape, method: Method, values: Mapping[str, Any]) -> str | None:
        """Something must have been trained."""
        return f"{method.name} changes nothing" if method.kind == "baseline" else None

    def change(self, model: Any, values: Mapping[str, Any], context: StageContext) -> Any:
        """Replace each change by its sign times their mean size, in place."""
        import torch

        base = dict(context.load(context.base).named_modules())
        weights = matrices = 0
        with torch.no_grad():
            for name, module in model.named_modules():
                if not any(name.endswith("." + linear.path) for linear in context.shape.linears):
                    continue
                before = base[name].weight.float()
                delta = module.weight.float() - before
                # a weight that did not move counts as moved up, as one bit has no zero
                sign = torch.where(delta < 0, -1.0, 1.0) if delta.any() else torch.zeros_like(delta)
                module.weight.copy_(before + delta.abs().mean() * sign)
                weights, matrices = weights + delta.numel(), matrices + 1
        context.report.update(weights=weights, matrices=matrices, delta_bytes=weights // 8 + 4 * matrices)
        return model


@hookimpl
def register_stages() -> tuple[type[Stage], ...]:
    """Offer BitDelta."""
    return (BitDelta,)
