"""Tuners that work inside attention, by a function of their own in the place of the model's."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from peftselect.tuners.base import Tuner


class AttentionTuner(Tuner):
    """A tuner whose layers act in an attention function of its own, which transformers calls by its name."""

    implementation: ClassVar[str]

    def _prepare_model(self, peft_config: Any, model: nn.Module) -> None:
        """Have the model call that function; ValueError where it calls none."""
        super()._prepare_model(peft_config, model)
        model.set_attn_implementation(self.implementation)  # type: ignore[operator]
        if model.config._attn_implementation != self.implementation:  # type: ignore[union-attr]
            raise ValueError(f"{type(model).__name__} does not call its attention through transformers' registry")

    def unload(self) -> Any:
        """The base model, with the attention that it had."""
        model = super().unload()
        model.set_attn_implementation("sdpa")
        return model
