"""The contract of a task: its words, head, columns, preprocessing and metrics, declared in one place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from peftselect.method import Candidate
    from peftselect.problem import Problem
    from peftselect.shape import AudioInput

Row = dict[str, Any]
#: kinds of columns that hold what is to be predicted
ANSWERS = frozenset({"label", "labels", "number", "tags", "answers", "index", "references"})
ColumnKind = Literal[
    "text",
    "label",
    "number",
    "tokens",
    "tags",
    "answers",
    "choices",
    "index",
    "references",
    "labels",
    "messages",
    "audio",
]


@dataclass(frozen=True)
class Column:
    """A column that a task reads: our name for it, the names it goes by in the wild, and what it holds."""

    name: str
    kind: ColumnKind
    aliases: tuple[str, ...] = ()
    required: bool = True
    #: whether it holds what is to be predicted; None: if its kind says so
    answer: bool | None = None

    @property
    def is_answer(self) -> bool:
        """Whether rows to be predicted come without it."""
        return self.kind in ANSWERS if self.answer is None else self.answer


@dataclass(frozen=True)
class TaskContext:
    """What encoding and decoding need to know of the run.

    ``prepended_positions`` is how many positions the method puts before the input (see
    :meth:`peftselect.method.Method.prepended_positions`): logits of token and span heads are that much longer.
    ``labels`` are the label names in the order of their ids.
    """

    tokenizer: Any
    architecture: str
    head: str
    max_length: int
    max_target_length: int = 0
    labels: tuple[str, ...] = ()
    prepended_positions: int = 0
    model_config: Any = None
    #: turns samples into what a model that hears reads; None where it reads text
    feature_extractor: Any = None
    #: how that model makes positions of sound
    audio: AudioInput | None = None
    #: replaces the task's own prompt; ``{source}`` stands for the input
    template: str | None = None
    #: under a masked language model's head: words that stand for the labels, in their order; empty: the task's own
    label_words: tuple[str, ...] = ()
    #: under that head: solved rows that stand behind every input
    demonstrations: tuple[Row, ...] = ()

    @property
    def processors(self) -> tuple[Any, ...]:
        """What is saved beside a model, so that it finds what it reads with: tokenizer, feature extractor."""
        return tuple(item for item in (self.tokenizer, self.feature_extractor) if item is not None)


class Objective:
    """What a task's training step and prediction step do where the model's own loss or output will not do."""

    #: whether :meth:`loss` stands in place of the model's own
    has_loss: ClassVar[bool] = False
    #: whether :meth:`predict` stands in place of the model's logits or generated text
    has_prediction: ClassVar[bool] = True

    def loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        """The mean loss of a batch, a tensor that gradients flow from."""
        raise NotImplementedError

    def predict(self, model: Any, inputs: dict[str, Any]) -> Any:
        """A tensor (batch, ...) to be decoded, which stands in place of the model's logits."""
        raise NotImplementedError


class Task(ABC):
    """A task type. Subclasses are stateless; heavy libraries are imported inside their functions.

    Rows reach a task canonical: :mod:`peftselect.data` has renamed the columns and checked the kinds.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    #: family under which records and rules pool tasks: "classification", "generation", "tagging", "qa", "similarity",
    #: "multiple_choice"
    family: ClassVar[str]
    modality: ClassVar[str] = "text"
    #: kind of task head by architecture of the base model; an architecture that is missing cannot serve the task
    heads: ClassVar[Mapping[str, str]]
    #: further heads by architecture, which the task takes where a method serves no other
    other_heads: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    columns: ClassVar[tuple[Column, ...]]
    #: names of the metrics reported, the first being the one that early stopping and the records use
    metrics: ClassVar[tuple[str, ...]]
    higher_is_better: ClassVar[bool] = True
    #: transformers' ``problem_type`` of a classification head; None: one label of several, or a number where one is
    problem_type: ClassVar[str | None] = None
    #: catalogue names proposed when the user names no base model, largest first
    default_models: ClassVar[tuple[str, ...]]
    #: what trains this task where ``run`` does not ("trl's DPO"): it is advised on alone; empty: ``run`` does
    elsewhere: ClassVar[str] = ""
    #: whether :meth:`export` writes a script for it
    writes_script: ClassVar[bool] = False
    #: sentences that every answer about the task ends with
    notes: ClassVar[tuple[str, ...]] = ()
    #: the longest input that is looked at: tokens, or seconds of sound
    default_max_length: ClassVar[int] = 512
    #: labels to expect where no data say how many there are
    default_labels: ClassVar[int] = 2
    #: whether rows to be scored on may have no labels that the training rows lack
    closed_labels: ClassVar[bool] = True
    #: whether longer inputs may be cut; a transcript of cut sound would be wrong
    cuts_inputs: ClassVar[bool] = True
    default_max_target_length: ClassVar[int] = 0

    @property
    def metric(self) -> str:
        """The primary metric."""
        return self.metrics[0]

    def head_for(self, architecture: str, served: Collection[str]) -> str | None:
        """The head of the task on an architecture: its own, or another of ``served``; None where it has none."""
        own = self.heads.get(architecture)
        fitting = [head for head in self.other_heads.get(architecture, ()) if head in served]
        return fitting[0] if fitting and own not in served else own

    def generates(self, head: str) -> bool:
        """Whether evaluation under this head generates text."""
        return head in ("seq2seq_lm", "causal_lm", "speech_seq2seq")

    @abstractmethod
    def input_texts(self, row: Row) -> tuple[str, ...]:
        """The texts of a row's input in the order they are encoded (light: for lengths, duplicates and overlap)."""

    def input_seconds(self, row: Row) -> float | None:
        """How long a row's sound lasts; None where the input is text."""
        return None

    @abstractmethod
    def target_text(self, row: Row) -> str:
        """The answer as text (a label, a summary, tags joined by spaces); empty if the row has none."""

    def check_row(self, row: Row) -> str | None:
        """What is wrong with a row beyond its single cells, in half a sentence; None if nothing is."""
        return None

    def label_names(self, rows: Sequence[Row]) -> tuple[str, ...]:
        """Sorted label names of the training rows; empty for tasks without a closed label set."""
        return ()

    def export(self, problem: Problem, candidate: Candidate, train: str) -> str:
        """The candidate as a script for what trains the task :attr:`elsewhere`; ``train`` is the file of rows."""
        raise NotImplementedError(f"{self.name} is trained by run")

    def objective(self, context: TaskContext) -> Objective | None:
        """Training and prediction steps of the task's own; None: the model's loss, and its logits or generated text."""
        return None

    @abstractmethod
    def encode_train(self, rows: Sequence[Row], context: TaskContext) -> Any:
        """A ``datasets.Dataset`` of model inputs with labels, for training and for a loss on the evaluation set."""

    def encode_eval(self, rows: Sequence[Row], context: TaskContext) -> Any:
        """A ``datasets.Dataset`` for prediction; generation tasks on causal models give prompts alone, padded left."""
        return self.encode_train(rows, context)

    @abstractmethod
    def collator(self, context: TaskContext, model: Any = None) -> Callable[[list[Row]], dict[str, Any]]:
        """The data collator for the encoded rows."""

    @abstractmethod
    def decode(self, predictions: Any, rows: Sequence[Row], encoded: Any, context: TaskContext) -> list[Any]:
        """Turn ``Trainer.predict`` output (logits, or generated token ids) into one prediction a row."""

    @abstractmethod
    def score(self, predictions: Sequence[Any], rows: Sequence[Row]) -> dict[str, float]:
        """Every metric of :attr:`metrics` (fractions, 0..1) of decoded predictions against the rows."""
