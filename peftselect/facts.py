"""The named facts of a question and of a method: what rules may test and what features are made of.

:data:`FACTS` is the registry: a rule that names a fact outside it, or compares one with a value of another type, is
refused when it is loaded. A fact that nobody knows is absent (None); no condition on it holds.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from peftselect.method import Structure
from peftselect.problem import GIB, MUSTS, TRAITS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftselect.method import Method
    from peftselect.problem import Problem
    from peftselect.shape import ModelShape

FactType = Literal["text", "number", "flag", "set"]
FactOf = Literal["problem", "method"]
#: training examples up to which data count as low and as medium: halfway (in the logarithm) between the 100, 1,000 and
#: 10,000 examples of thesis table 2.5
LOW_EXAMPLES, MEDIUM_EXAMPLES = 316, 3162
#: device memory per parameter of the base up to which the budget counts as very small (less than two copies of the
#: weights in float32) and as small (less than the 16 bytes of full fine-tuning with AdamW, and half of that again)
VERY_SMALL_BYTES_PER_PARAMETER, SMALL_BYTES_PER_PARAMETER = 8.0, 24.0


@dataclass(frozen=True)
class Fact:
    """A fact's name, what it is a fact of, its type, and the values it can take where they are a closed set."""

    name: str
    of: FactOf
    type: FactType
    description: str
    choices: tuple[str, ...] = ()


_REGIMES = ("low", "medium", "high", "unknown")
_BUDGETS = ("very_small", "small", "ample", "unlimited")
_PARTS = ("embedding", "attention", "ffn", "norm", "bias", "head", "all")
_LIST = (
    Fact("task", "problem", "text", "name of the task"),
    Fact("task_family", "problem", "text", "family under which records and rules pool tasks"),
    Fact("modality", "problem", "text", "kind of input", ("text", "speech", "code")),
    Fact("metric", "problem", "text", "primary metric of the task"),
    Fact("generates", "problem", "flag", "whether the task head writes text"),
    Fact("head", "problem", "text", "kind of task head"),
    Fact("num_labels", "problem", "number", "number of labels in the training data"),
    Fact("model", "problem", "text", "name of the base model"),
    Fact("model_type", "problem", "text", "transformers' model_type of the base model"),
    Fact("architecture", "problem", "text", "stacks of the base model", ("encoder", "decoder", "encoder-decoder")),
    Fact("total_parameters", "problem", "number", "parameters of the base model with its head"),
    Fact("num_layers", "problem", "number", "blocks of the base model, both stacks"),
    Fact("has_biases", "problem", "flag", "whether the base model has bias parameters"),
    Fact("num_train_examples", "problem", "number", "training examples"),
    Fact(
        "data_regime",
        "problem",
        "text",
        f"low up to {LOW_EXAMPLES} training examples, medium up to {MEDIUM_EXAMPLES}, else high",
        _REGIMES,
    ),
    Fact("max_length", "problem", "number", "longest input in tokens"),
    Fact("max_target_length", "problem", "number", "longest output in tokens, 0 where nothing is generated"),
    Fact("vram_gib", "problem", "number", "memory of one device in GiB"),
    Fact("vram_bytes_per_parameter", "problem", "number", "memory of one device per parameter of the base model"),
    Fact(
        "budget",
        "problem",
        "text",
        f"very_small below {VERY_SMALL_BYTES_PER_PARAMETER:g} bytes of device memory per parameter of the base model, "
        f"small below {SMALL_BYTES_PER_PARAMETER:g}, else ample",
        _BUDGETS,
    ),
    Fact("devices", "problem", "number", "number of devices"),
    Fact("max_seconds", "problem", "number", "time budget in seconds"),
    Fact("prefer", "problem", "text", "what the user wants most", ("quality", "memory", "speed", "size")),
    Fact("must", "problem", "set", "what the user must have", MUSTS),
    Fact("traits", "problem", "set", "what the job is like (thesis 5.3)", TRAITS),
    Fact("method", "method", "text", "name of the method"),
    Fact("family", "method", "text", "family", ("additive", "selective", "reparameterized", "hybrid")),
    Fact("acts_on", "method", "set", "parts of the network that it changes", _PARTS),
    Fact("mergeable", "method", "flag", "whether it can be merged into the base weights"),
    Fact("multi_adapter", "method", "flag", "whether several can sit on one base model"),
    Fact("quantized_base", "method", "text", "whether the base may be quantised", ("no", "possible", "required")),
    Fact("adds_inference_cost", "method", "flag", "whether it slows inference when it is not merged"),
    Fact("saves_adapter", "method", "flag", "whether its result is an adapter beside the base, not a whole model"),
    Fact("rank", "method", "number", "rank of its update"),
    Fact("trainable_parameters", "method", "number", "parameters that get gradients, head included"),
    Fact("trainable_percent", "method", "number", "the same as a percentage of all parameters"),
    Fact("intra_connectivity", "method", "text", "PEFT-Ref: connections inside the module"),
    Fact("inter_connectivity", "method", "text", "PEFT-Ref: connections between the module and the base"),
    Fact("parameters_adapted", "method", "text", "PEFT-Ref: whether parameters are added or reparameterized"),
    Fact("parameter_sharing", "method", "text", "PEFT-Ref: what modules share"),
    Fact("input_type", "method", "text", "PEFT-Ref: what the module reads"),
    Fact("insertion_form", "method", "text", "PEFT-Ref: parallel or sequential insertion"),
    Fact("insertions", "method", "text", "PEFT-Ref: how many layers get one"),
    Fact("integration_form", "method", "text", "PEFT-Ref: how the output joins the base's"),
    Fact("workspace", "method", "text", "PEFT-Ref: what in the base it works on"),
)
FACTS: dict[str, Fact] = {fact.name: fact for fact in _LIST}


