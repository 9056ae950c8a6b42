"""One run, measured: the performance data that the selector learns from."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from peftselect.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = 1
Status = Literal["ok", "oom", "diverged", "failed"]
STATUSES: tuple[str, ...] = ("ok", "oom", "diverged", "failed")


@dataclass(frozen=True)
class Score:
    """A metric's value on its own scale, with the deviation over seeds or splits where it is known."""

    value: float
    std: float | None = None
    higher_is_better: bool = True


@dataclass(frozen=True)
class RunRecord:
    """One run as an immutable document. What is not known is absent (None or empty), never a magic number.

    Keys of the mappings (all optional):
    ``problem``: task, family, modality, dataset, regime ("low" | "medium" | "high"), num_train_examples, model,
    model_type, architecture, total_parameters, max_length.
    ``candidate``: method, hyperparameters, recipe, trainable_parameters, trainable_percent.
    ``measured``: peak_memory_bytes, train_seconds, steps, adapter_bytes, trainable_parameters, tokens_per_second,
    steps_per_second, train_flops, compression_ratio, inference_seconds_per_row and first_token_seconds (and
    base_...), energy_kwh and energy_by, trail, probe.
    ``predicted``: peak_memory_bytes, error_band_percent, trainable_parameters, train_seconds.
    ``environment``: python, torch, transformers, peft, peftselect, device, git.
    """

    source: str
    status: Status
    problem: Mapping[str, Any]
    candidate: Mapping[str, Any]
    metric: str | None = None
    scores: Mapping[str, Score] = field(default_factory=dict)
    baseline: Mapping[str, Score] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)
    predicted: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    created_at: str | None = None
    note: str = ""
    schema: int = SCHEMA

    @property
    def id(self) -> str:
        """Twelve hex digits of the content's hash: the same run has the same name everywhere."""
        text = json.dumps(self.to_json(with_id=False), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_json(self, *, with_id: bool = True) -> dict[str, Any]:
        """The record as plain JSON values; absent fields are left out."""
        document = {name: value for name, value in asdict(self).items() if value not in (None, {}, "")}
        return {"id": self.id, **document} if with_id else document

    @classmethod
    def from_json(cls, document: Mapping[str, Any], where: str = "record", *, check_id: bool = False) -> RunRecord:
        """Read a record; DataError names ``where`` and the field that is missing or wrong.

        ``check_id`` also refuses a document whose id is that of other content (it was changed after it was written).
        """
        values = {key: value for key, value in document.items() if key in _FIELDS}
        if document.get("schema", SCHEMA) != SCHEMA:
            raise DataError(
                f"{where}: schema {document['schema']!r} is not known", f"this version reads schema {SCHEMA}"
            )
        for name in ("source", "status", "problem", "candidate"):
            if name not in values:
                raise DataError(
                    f"{where}: field {name!r} is missing", "a record needs source, status, problem, candidate"
                )
        if values["status"] not in STATUSES:
            raise DataError(f"{where}: status {values['status']!r} is not known", f"one of {', '.join(STATUSES)}")
        for name in ("problem", "candidate", "scores", "baseline", "measured", "predicted", "environment"):
            if not isinstance(values.get(name, {}), dict):
                raise DataError(f"{where}: {name} is not an object", "see benchmarks/README.md")
        if not isinstance(values["candidate"].get("method"), str):
            raise DataError(f"{where}: candidate names no method", "candidate.method is the method's name")
        for name in ("scores", "baseline"):
            values[name] = {
                metric: _score(score, f"{where}: {name} is malformed", metric)
                for metric, score in values.get(name, {}).items()
            }
        record = cls(**values)
        if check_id and (said := document.get("id", record.id)) != record.id:
            raise DataError(
                f"{where}: it has the id {said}, but its content is that of {record.id}",
                "a record is not changed once it is written; without its id it is taken as a new one",
            )
        return record


def _score(document: Any, what: str, metric: str) -> Score:
    hint = "each score is {value, std, higher_is_better}"
    if not isinstance(document, dict) or document.get("value") is None:
        raise DataError(f"{what} ({metric} has no value)", hint)
    if unknown := sorted(document.keys() - _SCORE_FIELDS):
        raise DataError(f"{what} ({metric} has {unknown[0]!r}, which no score has)", hint)
    value, deviation = document["value"], document.get("std")
    for number in (value, 0.0 if deviation is None else deviation):
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise DataError(f"{what} (a value is not a number)", hint)
    return Score(**document)


_FIELDS = frozenset(item.name for item in fields(RunRecord))
_SCORE_FIELDS = frozenset(item.name for item in fields(Score))
