"""The contract of a method plugin: what it is, what it can serve, what it costs, how it is applied."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from peftselect.errors import UnknownNameError
from peftselect.hyperparameter import Hyperparameter
from peftselect.shape import Architecture, HeadKind
from peftselect.traits import MemoryTraits as MemoryTraits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect.shape import ModelShape

Family = Literal["additive", "selective", "reparameterized", "hybrid"]
QuantizedBase = Literal["no", "possible", "required"]
#: "runnable": trains by itself; "stage": done to the model before or after training; "baseline": evaluated, not
#: trained; "reference": named by the thesis, but nothing that can be run here
Kind = Literal["runnable", "stage", "baseline", "reference"]
VECTORS: frozenset[str] = frozenset({"feature_extraction"})
#: the head of masked language models, under which a label is a word that fills the mask of a prompt
PROMPTED: frozenset[str] = frozenset({"masked_lm"})
#: every usual head; those of VECTORS (no head: no loss of its own) and PROMPTED are served by those that name them
ALL_HEADS: frozenset[str] = frozenset(get_args(HeadKind)) - VECTORS - PROMPTED
#: heads that write, and have no parameters of their own
LANGUAGE_MODEL_HEADS: frozenset[str] = frozenset({"causal_lm", "seq2seq_lm", "speech_seq2seq"})
#: heads of models that hear: their inputs have no embeddings to put vectors before
SPEECH_HEADS: frozenset[str] = frozenset({"audio_classification", "ctc", "speech_seq2seq"})
ALL_ARCHITECTURES: frozenset[str] = frozenset(get_args(Architecture))
#: bytes of a safetensors header and its per-tensor entry, enough for an estimate of an adapter's file
ADAPTER_HEADER_BYTES = 8
#: peft's task types by head; multiple choice has none (peft then leaves the head to ``modules_to_save``)
PEFT_TASK_TYPES: dict[str, str] = {
    "causal_lm": "CAUSAL_LM",
    "seq2seq_lm": "SEQ_2_SEQ_LM",
    "sequence_classification": "SEQ_CLS",
    "token_classification": "TOKEN_CLS",
    "question_answering": "QUESTION_ANS",
    "feature_extraction": "FEATURE_EXTRACTION",
}


@dataclass(frozen=True)
class Reference:
    """Where a method comes from."""

    title: str
    url: str
    year: int


@dataclass(frozen=True)
class Structure:
    """The method in the words of the PEFT-Ref typology (Sabry and Belz 2023; thesis table 2.3).

    ``derived`` is False for the rows that the table prints, True where we filled the columns from the paper.
    """

    intra_connectivity: str
    inter_connectivity: str
    parameters_adapted: str
    parameter_sharing: str
    input_type: str
    insertion_form: str
    insertions: str
    integration_form: str
    workspace: str
    derived: bool = True


@dataclass(frozen=True)
class ApplyContext:
    """What a method may need to know when it is applied to a loaded model."""

    shape: ModelShape
    task: str
    total_steps: int
    seed: int = 0
    quantized: bool = False
    #: as many solved training rows as :meth:`Method.examples` says, a batch of tensors; None where there are no data
    examples: Mapping[str, Any] | None = None

    @property
    def head(self) -> str:
        """Kind of the task head."""
        return self.shape.head.kind

    @property
    def task_type(self) -> str | None:
        """peft's ``task_type`` for this head, or None where peft has none."""
        return PEFT_TASK_TYPES.get(self.head)

    @property
    def modules_to_save(self) -> list[str] | None:
        """Head modules that must be trained and saved beside the adapter."""
        return list(self.shape.head.modules) or None


