"""Base classes that methods of one kind share: a plugin of such a kind says only what is its own."""

from peftselect.families.adapter import AdapterMethod, block_pattern, first_of_ffn
from peftselect.families.baseline import BaselineMethod
from peftselect.families.change import ChangeMethod, MaskMethod, WholeChangeMethod, parameters_pattern
from peftselect.families.channels import ChannelMethod
from peftselect.families.instance_prefix import InstancePrefixMethod
from peftselect.families.ladder import LadderMethod
from peftselect.families.linear import (
    LinearMethod,
    LowRankMethod,
    choose_linears,
    path_pattern,
    peft_targets,
    reads_encoder,
    shared_input,
)
from peftselect.families.packed import PackedLowRankMethod, PackedMethod, integer_bytes, normal_bytes
from peftselect.families.penalty import add_penalty
from peftselect.families.prefix import PrefixMethod, attention_pattern
from peftselect.families.side import SideMethod
from peftselect.families.soft_prompt import SoftPromptMethod
from peftselect.families.update import Kept, UpdateMethod

__all__ = [
    "AdapterMethod",
    "BaselineMethod",
    "ChangeMethod",
    "ChannelMethod",
    "InstancePrefixMethod",
    "Kept",
    "LadderMethod",
    "LinearMethod",
    "LowRankMethod",
    "MaskMethod",
    "PackedLowRankMethod",
    "PackedMethod",
    "PrefixMethod",
    "SideMethod",
    "SoftPromptMethod",
    "UpdateMethod",
    "WholeChangeMethod",
    "add_penalty",
    "attention_pattern",
    "block_pattern",
    "choose_linears",
    "first_of_ffn",
    "integer_bytes",
    "normal_bytes",
    "parameters_pattern",
    "path_pattern",
    "peft_targets",
    "reads_encoder",
    "shared_input",
]
