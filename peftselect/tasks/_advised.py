"""Tasks that are advised on alone: the recipe is chosen and priced here, and something else trains it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from peftselect.task import Row, Task, TaskContext


class AdvisedTask(Task):
    """A task that ``run`` does not train; :attr:`elsewhere` says what does."""

    def encode_train(self, rows: Sequence[Row], context: TaskContext) -> Any:
        """Not done here."""
        raise NotImplementedError(self.elsewhere)

    def collator(self, context: TaskContext, model: Any = None) -> Callable[[list[Row]], dict[str, Any]]:
        """Not done here."""
        raise NotImplementedError(self.elsewhere)

    def decode(self, predictions: Any, rows: Sequence[Row], encoded: Any, context: TaskContext) -> list[Any]:
        """Not done here."""
        raise NotImplementedError(self.elsewhere)

    def score(self, predictions: Sequence[Any], rows: Sequence[Row]) -> dict[str, float]:
        """Not done here."""
        raise NotImplementedError(self.elsewhere)