class Method(ABC):
    """A fine-tuning method. Subclasses are stateless: everything they need comes in as arguments.

    Values are the resolved hyperparameters (see :func:`resolve_values`), ``learning_rate`` among them.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]
    family: ClassVar[Family]
    structure: ClassVar[Structure]
    references: ClassVar[tuple[Reference, ...]]
    #: where the default learning rate comes from, a phrase for the card; what is our own choice says "ours"
    rate_from: ClassVar[str] = ""
    aliases: ClassVar[tuple[str, ...]] = ()
    kind: ClassVar[Kind] = "runnable"
    #: for what is not runnable: why, and what to use instead
    because: ClassVar[str] = ""
    #: where the thesis has it: sections ("2.2.4", "5.3") and tables ("T2.5")
    thesis: ClassVar[tuple[str, ...]] = ()
    #: trained parameters in the letters that `peftselect methods NAME` explains (d, f, g, L, r, ...), without the head
    formula: ClassVar[str] = ""
    #: what a user must give before it can serve any model (trained adapters, say); empty for most
    needs: ClassVar[str] = ""
    #: what does not work, one sentence each; shown on the card
    limits: ClassVar[tuple[str, ...]] = ()
    #: what was simplified against the paper, one sentence each; empty where it is faithful
    simplified: ClassVar[tuple[str, ...]] = ()
    #: True where the wrapped model gives the base model's logits until it is trained
    starts_as_base: ClassVar[bool] = False
    #: False where decoding with a key/value cache gives other logits than without: generation then goes without
    decodes_with_cache: ClassVar[bool] = True
    #: whether a few steps reach most rows of every trained tensor; not so of a bank from which some are chosen
    reaches_all_rows: ClassVar[bool] = True
    heads: ClassVar[frozenset[str]] = ALL_HEADS
    architectures: ClassVar[frozenset[str]] = ALL_ARCHITECTURES
    #: parts of the network it changes: "embedding", "attention", "ffn", "norm", "bias", "head", "all"
    acts_on: ClassVar[frozenset[str]] = frozenset()
    mergeable: ClassVar[bool] = False
    multi_adapter: ClassVar[bool] = True
    quantized_base: ClassVar[QuantizedBase] = "no"
    gradient_checkpointing: ClassVar[bool] = True
    adds_inference_cost: ClassVar[bool] = True
    #: False for methods whose result is a whole model, not an adapter beside it
    saves_adapter: ClassVar[bool] = True
    #: True where it trains without gradients: its optimizer is a ForwardOptimizer, and weights of the base which it
    #: trains stay in the width they have
    forward_only: ClassVar[bool] = False
    #: False where the file may hold somewhat more or less (AdaLoRA's ranks are decided by training)
    saved_count_is_exact: ClassVar[bool] = True
    #: method under whose records this one is looked up when it has none of its own (qlora -> lora)
    records_like: ClassVar[str | None] = None
    #: False where neither the thesis nor a record says how well it does: it runs by name, and is not recommended
    judged: ClassVar[bool] = True

    @abstractmethod
    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Settings with defaults and ranges for this model; ``learning_rate`` must be one of them."""

    @abstractmethod
    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Exact number of parameters that get gradients, the task head included."""

    def learning_rate(self, values: Mapping[str, Any]) -> float:
        """Learning rate when the user sets none: tied to the method and, where it has one, its rank."""
        return float(values["learning_rate"])

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """One sentence why this method cannot serve this model, beyond head and architecture; None if it can."""
        return None

    def changed_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Parameters of the deployed model that differ from the base or are added to it (thesis 3.7)."""
        return self.saved_parameters(shape, values)

    def saved_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Parameters in the exported adapter (head included); fewer than trained where a network is folded in."""
        return self.trainable_parameters(shape, values)

    def rank(self, values: Mapping[str, Any]) -> int | None:
        """Rank of the update, where the method has one."""
        return values.get("r")

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """Memory hook; ``compute_bytes`` is the width of the activations (2 for bf16, 4 for fp32)."""
        return MemoryTraits()

    def prepended_positions(self, values: Mapping[str, Any]) -> int:
        """Positions that the method puts before the input, so that logits are that much longer than the labels."""
        return 0

    def examples(self, values: Mapping[str, Any]) -> int:
        """How many solved training examples there must be: before every question (baselines of language models), behind
        it, so many of each label (under a masked language model's head), or for :attr:`ApplyContext.examples`."""
        return 0

    def label_words(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Words that stand for the labels, in their order, under a masked language model's head; empty: the task's."""
        return ()

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """The peft configuration. Only methods that override :meth:`apply` may leave it out."""
        raise NotImplementedError(f"{type(self).__name__} defines neither peft_config nor apply")

    def apply(self, model: Any, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Make ``model`` (a transformers model) trainable by this method and return it."""
        from peft import get_peft_model

        return get_peft_model(model, self.peft_config(context.shape, values, context))

    def optimizer(self, model: Any, values: Mapping[str, Any]) -> Any | None:
        """An optimizer of its own, or None for the Trainer's.

        A ``ForwardOptimizer`` is handed losses in place of a backward pass.
        """
        return None

    def callbacks(self, values: Mapping[str, Any], context: ApplyContext) -> list[Any]:
        """transformers ``TrainerCallback`` objects which the method needs while training.

        One with a state of its own has ``training_state(model)``, a dictionary of plain values and tensors, and
        ``restore_training_state(model, state)``: then an interrupted run goes on exactly.
        """
        return []


@dataclass(frozen=True)
class Recipe:
    """Everything about a run that is not the method itself.

    ``max_length`` is in seconds where the model hears.

    ``precision`` is the compute and weight type ("bf16", "fp16", "fp32"; full fine-tuning keeps float32 master weights
    under the first two, and none under "pure_bf16"); ``quantization`` the storage of the frozen
    base (None, "int8", "nf4"); lengths are tokens (``max_target_length`` 0 where nothing is generated). ``packing``
    puts several short examples of a causal model into one sequence, none of which sees another; ``group_by_length``
    puts rows of like length into a batch, so that little of it is padding.
    """

    precision: Literal["bf16", "fp16", "fp32", "pure_bf16"]
    quantization: Literal["int8", "nf4"] | None
    micro_batch_size: int
    gradient_accumulation_steps: int
    gradient_checkpointing: bool
    learning_rate: float
    num_train_epochs: float
    max_length: int
    max_target_length: int = 0
    optimizer: str = "adamw"
    warmup_ratio: float = 0.06
    weight_decay: float = 0.0
    lr_scheduler: str = "linear"
    packing: bool = False
    group_by_length: bool = False


@dataclass(frozen=True)
class Candidate:
    """A method with its values and a whole recipe: what can be run."""

    method: Method
    values: Mapping[str, Any]
    recipe: Recipe
    set_by: Mapping[str, str] = field(default_factory=dict)


def resolve_values(method: Method, shape: ModelShape, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Defaults of ``method`` for ``shape`` with ``overrides`` parsed into them.

    Raises UnknownNameError for a setting the method does not have, InputError for a value out of range.
    """
    settings = {setting.name: setting for setting in method.hyperparameters(shape)}
    values = {name: setting.default for name, setting in settings.items()}
    for name, raw in (overrides or {}).items():
        if name not in settings:
            raise UnknownNameError(f"setting of {method.name}", name, sorted(settings))
        values[name] = settings[name].parse(raw)
    if "learning_rate" not in (overrides or {}):
        values["learning_rate"] = method.learning_rate(values)
    return values
