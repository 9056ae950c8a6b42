"""MAM: prefixes at every attention and scaled parallel adapters at every feed-forward part, as one adapter.

He et al. 2022 (arXiv 2110.04366), section 4.6.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from peftselect.tuners.base import TunerLayer
from peftselect.tuners.bottleneck import BottleneckLayer, catch_inputs
from peftselect.tuners.prefix import PrefixConfig, PrefixLayer, PrefixModel
from peftselect.tuners.registry import register_tuner

if TYPE_CHECKING:
    from torch import nn


@dataclass
class MamConfig(PrefixConfig):
    """Targets are attention modules and the last linear layers of feed-forward parts (``ffn_modules``)."""

    type_name: ClassVar[str] = "PSEL_MAM"

    ffn_modules: str | None = field(default=None, metadata={"help": "pattern of the layers that end an FFN"})
    input_modules: str | None = field(default=None, metadata={"help": "pattern of the layers with which it begins"})
    bottleneck: int = field(default=64, metadata={"help": "inner width of the adapters"})
    activation: str = field(default="relu", metadata={"help": "transformers' name of the inner activation"})
    scale: float = field(default=4.0, metadata={"help": "factor on an adapter's output"})


class MamPrefixLayer(PrefixLayer):
    """An attention module with prefixes."""

    adapter_layer_names = ("psel_mam_key", "psel_mam_value")
    parameter_names = ("psel_mam_key", "psel_mam_value")


class MamBottleneckLayer(BottleneckLayer):
    """The end of a feed-forward part with parallel adapters."""

    adapter_layer_names = ("psel_mam_down", "psel_mam_up")


class MamModel(PrefixModel):
    """The tuner of both."""

    prefix = "psel_mam_"
    tuner_layer_cls = TunerLayer
    shared_modules = ("psel_mam_inner", "psel_mam_outer")
    shared_parameters = ("psel_mam_input",)

    def attentions(self, config: Any) -> list[str]:
        """Names of the attention modules: the targets that end no feed-forward part."""
        return [name for name in super().attentions(config) if not _matches(config.ffn_modules, name)]

    def make_layer(self, base_layer: nn.Module, key: str, config: Any) -> TunerLayer:
        """Which of the two layers the module needs."""
        kind = MamBottleneckLayer if _matches(config.ffn_modules, key) else MamPrefixLayer
        return kind(base_layer, self, key)

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """As for prefixes, and join each adapter to the place where its feed-forward part begins."""
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        catch_inputs(model, self.peft_config[adapter_name].input_modules, MamBottleneckLayer)


def _matches(pattern: str, name: str) -> bool:
    return re.fullmatch(pattern, name) is not None


register_tuner(MamConfig, MamModel)
