"""Pruning: the smallest weights become zero, or the feed-forward channels that matter least are cut out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Reference, Stage, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from peftselect import LinearModule, Method, ModelShape, StageContext

#: where configurations keep the width of the feed-forward part
_WIDTHS = ("intermediate_size", "d_ff", "n_inner", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "hidden_dim")
_INSIDE = ("ffn_in", "ffn_gate")


class Prune(Stage):
    """Magnitude pruning of the blocks' linear layers; structured, whole feed-forward channels go."""

    name = "prune"
    title = "Pruning"
    summary = "Sets the smallest weights to zero, or cuts out the feed-forward channels that matter least."
    aliases = (
        "pruning", "unstructured_pruning", "structured_pruning", "network_pruning", "weight_pruning",
    )  # fmt: skip
    # Han et al. 2015, section 3: the smallest magnitudes go; Li et al. 2017, section 3.1: channels by their norm
    references = (
        Reference("Learning both Weights and Connections", "https://arxiv.org/abs/1506.02626", 2015),
        Reference("Pruning Filters for Efficient ConvNets", "https://arxiv.org/abs/1608.08710", 2017),
    )  # fmt: skip
    thesis = ("2.2.1",)
    places = frozenset({"before", "after"})
    limits = (
        "Unstructured pruning leaves zeros in matrices of the old size: no memory is saved without a sparse format.",
        "The predicted parameters and memory are those of the base before it is pruned.",
        "Merging an adapter fills zeros of the layers it changed.",
    )
    simplified = ("One round, and no training in between; the method that follows is what recovers the quality.",)

    def hyperparameters(self) -> Sequence[Hyperparameter]:
        """How much goes, and in what unit."""
        return (
            Hyperparameter("sparsity", 0.5, "float", "share that is pruned", 0.0, 0.99, search=(0.3, 0.5, 0.7)),
            Hyperparameter("structured", False, "bool", "cut out whole feed-forward channels"),
            Hyperparameter("scope", "layer", "str", "rank within a layer or over all", choices=("layer", "all")),
        )

    def refuse(self, shape: ModelShape, method: Method, values: Mapping[str, Any]) -> str | None:
        """Channels need a feed-forward part of separate matrices."""
        if not values["structured"]:
            return None
        if values["scope"] == "all":
            return "channels are ranked within a layer, so that all keep one width (scope=layer)"
        if not shape.by_role("ffn_out") or shape.by_role("ffn_gate_in") or len({*_widths(shape)}) != 1:
            return f"the feed-forward channels of {shape.model_type} cannot be cut out"
        return None

    def change(self, model: Any, values: Mapping[str, Any], context: StageContext) -> Any:
        """Prune in place."""
        before = sum(item.numel() for item in model.parameters())
        if values["structured"]:
            _cut_channels(model, context.shape, values["sparsity"])
            after = sum(item.numel() for item in model.parameters())
            context.report.update(parameters_before=before, parameters_after=after)
        else:
            zeros, weights = _zero_smallest(model, context.shape, values["sparsity"], values["scope"] == "all")
            context.report.update(zero_weights=zeros, prunable_weights=weights)
        return model


def _widths(shape: ModelShape) -> Iterator[int]:
    yield from (linear.in_features for linear in shape.by_role("ffn_out"))


def _layers(model: Any, shape: ModelShape) -> Iterator[tuple[str, Any, Any]]:
    """(name of the block, group, module) of every linear layer of the blocks."""
    for name, module in model.named_modules():
        for linear in shape.linears:
            block = name[: -len(linear.path) - 1]
            if name.endswith("." + linear.path) and block.rpartition(".")[2].isdigit():
                yield block, linear, module
                break  # both stacks of an encoder-decoder may have layers of this name


def _zero_smallest(model: Any, shape: ModelShape, sparsity: float, over_all: bool) -> tuple[int, int]:
    from torch.nn.utils import prune

    modules = list({id(module): module for _, _, module in _layers(model, shape)}.values())
    pairs = [(item, "weight") for item in modules]
    trained = [item.weight.requires_grad for item in modules]
    for group in [pairs] if over_all else [[pair] for pair in pairs]:
        prune.global_unstructured(group, prune.L1Unstructured, amount=sparsity)
    for (item, name), grad in zip(pairs, trained, strict=True):
        prune.remove(item, name)  # type: ignore[no-untyped-call]
        item.weight.requires_grad_(grad)
    return sum(int((item.weight == 0).sum()) for item in modules), sum(item.weight.numel() for item in modules)


def _cut_channels(model: Any, shape: ModelShape, sparsity: float) -> None:
    import torch

    old = next(_widths(shape))
    kept = max(round(old * (1 - sparsity)), 1)
    blocks: dict[str, list[tuple[Any, Any]]] = {}
    for block, linear, module in _layers(model, shape):
        if linear.role in (*_INSIDE, "ffn_out"):
            blocks.setdefault(block, []).append((linear, module))
    with torch.no_grad():
        for pairs in blocks.values():
            # a channel is a row of what leads in and a column of what leads out; norms over both
            score: Any = 1.0
            for linear, module in pairs:
                score = score * module.weight.float().norm(dim=_channel_axis(linear, other=True))
            keep = score.topk(kept).indices.sort().values
            for linear, module in pairs:
                _slice(module, keep, _channel_axis(linear), outputs=linear.role != "ffn_out")
    for config in {id(item): item for item in (model.config, *_sub_configs(model.config))}.values():
        for name in _WIDTHS:
            if getattr(config, name, 0) == old or (name == "n_inner" and getattr(config, name, 0) is None):
                setattr(config, name, kept)


def _channel_axis(linear: LinearModule, other: bool = False) -> int:
    """The axis of the weight along which the channels lie (a Conv1D's weight is turned round)."""
    axis = 1 if linear.role == "ffn_out" else 0
    return axis ^ int(linear.conv1d) ^ int(other)


def _slice(module: Any, keep: Any, axis: int, outputs: bool) -> None:
    module.weight.data = module.weight.data.index_select(axis, keep).contiguous()
    if outputs and module.bias is not None:
        module.bias.data = module.bias.data[keep].contiguous()
    for name in ("out_features", "nf") if outputs else ("in_features", "nx"):
        if hasattr(module, name):
            setattr(module, name, len(keep))


def _sub_configs(config: Any) -> Iterator[Any]:
    yield from (getattr(config, name) for name in getattr(config, "sub_configs", {}) if getattr(config, name, None))


@hookimpl
def register_stages() -> tuple[type[Stage], ...]:
    """Offer pruning."""
    return (Prune,)
