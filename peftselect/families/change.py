"""Base classes of the methods that change the base's own weights, few or all of them, as an adapter beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from peftselect.hyperparameter import Hyperparameter
from peftselect.method import ALL_HEADS, LANGUAGE_MODEL_HEADS, MemoryTraits, Method, Structure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from peftselect.method import ApplyContext
    from peftselect.shape import ModelShape

#: what a trained number, a score, or a place takes
_FLOAT32 = 4


class ChangeMethod(Method):
    """A change of weights: switched off it leaves the base, merged it costs nothing.

    A subclass says with :meth:`tuner_arguments` which kind of change (:class:`peftselect.DeltaConfig`) it is.
    """

    family: ClassVar[Any] = "selective"
    heads: ClassVar[frozenset[str]] = ALL_HEADS | {"feature_extraction"}
    acts_on: ClassVar[frozenset[str]] = frozenset({"all"})
    starts_as_base: ClassVar[bool] = True
    mergeable: ClassVar[bool] = True
    adds_inference_cost: ClassVar[bool] = False
    structure: ClassVar[Structure] = Structure(
        intra_connectivity="sparse: existing weights",
        inter_connectivity="fixed: sparse",
        parameters_adapted="existing",
        parameter_sharing="none",
        input_type="weights",
        insertion_form="in place",
        insertions="all layers",
        integration_form="direct addition (sparse)",
        workspace="all weights",
    )
    default_density: ClassVar[float] = 0.005
    densities: ClassVar[tuple[float, ...]] = (0.001, 0.005, 0.02)
    #: None: that of full fine-tuning
    default_learning_rate: ClassVar[float | None] = None
    rate_from: ClassVar[str] = "as for full fine-tuning: Devlin et al. 2018; T5 models want more (Raffel et al. 2019)"

    def density_setting(self) -> Hyperparameter:
        """The share that changes."""
        return Hyperparameter(
            "density", self.default_density, "float", "share of the weights that change", 1e-6, 1.0,
            search=self.densities, log=True,
        )  # fmt: skip

    def rate_setting(self, shape: ModelShape) -> Hyperparameter:
        """The learning rate."""
        rate = self.default_learning_rate
        if rate is None:
            rate = 1e-4 if shape.relative_attention and shape.architecture == "encoder-decoder" else 3e-5
        return Hyperparameter("learning_rate", rate, "float", "peak learning rate", 1e-7, 1.0, log=True)

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """The share that changes, and the rate."""
        return (self.density_setting(), self.rate_setting(shape))

    def numbers(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Numbers that may change: all but the head's."""
        return shape.total_parameters - shape.head.parameters

    def kept(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Numbers that do change in the end."""
        return max(round(float(values["density"]) * self.numbers(shape, values)), 1)

    def changed_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """What changes, and the head."""
        return self.kept(shape, values) + shape.head.parameters

    def saved_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Each number that changes, its place, and the head."""
        return 2 * self.kept(shape, values) + shape.head.parameters

    def search_steps(self, values: Mapping[str, Any], total_steps: int) -> int:
        """Optimizer steps after which it is decided what changes; 0 where that is known from the start."""
        return 0

    def tuner_arguments(self, values: Mapping[str, Any], context: ApplyContext) -> dict[str, Any]:
        """What its configuration is given beyond the counts."""
        return {}

    def copied_weights(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Weights of layers that read their input through a changed copy, which autograd keeps."""
        last = shape.vocab_size * shape.embedding_size if shape.head.kind in LANGUAGE_MODEL_HEADS else 0
        return last + sum(linear.count * linear.in_features * linear.out_features for linear in shape.linears)

    def largest_weight(self, shape: ModelShape) -> int:
        """Numbers in the largest tensor, counted twice where it is read twice (a tied table of words)."""
        twice = 2 if shape.tied_embeddings and shape.head.kind in LANGUAGE_MODEL_HEADS else 1
        largest = max(linear.in_features * linear.out_features for linear in shape.linears)
        return max(twice * shape.vocab_size * shape.embedding_size, largest)

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """Inputs of the layers, and a changed copy of each matrix; the base keeps its width."""
        return MemoryTraits(
            changes_base_weights=True,
            reaches_front=shape.audio is not None,
            kept_bytes_per_step=compute_bytes * self.copied_weights(shape, values),
            passing_bytes=_FLOAT32 * self.largest_weight(shape),
        )

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our DeltaConfig."""
        from peftselect import DeltaConfig

        return DeltaConfig(
            numbers=self.numbers(shape, values),
            kept=self.kept(shape, values),
            search_steps=self.search_steps(values, context.total_steps),
            task_type=context.task_type,
            modules_to_save=context.modules_to_save,
            **self.tuner_arguments(values, context),
        )

    def callbacks(self, values: Mapping[str, Any], context: ApplyContext) -> list[Any]:
        """Count the steps, by which a change goes from one phase to the next, where it has phases."""
        from transformers import TrainerCallback

        class Advance(TrainerCallback):  # type: ignore[misc]
            """Tells the tuner of each optimizer step."""

            def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
                _tuner(model).penalise()

            def on_optimizer_step(
                self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **_: Any
            ) -> None:
                _tuner(model).advance(optimizer)

            def training_state(self, model: Any) -> dict[str, Any]:
                return {"steps": _tuner(model).steps()}

            def restore_training_state(self, model: Any, state: dict[str, Any]) -> None:
                _tuner(model).go_on_at(state["steps"])

        return [Advance()]


def _tuner(model: Any) -> Any:
    return getattr(model, "module", model).base_model


class MaskMethod(ChangeMethod):
    """A share of the weights is trained, as numbers with places: that is all that has gradients and optimizer states.

    With a ``share_setting`` the places are chosen by scores of the gradients, of which the first steps give enough.
    """

    formula: ClassVar[str] = "ρ·P, the share ρ (density) of all weights"
    default_learning_rate: ClassVar[float | None] = 1e-3
    limits: ClassVar[tuple[str, ...]] = (
        "Training computes the gradient of a whole matrix to keep a share of it: memory is saved, time is not.",
        "Unmerged, every call of the model adds the change to a copy of each weight.",
    )
    #: "random", "magnitude", or a score of the gradients: "gradient" (of their sum), "fisher" (of their squares)
    mask: ClassVar[str] = "random"
    #: whether the largest of all tensors are taken together, not the same share of each
    everywhere: ClassVar[bool] = False
    #: default share of the steps that are spent on the score
    default_search: ClassVar[float] = 0.05
    longest_search: ClassVar[int] = 600

    @property
    def scored(self) -> bool:
        """Whether the places hang on data."""
        return self.mask in ("gradient", "fisher")

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """The share that changes, the steps in which it is sought, and the rate."""
        search = Hyperparameter(
            "search_share", self.default_search, "float", f"share of the steps (at most {self.longest_search}) in which"
            " gradients are looked at, while the head alone is trained", 0.001, 0.9, search=(0.05, 0.1), log=True,
        )  # fmt: skip
        return (self.density_setting(), *((search,) if self.scored else ()), self.rate_setting(shape))

    def search_steps(self, values: Mapping[str, Any], total_steps: int) -> int:
        """A share of the steps; one at least, unless there is but one."""
        if not self.scored or total_steps < 2:
            return 0
        return min(max(int(float(values["search_share"]) * total_steps), 1), self.longest_search)

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """The share that changes, and the head."""
        return self.kept(shape, values) + shape.head.parameters

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """While scores are kept, one for each weight, none is copied; that phase is the larger.

        Gradients of all trained numbers are there from the first one on.
        """
        places = _FLOAT32 * self.kept(shape, values)
        scores = _FLOAT32 * self.numbers(shape, values) if self.scored else 0
        copied = 0 if self.scored else compute_bytes * self.copied_weights(shape, values)
        return MemoryTraits(
            changes_base_weights=True,
            reaches_front=shape.audio is not None,
            held_bytes=places + scores,
            kept_bytes_per_step=copied + places,
        )

    def tuner_arguments(self, values: Mapping[str, Any], context: ApplyContext) -> dict[str, Any]:
        """A sparse change."""
        return {"kind": "sparse", "mask": self.mask, "everywhere": self.everywhere}


class WholeChangeMethod(ChangeMethod):
    """All weights are trained, as a change in float32 beside the frozen base, and few of them are kept in the end."""

    formula: ClassVar[str] = "P, every parameter; ρ·P (density) are kept"
    limits: ClassVar[tuple[str, ...]] = (
        "Trains all weights, beside a frozen copy of them: it needs the memory of full fine-tuning and more, and only"
        " the result is small.",
        "Unmerged, every call of the model adds the change to a copy of each weight.",
    )

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """A number for each weight, and the head."""
        return self.numbers(shape, values) + shape.head.parameters


def parameters_pattern(shape: ModelShape, stack: str, blocks: Iterable[int]) -> str:
    """A pattern of the names of all parameters in the blocks of a stack with these indices.

    A block's index is the first number in a name, but for the convolutions of models that hear, which have numbers too.
    """
    inside = rf"(?:.*\.)?{stack}\." if shape.architecture == "encoder-decoder" else ""
    return rf"(?!.*\bconv_layers\.){inside}(?:(?!\d+\.)[^.]+\.)*(?:{'|'.join(map(str, blocks))})\..+"
