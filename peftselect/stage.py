"""The contract of a stage: what is done to a model before a method is applied, or after it has been trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from peftselect.hyperparameter import Hyperparameter
    from peftselect.method import Kind, Method, Reference
    from peftselect.shape import ModelShape
    from peftselect.task import Objective, Row

Place = Literal["before", "after"]


@dataclass(frozen=True)
class StageContext:
    """What a stage may need of the run.

    ``folder`` is a folder of the run's own to write into; ``load`` gives a base model (a catalogue name, a folder, a
    hub id) under the run's head, frozen; ``reload`` a saved model of the run's kind, with further arguments of
    ``from_pretrained``; ``predict`` a model's answers to rows, as the task decodes them. ``base`` is where the model
    lies that the method began with. ``report`` takes what the stage did, as names and numbers, for the record.
    """

    shape: ModelShape
    seed: int
    folder: Path
    load: Callable[[str], Any]
    reload: Callable[..., Any]
    predict: Callable[[Any, Sequence[Row]], list[Any]]
    base: str = ""
    report: dict[str, Any] = field(default_factory=dict)


class Stage(ABC):
    """Something done to the model beside a method, written ``NAME:setting=value``. Stateless, as methods are."""

    name: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]
    references: ClassVar[tuple[Reference, ...]]
    family: ClassVar[str] = "compression"
    aliases: ClassVar[tuple[str, ...]] = ()
    thesis: ClassVar[tuple[str, ...]] = ()
    kind: ClassVar[Kind] = "stage"
    because: ClassVar[str] = ""
    #: where it can stand: before the method is applied, after it has been trained
    places: ClassVar[frozenset[str]]
    limits: ClassVar[tuple[str, ...]] = ()
    simplified: ClassVar[tuple[str, ...]] = ()
    #: whether it changes weights, which must then stay as they are (an objective or other rows change none)
    changes_weights: ClassVar[bool] = True
    #: whether nothing can be done to the model after it (its weights are no plain matrices any more)
    last: ClassVar[bool] = False

    @abstractmethod
    def hyperparameters(self) -> Sequence[Hyperparameter]:
        """Settings with defaults and ranges."""

    def refuse(self, shape: ModelShape, method: Method, values: Mapping[str, Any]) -> str | None:
        """One clause why it cannot be done on this model with this method; None if it can."""
        return None

    def change(self, model: Any, values: Mapping[str, Any], context: StageContext) -> Any:
        """The changed model: the base (before), or the trained model with its adapter merged (after)."""
        return model

    def rows(self, rows: Sequence[Row], values: Mapping[str, Any], context: StageContext) -> Sequence[Row]:
        """The training rows, or others in their place."""
        return rows

    def objective(self, values: Mapping[str, Any], context: StageContext) -> Objective | None:
        """A loss in place of the model's own; None: the model's own."""
        return None
