"""Ladder side-tuning: a small transformer beside the base, whose blocks read those of the base over gates.

Sung et al. 2022 (arXiv 2206.06522). Before side block i, ``s <- m_i s + (1 - m_i) down_i(h_i)`` with
``m_i = sigmoid(a_i / T)``; the first state is a projection of the input embeddings. A side decoder attends to the side
encoder. Side blocks start as the base's blocks with the least important channels pruned.

Without the gates it is the side network of side-tuning (Zhang et al. 2020, arXiv 1912.13503), which reads the input
alone and is blended with the base at the end: ``a B(x) + (1 - a) S(x)``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import nn
from transformers.activations import ACT2FN

from peftselect.tuners.pruned import prune_into
from peftselect.tuners.registry import register_tuner
from peftselect.tuners.side import SideConfig, SideLayer, SideModel, attended, seen

if TYPE_CHECKING:
    from collections.abc import Mapping

#: temperature of the gates
TEMPERATURE = 0.1


@dataclass
class LadderConfig(SideConfig):
    """``paths`` names the linear layers of a block by stack and by what they do, for the side block to start from."""

    type_name: ClassVar[str] = "PSEL_LADDER"

    side: int = field(default=0, metadata={"help": "width of the side network"})
    heads: int = field(default=0, metadata={"help": "query heads of a side block"})
    kv_heads: int = field(default=0, metadata={"help": "key/value heads of a side block"})
    head_dim: int = field(default=0, metadata={"help": "size of a head"})
    inner: int = field(default=0, metadata={"help": "inner width of a side block's feed-forward part"})
    gated: bool = field(default=False, metadata={"help": "whether that part has a gate"})
    activation: str = field(default="gelu", metadata={"help": "its activation"})
    rms_norm: bool = field(default=False, metadata={"help": "root-mean-square norms"})
    scaled: bool = field(default=True, metadata={"help": "whether scores are divided by the root of the head's size"})
    reads: bool = field(default=True, metadata={"help": "whether side blocks read the base's, not the input alone"})
    merge: Literal["add", "replace", "blend"] = field(
        default="add", metadata={"help": "how the side network's result meets the base's last states"}
    )
    share: float = field(default=0.5, metadata={"help": "share of the base in a blend, at first"})
    paths: dict[str, dict[str, str]] = field(default_factory=dict, metadata={"help": "linear layers by role"})


class LadderLayer(SideLayer):
    """A block of the base and its side block; the first one holds the entry, the last one the way out."""

    adapter_layer_names = tuple(
        f"psel_ladder_{name}"
        for name in (
            "gate", "down", "first", "norm1", "query", "key", "value", "output",
            "norm2", "cross_query", "cross_key", "cross_value", "cross_output",
            "norm3", "ffn_gate", "ffn_in", "ffn_out", "final", "up", "share",
        )
    )  # fmt: skip
    parameter_names: ClassVar[tuple[str, ...]] = ("psel_ladder_gate", "psel_ladder_share")

    def make(self, adapter: str, config: Any) -> Mapping[str, nn.Module | nn.Parameter]:
        """A side block with its gate and projection, begun from the base's block where its layers are at hand."""
        side, queries, keys = config.side, config.heads * config.head_dim, config.kv_heads * config.head_dim
        norm = nn.RMSNorm if config.rms_norm else nn.LayerNorm
        made: dict[str, nn.Module | nn.Parameter] = {}
        if config.reads:
            made["gate"], made["down"] = nn.Parameter(torch.zeros(1)), nn.Linear(config.width, side)
        if self.index == 0:
            made["first"] = nn.Linear(config.width, side)
        for before in ("", "cross_") if self.crosses(config) else ("",):
            made["norm2" if before else "norm1"] = norm(side, eps=1e-6)
            for name, wide_in, wide_out in (
                ("query", side, queries), ("key", side, keys), ("value", side, keys), ("output", queries, side),
            ):  # fmt: skip
                made[before + name] = nn.Linear(wide_in, wide_out, bias=False)
        made["norm3"] = norm(side, eps=1e-6)
        for name in ("ffn_gate", "ffn_in") if config.gated else ("ffn_in",):
            made[name] = nn.Linear(side, config.inner, bias=False)
        made["ffn_out"] = nn.Linear(config.inner, side, bias=False)
        if not config.inference_mode:
            prune_into(made, self.base_layer, config.paths.get(self.stack(config), {}), config)
        if self.is_last(config):
            made["final"] = norm(side, eps=1e-6)
            if self.is_read(config):
                made["up"] = up = nn.Linear(side, config.width)
                if config.merge != "replace":
                    nn.init.zeros_(up.weight)
                nn.init.zeros_(up.bias)
                if config.merge == "blend":
                    made["share"] = nn.Parameter(torch.logit(torch.tensor([config.share])))
        return made

    def crosses(self, config: Any) -> bool:
        """Whether the side block attends to a side encoder."""
        return len(config.blocks) == 2 and self.stack(config) == "decoder"

    def rung(
        self, adapter: str, flow: torch.Tensor | None, before: torch.Tensor, after: torch.Tensor, given: dict[str, Any]
    ) -> torch.Tensor:
        """Mix in the base's states, then a block before whose parts stand norms."""
        config = self.configs[adapter]

        def leaf(name: str) -> Any:
            return self.leaf(name, adapter)

        state: torch.Tensor = leaf("first")(before) if flow is None else flow
        if config.reads:
            share = torch.sigmoid(leaf("gate") / TEMPERATURE).to(state.dtype)
            state = share * state + (1 - share) * leaf("down")(after)
        normed = leaf("norm1")(state)
        causal = self.stack(config) == "decoder"
        allowed = seen(given.get("attention_mask"), *2 * (state.shape[1],), causal=causal, device=state.device)
        state = state + self._attention(adapter, "", normed, normed, allowed)
        if self.crosses(config):
            read = self.tuner.flows[adapter, "encoder"]
            if len(read) != len(state):  # beams of one row
                read = read.repeat_interleave(len(state) // len(read), dim=0)
            mask = given.get("encoder_attention_mask")
            allowed = seen(mask, state.shape[1], read.shape[1], causal=False, device=state.device)
            state = state + self._attention(adapter, "cross_", leaf("norm2")(state), read, allowed)
        normed = leaf("norm3")(state)
        inner = ACT2FN[config.activation](leaf("ffn_gate" if config.gated else "ffn_in")(normed))
        state = state + leaf("ffn_out")(inner * leaf("ffn_in")(normed) if config.gated else inner)
        if self.is_last(config):
            state = leaf("final")(state)
        return state

    def leave(self, adapter: str, flow: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """The side network's states in the width of the base: beside its last ones, in their place, or mixed."""
        merge, result = self.configs[adapter].merge, self.leaf("up", adapter)(flow)
        if merge == "blend":
            share = torch.sigmoid(self.leaf("share", adapter))
            result = share * after + (1 - share) * result
        elif merge == "add":
            result = after + result
        whole: torch.Tensor = result
        return whole

    def _attention(
        self, adapter: str, kind: str, states: torch.Tensor, read: torch.Tensor, allowed: torch.Tensor | None
    ) -> torch.Tensor:
        config = self.configs[adapter]
        query, key, value = (
            self.leaf(kind + name, adapter)(source).unflatten(-1, (-1, config.head_dim))
            for name, source in (("query", states), ("key", read), ("value", read))
        )
        scale = None if config.scaled else 1.0
        done: torch.Tensor = self.leaf(kind + "output", adapter)(attended(query, key, value, allowed, scale))
        return done


class LadderModel(SideModel):
    """The tuner."""

    prefix = "psel_ladder_"
    tuner_layer_cls = LadderLayer


register_tuner(LadderConfig, LadderModel)
