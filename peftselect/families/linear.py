"""Bases which methods of one kind share: those that act on linear layers, and those that put vectors before the input.

A plugin's author may build on them as the built-in methods do; nothing here knows a method by name.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, ClassVar

from peftselect.errors import InputError
from peftselect.hyperparameter import Hyperparameter
from peftselect.method import ALL_HEADS, MemoryTraits, Method, Structure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect.method import ApplyContext
    from peftselect.shape import LinearModule, ModelShape

#: words for a choice of linear layers by what they do, so that no table of model names is needed
TARGETS_BY_ROLE: dict[str, tuple[str, ...]] = {
    "attention-qv": ("query", "value", "query_key_value"),
    "attention-v": ("value", "query_key_value"),
    "attention": ("query", "key", "value", "query_key_value", "attention_output"),
    "ffn": ("ffn_gate", "ffn_in", "ffn_gate_in", "ffn_out"),
}
#: as in the thesis's experiment (4.1)
DEFAULT_RANK, DEFAULT_ALPHA = 16, 16.0
#: names of such layers are found nowhere else in a model, so that peft may be given the bare name
_PROJECTIONS = frozenset({"query", "key", "value", "query_key_value"})


def choose_linears(shape: ModelShape, targets: Sequence[str] | str) -> tuple[LinearModule, ...]:
    """Linear groups that ``targets`` names: a word of TARGETS_BY_ROLE, ``"all-linear"``, or module names.

    Raises InputError for a name which no linear layer of the blocks has.
    """
    wanted = (targets,) if isinstance(targets, str) else tuple(targets)
    chosen: list[LinearModule] = []
    for target in wanted:
        if target == "all-linear":
            found = shape.select("all-linear")
        elif target in TARGETS_BY_ROLE:
            found = shape.by_role(*TARGETS_BY_ROLE[target])
        else:
            found = shape.select(target)
        if any(not linear.called for linear in found):
            raise InputError(
                f"target_modules: {shape.model_type} reads the weights of {target!r} without calling the layer",
                "an adapter there would do nothing; take ffn",
            )
        if not found:
            known = ", ".join([*TARGETS_BY_ROLE, "all-linear", *dict.fromkeys(linear.path for linear in shape.linears)])
            raise InputError(f"target_modules: {shape.model_type} has no linear layer {target!r}", f"known: {known}")
        chosen.extend(linear for linear in found if linear not in chosen)
    return tuple(chosen)


def peft_targets(shape: ModelShape, linears: Sequence[LinearModule]) -> list[str] | str:
    """peft's ``target_modules`` for exactly these layers: bare names where they are clear, else a pattern.

    peft matches the end of a name, and so ``output.dense`` would also take ``attention.output.dense``, and ``dense``
    the pooler and the head; the pattern starts at the block's index.
    """
    names = sorted({linear.name for linear in linears})
    same = set(shape.select(names)) == set(linears)
    if same and all(linear.role in _PROJECTIONS for linear in linears):
        return names
    return path_pattern(linear.path for linear in linears)


def path_pattern(paths: Any) -> str:
    """A pattern that peft matches against whole module names: these paths, right below a block's index."""
    return rf".*\.\d+\.(?:{'|'.join(re.escape(path) for path in sorted(set(paths)))})"


def reads_encoder(linear: LinearModule) -> bool:
    """Whether the layer's input is a sequence of the encoder's length (keys and values of cross-attention are)."""
    return linear.stack == "encoder" or (linear.cross_attention and linear.role in {"key", "value"})


def shared_input(linear: LinearModule) -> tuple[Any, ...] | None:
    """A name for the tensor that queries, keys and values of one attention read; None where a layer reads its own."""
    if linear.role not in _PROJECTIONS:
        return None
    return (linear.stack, linear.cross_attention, reads_encoder(linear), linear.in_features)


class LinearMethod(Method):
    """A method that acts on linear layers chosen by ``target_modules``."""

    acts_on: ClassVar[frozenset[str]] = frozenset({"attention"})
    #: the choice when the user makes none
    default_targets: ClassVar[str] = "attention-qv"

    def target_setting(self, shape: ModelShape | None = None) -> Hyperparameter:
        """The ``target_modules`` hyperparameter; of ``shape``, whose attention may be out of reach (WavLM)."""
        words = ", ".join([*TARGETS_BY_ROLE, "all-linear"])
        roles = TARGETS_BY_ROLE.get(self.default_targets, ())
        default = "ffn" if shape is not None and roles and not shape.by_role(*roles) else self.default_targets
        return Hyperparameter(
            "target_modules", (default,), "list", f"layers to adapt: {words}, or names of linear layers"
        )

    def targets(self, shape: ModelShape, values: Mapping[str, Any]) -> tuple[LinearModule, ...]:
        """The linear groups that are adapted."""
        return choose_linears(shape, values["target_modules"])

    def peft_targets(self, shape: ModelShape, linears: Sequence[LinearModule]) -> list[str] | str:
        """peft's ``target_modules`` for exactly these layers (see :func:`peft_targets`)."""
        return peft_targets(shape, linears)

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """The targets must be layers of this model."""
        try:
            self.targets(shape, values)
        except InputError as error:
            return error.message
        return None

    def low_rank_memory(
        self, shape: ModelShape, values: Mapping[str, Any], rank: int, compute_bytes: int
    ) -> MemoryTraits:
        """Memory of a bypass ``B A dropout(x)`` in float32 beside each target.

        Over a base in 16 bits peft casts each target's input to float32 and autograd keeps the copy; dropout keeps its
        own output and a mask of a byte an element. In float32 without dropout, layers fed by one tensor share it. Under
        autocast both factors keep 16-bit copies of what they read.
        """
        dropout = float(values["lora_dropout"]) > 0
        kept = {True: 0.0, False: 0.0}
        copied = {True: 0.0, False: 0.0}
        seen: set[Any] = set()
        for linear in self.targets(shape, values):
            side = reads_encoder(linear)
            kept[side] += linear.runs * 4 * rank
            copied[side] += linear.runs * (2 * rank + linear.in_features * (3 if dropout else 2))
            tensor = None if dropout or compute_bytes < 4 else shared_input(linear)
            if tensor is None or tensor not in seen:
                kept[side] += linear.runs * linear.in_features * (5 if dropout else 4)
            seen.add(tensor)
        return MemoryTraits((kept[True], kept[False]), kept_under_autocast=(copied[True], copied[False]))


