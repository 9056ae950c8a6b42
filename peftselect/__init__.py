"""Choose a parameter-efficient fine-tuning method, know whether it fits, and run it.

Everything in ``__all__`` is public; each name is imported when it is first used, so that ``import peftselect`` stays
light (no torch, no transformers, no peft).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from peftselect.tuners.registry import watch_for_peft

if TYPE_CHECKING:
    from peftselect.api import build_problem, plan_run, recommend, resume, run
    from peftselect.errors import DataError, InputError, NothingFitsError, PeftSelectError, UnsupportedError
    from peftselect.families import (
        AdapterMethod,
        BaselineMethod,
        ChangeMethod,
        ChannelMethod,
        InstancePrefixMethod,
        Kept,
        LadderMethod,
        LinearMethod,
        LowRankMethod,
        MaskMethod,
        PackedLowRankMethod,
        PackedMethod,
        PrefixMethod,
        SideMethod,
        SoftPromptMethod,
        UpdateMethod,
        WholeChangeMethod,
        add_penalty,
        attention_pattern,
        block_pattern,
        first_of_ffn,
        integer_bytes,
        normal_bytes,
        parameters_pattern,
        path_pattern,
        reads_encoder,
    )
    from peftselect.hookspecs import hookimpl
    from peftselect.hyperparameter import Hyperparameter
    from peftselect.loading import load
    from peftselect.method import (
        ALL_ARCHITECTURES,
        ALL_HEADS,
        LANGUAGE_MODEL_HEADS,
        SPEECH_HEADS,
        ApplyContext,
        Candidate,
        MemoryTraits,
        Method,
        Recipe,
        Reference,
        Structure,
    )
    from peftselect.problem import BaseModel, DataProfile, Hardware, Priorities, Problem
    from peftselect.record import RunRecord, Score
    from peftselect.shape import HeadShape, LinearModule, ModelShape
    from peftselect.stage import Stage, StageContext
    from peftselect.task import Column, Objective, Task, TaskContext
    from peftselect.training.pruning import PruneChannels
    from peftselect.tuners.base import Tuner, TunerConfig, TunerLayer
    from peftselect.tuners.binary_bottleneck import BinaryBottleneckConfig
    from peftselect.tuners.bit_budget import BudgetConfig
    from peftselect.tuners.block_prompt import BlockPromptConfig
    from peftselect.tuners.bottleneck import BottleneckConfig
    from peftselect.tuners.bypass import BypassConfig
    from peftselect.tuners.channels import ChannelConfig
    from peftselect.tuners.compacter import CompacterConfig
    from peftselect.tuners.convolution import ConvolutionConfig
    from peftselect.tuners.delta import DeltaConfig
    from peftselect.tuners.fusion import FusionConfig
    from peftselect.tuners.group_low_rank import GroupConfig
    from peftselect.tuners.hyper import HyperConfig
    from peftselect.tuners.instance_prefix import InstancePrefixConfig
    from peftselect.tuners.ladder import LadderConfig
    from peftselect.tuners.mam import MamConfig
    from peftselect.tuners.packed_low_rank import PackedConfig
    from peftselect.tuners.prefix import PrefixConfig
    from peftselect.tuners.propetl import ProConfig
    from peftselect.tuners.registry import register_tuner, register_tuners
    from peftselect.tuners.rounding import train_rounded
    from peftselect.tuners.skills import SkillsConfig
    from peftselect.tuners.sparse_bottleneck import SparseBottleneckConfig
    from peftselect.tuners.tiny_attention import TinyAttentionConfig
    from peftselect.tuners.token_bias import TokenBiasConfig
    from peftselect.tuners.trained_scales import ScalesConfig
    from peftselect.tuners.weighted_sum import WeightedSumConfig
    from peftselect.zeroth_order import ForwardOptimizer, ZerothOrderSGD

__version__ = "0.1.0"

_HOMES = {
    "api": ("build_problem", "plan_run", "recommend", "resume", "run"),
    "errors": ("DataError", "InputError", "NothingFitsError", "PeftSelectError", "UnsupportedError"),
    "families": (
        "AdapterMethod", "BaselineMethod", "ChannelMethod", "ChangeMethod", "InstancePrefixMethod", "Kept",
        "LadderMethod", "LinearMethod", "LowRankMethod", "PackedLowRankMethod", "PackedMethod", "PrefixMethod",
        "SideMethod", "SoftPromptMethod", "UpdateMethod", "add_penalty", "attention_pattern", "block_pattern",
        "first_of_ffn", "integer_bytes", "normal_bytes", "MaskMethod", "WholeChangeMethod", "parameters_pattern",
        "path_pattern", "reads_encoder",
    ),
    "hookspecs": ("hookimpl",),
    "hyperparameter": ("Hyperparameter",),
    "loading": ("load",),
    "method": (
        "ALL_ARCHITECTURES",
        "ALL_HEADS",
        "LANGUAGE_MODEL_HEADS",
        "SPEECH_HEADS",
        "ApplyContext",
        "Candidate",
        "MemoryTraits",
        "Method",
        "Recipe",
        "Reference",
        "Structure",
    ),
    "problem": ("BaseModel", "DataProfile", "Hardware", "Priorities", "Problem"),
    "record": ("RunRecord", "Score"),
    "shape": ("HeadShape", "LinearModule", "ModelShape"),
    "stage": ("Stage", "StageContext"),
    "task": ("Column", "Objective", "Task", "TaskContext"),
    "tuners.base": ("Tuner", "TunerConfig", "TunerLayer"),
    "tuners.bottleneck": ("BottleneckConfig",),
    "tuners.registry": ("register_tuner", "register_tuners"),
    "tuners.prefix": ("PrefixConfig",),
    "tuners.adaption": ("AdaptionConfig",),
    "tuners.example_prefix": ("ExamplePrefixConfig", "encode_examples"),
    "tuners.scaled_prompt": ("read_prompt", "scale_prompt"),
    "tuners.ladder": ("LadderConfig",),
    "tuners.bypass": ("BypassConfig",),
    "tuners.residual": ("ResidualConfig",),
    "tuners.reversible": ("ReversibleConfig",),
    "tuners.mam": ("MamConfig",),
    "tuners.compacter": ("CompacterConfig",),
    "tuners.token_bias": ("TokenBiasConfig",),
    "tuners.convolution": ("ConvolutionConfig",),
    "tuners.tiny_attention": ("TinyAttentionConfig",),
    "tuners.sparse_bottleneck": ("SparseBottleneckConfig",),
    "tuners.binary_bottleneck": ("BinaryBottleneckConfig",),
    "tuners.propetl": ("ProConfig",),
    "tuners.skills": ("SkillsConfig",),
    "tuners.instance_prefix": ("InstancePrefixConfig",),
    "tuners.block_prompt": ("BlockPromptConfig",),
    "tuners.hyper": ("HyperConfig",),
    "tuners.fusion": ("FusionConfig",),
    "tuners.weighted_sum": ("WeightedSumConfig",),
    "zeroth_order": ("ForwardOptimizer", "ZerothOrderSGD"),
    "tuners.bit_budget": ("BudgetConfig",),
    "tuners.channels": ("ChannelConfig",),
    "training.pruning": ("PruneChannels",),
    "tuners.rounding": ("train_rounded",),
    "tuners.packed_low_rank": ("PackedConfig",),
    "tuners.group_low_rank": ("GroupConfig",),
    "tuners.trained_scales": ("ScalesConfig",),
    "tuners.delta": ("DeltaConfig",),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "ALL_ARCHITECTURES",
    "ALL_HEADS",
    "LANGUAGE_MODEL_HEADS",
    "SPEECH_HEADS",
    "AdapterMethod",
    "AdaptionConfig",
    "ApplyContext",
    "BaseModel",
    "BaselineMethod",
    "BinaryBottleneckConfig",
    "BlockPromptConfig",
    "BottleneckConfig",
    "BudgetConfig",
    "BypassConfig",
    "Candidate",
    "ChangeMethod",
    "ChannelConfig",
    "ChannelMethod",
    "Column",
    "CompacterConfig",
    "ConvolutionConfig",
    "DataError",
    "DataProfile",
    "DeltaConfig",
    "ExamplePrefixConfig",
    "ForwardOptimizer",
    "FusionConfig",
    "GroupConfig",
    "Hardware",
    "HeadShape",
    "HyperConfig",
    "Hyperparameter",
    "InputError",
    "InstancePrefixConfig",
    "InstancePrefixMethod",
    "Kept",
    "LadderConfig",
    "LadderMethod",
    "LinearMethod",
    "LinearModule",
    "LowRankMethod",
    "MamConfig",
    "MaskMethod",
    "MemoryTraits",
    "Method",
    "ModelShape",
    "NothingFitsError",
    "Objective",
    "PackedConfig",
    "PackedLowRankMethod",
    "PackedMethod",
    "PeftSelectError",
    "PrefixConfig",
    "PrefixMethod",
    "Priorities",
    "ProConfig",
    "Problem",
    "PruneChannels",
    "Recipe",
    "Reference",
    "ResidualConfig",
    "ReversibleConfig",
    "RunRecord",
    "ScalesConfig",
    "Score",
    "SideMethod",
    "SkillsConfig",
    "SoftPromptMethod",
    "SparseBottleneckConfig",
    "Stage",
    "StageContext",
    "Structure",
    "Task",
    "TaskContext",
    "TinyAttentionConfig",
    "TokenBiasConfig",
    "Tuner",
    "TunerConfig",
    "TunerLayer",
    "UnsupportedError",
    "UpdateMethod",
    "WeightedSumConfig",
    "WholeChangeMethod",
    "ZerothOrderSGD",
    "add_penalty",
    "attention_pattern",
    "block_pattern",
    "build_problem",
    "encode_examples",
    "first_of_ffn",
    "hookimpl",
    "integer_bytes",
    "load",
    "normal_bytes",
    "parameters_pattern",
    "path_pattern",
    "plan_run",
    "read_prompt",
    "reads_encoder",
    "recommend",
    "register_tuner",
    "register_tuners",
    "resume",
    "run",
    "scale_prompt",
    "train_rounded",
]


def __getattr__(name: str) -> Any:
    if home := _HOME_OF.get(name):
        return getattr(importlib.import_module(f"peftselect.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


# adapters of our own tuners load with plain peft from now on, whenever that is imported
watch_for_peft()
