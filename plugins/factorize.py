"""Low-rank factorization: every linear layer of the blocks becomes the nearest matrix of a smaller rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Reference, Stage, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import StageContext


class Factorize(Stage):
    """Truncated singular value decomposition, W ≈ U·V."""

    name = "factorize"
    title = "Low-rank factorization"
    summary = "Replaces each linear layer of the blocks by the nearest one of a given rank, W ≈ U·V."
    aliases = ("low_rank_factorization", "low_rank_decomposition", "matrix_factorization", "svd")
    references = (
        Reference("Exploiting Linear Structure Within Convolutional Networks", "https://arxiv.org/abs/1404.0736", 2014),
    )
    thesis = ("2.2.4",)
    places = frozenset({"before", "after"})
    limits = ("It pays only where the rank is below in·out / (in + out).",)
    simplified = ("U·V is stored multiplied out, so that plain transformers loads it: the file does not shrink.",)

    def hyperparameters(self) -> Sequence[Hyperparameter]:
        """The share of each matrix's rank that is kept."""
        return (Hyperparameter("keep", 0.5, "float", "share of the full rank", 0.001, 1.0, search=(0.25, 0.5)),)

    def change(self, model: Any, values: Mapping[str, Any], context: StageContext) -> Any:
        """Factorise in place; the report says what the factors would hold."""
        import torch

        full = factors = 0
        for name, module in model.named_modules():
            if any(name.endswith("." + linear.path) for linear in context.shape.linears):
                weight = module.weight.data
                rank = max(round(min(weight.shape) * values["keep"]), 1)
                left, size, right = torch.linalg.svd(weight.float(), full_matrices=False)
                module.weight.data = ((left[:, :rank] * size[:rank]) @ right[:rank]).to(weight.dtype)
                full += weight.numel()
                factors += rank * sum(weight.shape)
        context.report.update(weights=full, weights_as_factors=factors)
        return model


@hookimpl
def register_stages() -> tuple[type[Stage], ...]:
    """Offer factorization."""
    return (Factorize,)