class LowRankMethod(LinearMethod):
    """LoRA and its kin: ``W + s B A`` beside each target, mergeable into it."""

    family: ClassVar[Any] = "reparameterized"
    structure: ClassVar[Structure] = Structure(
        intra_connectivity="dense: linear MLP",
        inter_connectivity="fixed: dense",
        parameters_adapted="reparameterization",
        parameter_sharing="none",
        input_type="data",
        insertion_form="parallel",
        insertions="all layers",
        integration_form="scaled addition",
        workspace="attention: queries/values",
    )
    heads: ClassVar[frozenset[str]] = ALL_HEADS | {"feature_extraction"}
    starts_as_base: ClassVar[bool] = True
    mergeable: ClassVar[bool] = True
    quantized_base: ClassVar[Any] = "possible"
    adds_inference_cost: ClassVar[bool] = False
    rate_from: ClassVar[str] = "LoRA's, by width (Schulman et al. 2025), kept in step with rank and scale"
    #: learning rate at the default rank and scale in a model 2,000 wide
    base_learning_rate: ClassVar[float] = 5e-4
    #: what LoraConfig is given beyond the settings: the start, or the variant
    lora_options: ClassVar[Mapping[str, Any]] = {}
    #: whether the scale is alpha / sqrt(r) by default
    root_scale: ClassVar[bool] = False

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Rank, scale, dropout, targets and rate.

        Narrow models want a larger rate: it falls with the width to the power of 0.78 (Schulman et al. 2025, "LoRA
        Without Regret", fitted on 14 language models).
        """
        rate = float(f"{self.base_learning_rate * (2000 / shape.hidden_size) ** 0.781:.1e}")
        return (
            Hyperparameter(
                "r", DEFAULT_RANK, "int", "rank of the update", 1, 1024, search=(4, 8, 16, 32, 64), log=True
            ),
            Hyperparameter(
                "lora_alpha", DEFAULT_ALPHA, "float", "the update is scaled by alpha / r", 1e-3, 4096, log=True
            ),
            Hyperparameter("lora_dropout", 0.1, "float", "dropout before the update", 0, 0.9, search=(0.0, 0.05, 0.1)),
            Hyperparameter("use_rslora", self.root_scale, "bool", "scale by alpha / sqrt(r) instead (rsLoRA)"),
            self.target_setting(shape),
            Hyperparameter("learning_rate", rate, "float", "peak learning rate", 1e-6, 1.0, log=True),
        )

    def learning_rate(self, values: Mapping[str, Any]) -> float:
        """The model's rate, kept in step with the rank and the scale.

        An update of rank r and scale s learns alike at every rank when s * sqrt(r) is held (Kalajdzievski 2023,
        rsLoRA), so the rate makes up for whatever the chosen r and alpha make of it.
        """
        rank, alpha = float(values["r"]), float(values["lora_alpha"])
        scale = alpha / math.sqrt(rank) if values["use_rslora"] else alpha / rank
        at_defaults = DEFAULT_ALPHA / math.sqrt(DEFAULT_RANK)
        rate = float(values["learning_rate"]) * at_defaults / (scale * math.sqrt(rank))
        return min(max(rate, 1e-5), 1e-2)

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """r (in + out) a target, and the head."""
        rank = int(values["r"])
        linears = self.targets(shape, values)
        return sum(item.count * rank * (item.in_features + item.out_features) for item in linears) + (
            shape.head.parameters
        )

    def changed_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Weights of the targets, all of which the merged update changes, and the head."""
        linears = self.targets(shape, values)
        return sum(item.count * item.in_features * item.out_features for item in linears) + shape.head.parameters

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """The inputs of both factors."""
        return self.low_rank_memory(shape, values, int(values["r"]), compute_bytes)

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """peft's LoraConfig."""
        from peft import LoraConfig

        linears = self.targets(shape, values)
        return LoraConfig(
            r=int(values["r"]),
            lora_alpha=values["lora_alpha"],
            lora_dropout=values["lora_dropout"],
            use_rslora=values["use_rslora"],
            target_modules=self.peft_targets(shape, linears),
            fan_in_fan_out=any(item.conv1d for item in linears) and not context.quantized,
            task_type=context.task_type,
            modules_to_save=context.modules_to_save,
            **self.lora_options,
            **self.variant(shape, values),
        )

    def variant(self, shape: ModelShape, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """What LoraConfig is given for these values: the configuration of a variant."""
        return {}