def data_regime(num_train_examples: int | None) -> str:
    """``"low"``, ``"medium"``, ``"high"`` or ``"unknown"`` for a number of training examples."""
    if num_train_examples is None:
        return "unknown"
    if num_train_examples <= LOW_EXAMPLES:
        return "low"
    return "medium" if num_train_examples <= MEDIUM_EXAMPLES else "high"


def budget(vram_bytes_per_parameter: float | None) -> str:
    """``"very_small"``, ``"small"``, ``"ample"`` or ``"unlimited"`` (no budget given)."""
    if vram_bytes_per_parameter is None:
        return "unlimited"
    if vram_bytes_per_parameter < VERY_SMALL_BYTES_PER_PARAMETER:
        return "very_small"
    return "small" if vram_bytes_per_parameter < SMALL_BYTES_PER_PARAMETER else "ample"


def problem_facts(problem: Problem) -> dict[str, Any]:
    """Every fact of the question; what is not known is None."""
    shape, data, hardware, wishes = problem.shape, problem.data, problem.hardware, problem.priorities
    vram = hardware.vram_bytes
    per_parameter = None if vram is None else vram / max(shape.total_parameters, 1)
    return {
        "task": problem.task.name,
        "task_family": problem.task.family,
        "modality": problem.task.modality,
        "metric": problem.task.metric,
        "generates": problem.task.generates(shape.head.kind),
        "head": shape.head.kind,
        "num_labels": data.num_labels,
        "model": problem.model.name,
        "model_type": shape.model_type,
        "architecture": shape.architecture,
        "total_parameters": shape.total_parameters,
        "num_layers": shape.num_layers,
        "has_biases": shape.bias_parameters > 0,
        "num_train_examples": data.num_examples,
        "data_regime": data_regime(data.num_examples),
        "max_length": problem.max_length,
        "max_target_length": problem.max_target_length,
        "vram_gib": None if vram is None else vram / GIB,
        "vram_bytes_per_parameter": per_parameter,
        "budget": budget(per_parameter),
        "devices": hardware.devices,
        "max_seconds": wishes.max_seconds,
        "prefer": wishes.prefer,
        "must": wishes.must,
        "traits": wishes.traits,
    }


def kind_facts(method: Method) -> dict[str, Any]:
    """The facts of a method that hold with any values on any model."""
    return {
        "method": method.name,
        "family": method.family,
        "acts_on": method.acts_on,
        "mergeable": method.mergeable,
        "multi_adapter": method.multi_adapter,
        "quantized_base": method.quantized_base,
        "adds_inference_cost": method.adds_inference_cost,
        "saves_adapter": method.saves_adapter,
        **{item.name: getattr(method.structure, item.name) for item in fields(Structure) if item.name != "derived"},
    }


def method_facts(method: Method, shape: ModelShape, values: Mapping[str, Any]) -> dict[str, Any]:
    """Every fact of a method with these values on a model of this shape."""
    trainable = method.trainable_parameters(shape, values)
    return {
        **kind_facts(method),
        "rank": method.rank(values),
        "trainable_parameters": trainable,
        "trainable_percent": 100.0 * trainable / max(shape.total_parameters, 1),
    }
