"""Predictions and scores of a model on a set of rows, as the task decodes and scores them."""

from __future__ import annotations

import json
import math
import statistics
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from peftselect.training import measurement, ranks, sharding
from peftselect.training.unfinished import saving, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from peftselect.task import Row, Task, TaskContext

#: tokens to generate where the recipe sets no bound
DEFAULT_NEW_TOKENS = 64
#: rows whose first token is timed
FIRST_TOKENS = 5


@dataclass(frozen=True)
class Evaluated:
    """Predictions, one a row, and the task's metrics."""

    predictions: list[Any]
    scores: dict[str, float]
    #: of predicting all rows, without decoding and scoring
    seconds: float = 0.0
    #: the model's mean loss on the rows, where predicting gives one (not where text is generated)
    loss: float | None = None
    #: from a prompt by itself to its first token, where text is generated
    first_token_seconds: float | None = None


class Evaluation:
    """A set of rows, encoded once, on which a Trainer's model can be scored again and again."""

    def __init__(self, task: Task, rows: Sequence[Row], context: TaskContext) -> None:
        self.task = task
        self.rows = rows
        self.context = context
        self.generates = task.generates(context.head)
        self.encoded = task.encode_eval(rows, context)

    def __call__(self, trainer: Any, *, score: bool = True) -> Evaluated:
        """Predict with ``trainer.predict`` (greedily where text is generated), decode and, if wanted, score."""
        data = self._questions()
        arguments = self._decoding(trainer) if self.generates else {}
        started = time.perf_counter()
        found = trainer.predict(data, **arguments)
        outputs = _first(found.predictions, len(data))
        seconds = time.perf_counter() - started
        predictions = self.task.decode(outputs, self.rows, self.encoded, self.context)
        scores = self.task.score(predictions, self.rows) if score else {}
        scores = {name: float(value) for name, value in scores.items()}
        return Evaluated(predictions, scores, seconds, (found.metrics or {}).get("test_loss"))

    def timed(self, trainer: Any) -> Evaluated:
        """Predict and score, and time the first token of single prompts where text is generated."""
        found = self(trainer)
        return replace(found, first_token_seconds=self._first_token_seconds(trainer) if self.generates else None)

    def _questions(self) -> Any:
        """The encoded rows; where text is generated without labels, which would cost a forward pass for a loss that
        nobody reads."""
        wanted = [name for name in ("labels",) if self.generates and name in self.encoded.column_names]
        return self.encoded.remove_columns(wanted)

    def _decoding(self, trainer: Any) -> dict[str, Any]:
        tokens = self.context.max_target_length or DEFAULT_NEW_TOKENS
        # processes that share weights take each step together: who is done first goes on with the others
        together = {"synced_gpus": True} if sharding.asked().is_sharded(trainer.model) else {}
        return {"max_new_tokens": tokens, "num_beams": 1, "do_sample": False, **together}

    def _first_token_seconds(self, trainer: Any) -> float:
        """Median over the first rows, one at a time, of what generating one token takes; the first row warms up."""
        arguments = {**self._decoding(trainer), "max_new_tokens": 1}
        rows = self._questions().select(range(min(FIRST_TOKENS, len(self.encoded))))
        taken: list[float] = []
        with torch.inference_mode():
            for row in [rows[0], *rows]:
                inputs = trainer._prepare_inputs(trainer.data_collator([row]))
                taken.append(measurement.seconds_of(partial(trainer.model.generate, **inputs, **arguments)))
        return statistics.median(taken[1:])


def _first(outputs: Any, number: int) -> Any:
    """Outputs without the rows by which several processes fill up the last batch."""
    if isinstance(outputs, tuple | list):
        return type(outputs)(_first(item, number) for item in outputs)
    return outputs[:number] if ranks.count() > 1 else outputs


def once(file: Path, score: Callable[[], Evaluated]) -> Evaluated:
    """What ``score`` gives, or what an earlier sitting of the run left in ``file``."""
    if file.exists():
        return Evaluated(**json.loads(file.read_text(encoding="utf-8")))
    found = score()
    if not ranks.is_first():
        return found
    with saving(file.parent):
        write_whole(file, asdict(found))
    return found


def finite(scores: dict[str, float]) -> dict[str, float]:
    """Scores without those that could not be computed (a correlation with a constant)."""
    return {name: value for name, value in scores.items() if math.isfinite(value)}


def keep_logits(head: str) -> Any:
    """A function for the Trainer that drops what models give beside their logits (hidden states, caches)."""
    wanted = 2 if head == "question_answering" else 1

    def keep(logits: Any, labels: Any) -> Any:
        if not isinstance(logits, tuple):
            return logits
        return logits[:wanted] if wanted > 1 else logits[0]

    return keep
