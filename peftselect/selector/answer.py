"""The answer: ranked candidates with reasons, what was excluded and why, and their JSON form."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from peftselect.duration import Interval
    from peftselect.memory.closed_form import MemoryEstimate, Verdict
    from peftselect.method import Candidate
    from peftselect.problem import Problem

SCHEMA = 1
ConfidenceSource = Literal["rules", "records", "both", "abstained"]
Constraint = Literal[
    "head",
    "architecture",
    "unsupported",
    "evidence",
    "merge",
    "quantized-base",
    "multi-adapter",
    "rule",
    "memory",
    "time",
]
_RECIPE_KEYS = (
    "precision",
    "quantization",
    "micro_batch_size",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "learning_rate",
    "num_train_epochs",
    "max_length",
    "max_target_length",
)


@dataclass(frozen=True)
class Reason:
    """One sentence for or against a candidate. ``kind``: "for", "against", "setting", "record", "cost"."""

    text: str
    source: str
    kind: str


@dataclass(frozen=True)
class Confidence:
    """What the place of a candidate rests on, and why that is much or little."""

    source: ConfidenceSource
    because: str


@dataclass(frozen=True)
class Predicted:
    """A predicted metric on its own scale, with the 80 % interval."""

    metric: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class FailedConstraint:
    """A constraint that a method fails: which, and one sentence why."""

    constraint: Constraint
    because: str


@dataclass(frozen=True)
class Excluded:
    """A method left out: the constraint it fails first, the cheapest change that admits it, and what else fails."""

    method: str
    constraint: Constraint
    because: str
    cheapest_change: str | None = None
    also: tuple[FailedConstraint, ...] = ()


@dataclass(frozen=True)
class RankedCandidate:
    """A method with its whole recipe, its costs, its score and the reasons.

    ``score`` is in points of the task's metric (see :mod:`peftselect.selector.scoring`); candidates of one
    ``tie_group`` differ by less than the noise between two runs, as far as anything here can tell.
    """

    candidate: Candidate
    memory: MemoryEstimate
    verdict: Verdict
    trainable_parameters: int
    changed_parameters: int
    total_parameters: int
    adapter_bytes: int
    train_seconds: Interval | None
    #: peak at a micro-batch of one without checkpointing: how recipes that fill the budget differently are compared
    comparable_bytes: int = 0
    quality: float = 0.0
    #: the part of the quality that records speak for: the distance expected from the median method less its doubt
    expected_points: float | None = None
    #: candidates of better quality by less than this are tied with it
    noise_points: float = 0.0
    #: whether a record of the family of tasks or a rule of this question speaks of the method itself
    tried: bool = True
    score: float = 0.0
    rank: int = 0
    tie_group: int = 0
    predicted: Predicted | None = None
    confidence: Confidence = field(default_factory=lambda: Confidence("abstained", "nothing was asked yet"))
    reasons: tuple[Reason, ...] = ()
    command: str = ""

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.candidate.method.name

    def to_json(self) -> dict[str, Any]:
        """The candidate as plain JSON values, every key of the published schema present."""
        recipe = asdict(self.candidate.recipe)
        seconds = self.train_seconds
        return {
            "rank": self.rank,
            "tie_group": self.tie_group,
            "method": self.method,
            "hyperparameters": {name: _plain(value) for name, value in self.candidate.values.items()},
            "recipe": {key: recipe[key] for key in _RECIPE_KEYS},
            "memory": {
                "peak_bytes": self.memory.peak_bytes,
                "breakdown": dict(self.memory.breakdown),
                "fits": self.verdict.fits,
                "verdict": self.verdict.verdict,
                "margin_bytes": self.verdict.margin_bytes,
                "error_band_percent": self.memory.error_band_percent,
                "source": self.memory.source,
            },
            "trainable_parameters": self.trainable_parameters,
            "changed_parameters": self.changed_parameters,
            "total_parameters": self.total_parameters,
            "adapter_bytes": self.adapter_bytes,
            "train_seconds": seconds and {"value": seconds.value, "low": seconds.low, "high": seconds.high},
            "score": round(self.score, 3),
            "predicted": self.predicted and asdict(self.predicted),
            "confidence": asdict(self.confidence),
            "reasons": [asdict(reason) for reason in self.reasons],
            "command": self.command,
        }


@dataclass(frozen=True)
class Recommendation:
    """The whole answer. ``candidates`` are ranked, the recommended one first; none means that nothing fits."""

    problem: Problem
    candidates: tuple[RankedCandidate, ...]
    excluded: tuple[Excluded, ...]
    notes: tuple[str, ...] = ()

    @property
    def recommended(self) -> RankedCandidate | None:
        """The first candidate, or None where nothing fits."""
        return self.candidates[0] if self.candidates else None

    def find(self, method: str) -> RankedCandidate | None:
        """The candidate of a method, if it was not excluded."""
        return next((item for item in self.candidates if item.method == method), None)

    def to_json(self, top: int | None = None) -> dict[str, Any]:
        """The answer in the schema of ``recommend --json``, at most ``top`` candidates."""
        return {
            "schema": SCHEMA,
            "problem": problem_to_json(self.problem),
            "recommended": self.recommended and self.recommended.to_json(),
            "candidates": [item.to_json() for item in self.candidates[:top]],
            "excluded": [{**asdict(item), "also": [asdict(other) for other in item.also]} for item in self.excluded],
            "notes": list(self.notes),
        }


def problem_to_json(problem: Problem) -> dict[str, Any]:
    """The question as plain JSON values."""
    model, shape = problem.model, problem.shape
    return {
        "task": problem.task.name,
        "metric": problem.task.metric,
        "model": {
            "name": model.name,
            "reference": model.reference,
            "source": model.source,
            "model_type": model.model_type,
            "architecture": shape.architecture,
            "head": shape.head.kind,
            "total_parameters": shape.total_parameters,
        },
        "data": asdict(problem.data),
        "hardware": asdict(problem.hardware),
        "priorities": {
            "prefer": problem.priorities.prefer,
            "must": sorted(problem.priorities.must),
            "max_seconds": problem.priorities.max_seconds,
            "traits": sorted(problem.priorities.traits),
        },
        "batch_size": problem.batch_size,
        "max_length": problem.max_length,
        "max_target_length": problem.max_target_length,
        "precision": problem.precision,
        "quantization": problem.quantization,
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | frozenset | set) else value
