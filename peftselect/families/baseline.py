"""What baselines share: they are scored and train nothing, so that there is something to hold methods against."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect.hyperparameter import Hyperparameter
from peftselect.method import MemoryTraits, Method, Structure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect.method import ApplyContext
    from peftselect.shape import ModelShape


class BaselineMethod(Method):
    """The base model, asked. A baseline of this kind changes nothing but, perhaps, the prompt (:meth:`examples`)."""

    kind = "baseline"
    family = "selective"
    structure = Structure("none", "none", "none", "none", "none", "none", "none", "none", "none")
    starts_as_base = True
    mergeable = False
    quantized_base = "possible"
    adds_inference_cost = False
    saves_adapter = True
    judged = False

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """The learning rate alone, which every method has and which is of no use here."""
        return (Hyperparameter("learning_rate", 0.0, "float", "of no use: nothing is trained", 0.0, 1.0),)

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """None."""
        return 0

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """No gradient enters the model."""
        return MemoryTraits(backward_reaches="top")

    def apply(self, model: Any, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Freeze everything."""
        model.requires_grad_(False)
        return model
