"""Facts: every fact of the registry is answered, with the type it says; thresholds are where the documents say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from peftselect.facts import FACTS, budget, data_regime, method_facts, problem_facts
from peftselect.hyperparameter import Hyperparameter
from peftselect.method import Method, Reference, Structure, resolve_values
from peftselect.problem import GIB, BaseModel, DataProfile, Hardware, Priorities, Problem
from peftselect.shape import HeadShape, ModelShape

TYPES: dict[str, type | tuple[type, ...]] = {"text": str, "number": (int, float), "flag": bool, "set": frozenset}
SHAPE = ModelShape(
    model_type="t5",
    architecture="encoder-decoder",
    hidden_size=8,
    embedding_size=8,
    encoder_layers=2,
    decoder_layers=3,
    num_heads=2,
    num_kv_heads=2,
    head_dim=4,
    intermediate_size=16,
    vocab_size=10,
    max_positions=None,
    gated_ffn=False,
    tied_embeddings=True,
    total_parameters=1_000_000,
    bias_parameters=0,
    linears=(),
    head=HeadShape("seq2seq_lm"),
)


class Rescale(Method):
    """A method of our own, so that no plugin is needed."""

    name = "rescale"
    title = "Rescale"
    summary = "Ten vectors."
    family = "additive"
    acts_on = frozenset({"attention", "ffn"})
    structure = Structure("none", "fixed", "addition", "none", "weights", "parallel", "all", "rescaling", "ffn")
    references = (Reference("Rescale", "https://example.org", 2024),)

    def hyperparameters(self, shape: ModelShape) -> list[Hyperparameter]:
        return [Hyperparameter("learning_rate", 1e-3, "float", "rate")]

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        return 10_000

    def rank(self, values: Mapping[str, Any]) -> int | None:
        return 4


class Summarize:
    """As much of a task as facts ask for."""

    name, family, modality, metric = "summarization", "generation", "text", "rougeL"

    def generates(self, head: str) -> bool:
        return head == "seq2seq_lm"


def question(**changes: Any) -> Problem:
    model = BaseModel("tiny", "tiny", "tiny", "folder", {"model_type": "t5"})
    given: dict[str, Any] = {
        "data": DataProfile(num_examples=100, num_labels=3),
        "hardware": Hardware(vram_bytes=4 * GIB),
        "priorities": Priorities("memory", frozenset({"merge"}), 60.0, frozenset({"faithful"})),
        "max_target_length": 32,
    }
    return Problem(Summarize(), model, SHAPE, **{**given, **changes})  # type: ignore[arg-type]


def test_every_fact_is_answered_with_its_type() -> None:
    known = {
        **problem_facts(question()),
        **method_facts(Rescale(), SHAPE, resolve_values(Rescale(), SHAPE)),
    }
    assert len(FACTS) > 40
    assert set(known) == set(FACTS)
    for name, value in known.items():
        assert isinstance(value, TYPES[FACTS[name].type]), name
        if FACTS[name].choices:
            assert set(value if isinstance(value, frozenset) else {value}) <= set(FACTS[name].choices), name


def test_facts_of_the_question() -> None:
    facts = problem_facts(question())
    assert facts["task"] == "summarization"
    assert facts["generates"] is True
    assert facts["has_biases"] is False
    assert facts["num_layers"] == 5
    assert facts["vram_gib"] == 4
    assert facts["vram_bytes_per_parameter"] == 4 * GIB / 1_000_000
    assert facts["data_regime"] == "low"
    assert facts["must"] == {"merge"}


def test_what_nobody_said_is_absent() -> None:
    facts = problem_facts(question(data=DataProfile(), hardware=Hardware(), priorities=Priorities()))
    assert {facts[name] for name in ("num_train_examples", "num_labels", "vram_gib", "max_seconds")} == {None}
    assert (facts["data_regime"], facts["budget"]) == ("unknown", "unlimited")


def test_facts_of_the_method() -> None:
    facts = method_facts(Rescale(), SHAPE, {})
    assert facts["trainable_percent"] == 1.0
    assert facts["rank"] == 4
    assert facts["acts_on"] == {"attention", "ffn"}
    assert facts["integration_form"] == "rescaling"


@pytest.mark.parametrize(
    ("examples", "regime"),
    [(0, "low"), (100, "low"), (316, "low"), (317, "medium"), (1000, "medium"), (3162, "medium"), (3163, "high")],
)
def test_thresholds_of_the_data_regime(examples: int, regime: str) -> None:
    assert data_regime(examples) == regime


@pytest.mark.parametrize(
    ("per_parameter", "name"), [(7.9, "very_small"), (8.0, "small"), (23.9, "small"), (24.0, "ample")]
)
def test_thresholds_of_the_budget(per_parameter: float, name: str) -> None:
    assert budget(per_parameter) == name
