"""Every sentence of the thesis's section 5.3: its method is in the first group, or records say why it is not."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest

import peftselect
from peftselect.selector import RankedCandidate, Recommendation

BERT, T5 = "bert-base-uncased", "flan-t5-base"
PREFIX = ("prefix_tuning", "prefix_tuning_peft")


@dataclass(frozen=True)
class Sentence:
    """What section 5.3 says: in which situation (``question``), of which methods, and words of the reason given.

    ``acts_on``: it speaks of all methods that act there; ``against``: it speaks against the methods.
    """

    about: str
    task: str
    words: str
    methods: tuple[str, ...] = ()
    acts_on: str = ""
    model: str = T5
    against: bool = False
    question: dict[str, Any] = field(default_factory=dict)


SENTENCES = [
    Sentence("named entities", "ner", "named entities", ("prompt_tuning",), model=BERT),
    Sentence(
        "a very small budget", "summarization", "very small compute budget", ("prompt_tuning",), model="flan-t5-large",
        question={"vram_gib": 3},
    ),
    Sentence("question answering", "qa", "words of the answer", ("lora",), model=BERT),
    Sentence("multiple choice", "multiple_choice", "multiple-choice", ("lora",), model=BERT),
    Sentence("scaled addition", "qa", "scaled addition", ("lora",), model=BERT),
    Sentence("tiny attention beside LoRA", "qa", "Tiny-attention", ("tiny_attention",), model=BERT),
    Sentence("data to text", "data_to_text", "about equally well", ("lora", *PREFIX)),
    Sentence("summarization", "summarization", "about equally well", ("lora", *PREFIX)),
    Sentence("LoRA is the cheaper", "summarization", "LoRA is the cheaper", ("lora",), question={"vram_gib": 2.5}),
    Sentence(
        "faithful: full and prefix tuning", "summarization", "more faithful", ("full_finetuning", *PREFIX),
        question={"traits": ("faithful",), "vram_gib": 24},
    ),
    Sentence(
        "faithful: no adapters", "summarization", "lower on faithfulness", ("adapter_houlsby", "adapter_pfeiffer"),
        against=True, question={"traits": ("faithful",), "vram_gib": 24},
    ),
    Sentence(
        "faithful: not the feed-forward block", "summarization", "feed-forward block is redundant", acts_on="ffn",
        against=True, question={"traits": ("faithful",), "vram_gib": 24},
    ),
    Sentence(
        "reasoning", "text_generation", "act in attention", acts_on="attention", question={"traits": ("reasoning",)}
    ),
    Sentence(
        "new knowledge", "text_generation", "act in the feed-forward block", acts_on="ffn",
        question={"traits": ("new-knowledge",)},
    ),
    Sentence(
        "a simple task", "classification", "simple task", acts_on="embedding", model=BERT,
        question={"traits": ("simple",)},
    ),
    Sentence(
        "match the complexity", "classification", "complexity", ("full_finetuning",), model=BERT, against=True,
        question={"traits": ("simple",)},
    ),
]  # fmt: skip


@cache
def ask(
    task: str, model: str, vram_gib: float, traits: tuple[str, ...] = (), prefer: str = "quality"
) -> Recommendation:
    return peftselect.recommend(task, model, vram_gib=vram_gib, traits=traits, prefer=prefer, trace="never")


def answer_to(sentence: Sentence, **changes: Any) -> Recommendation:
    return ask(sentence.task, sentence.model, **{"vram_gib": 8, **sentence.question, **changes})


def named(sentence: Sentence, answer: Recommendation) -> list[RankedCandidate]:
    """The candidates that the sentence speaks of: those with its reason."""
    kind = "against" if sentence.against else "for"
    found = [
        item
        for item in answer.candidates
        if any(r.kind == kind and sentence.words in r.text and "thesis 5.3" in r.source for r in item.reasons)
    ]
    if sentence.acts_on:
        assert all(sentence.acts_on in item.candidate.method.acts_on for item in found)
    missing = {name for name in sentence.methods if answer.find(name)} - {item.method for item in found}
    assert not missing, f"the sentence is not heard of {missing}"
    return found


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda item: item.about)
def test_the_thesis_method_is_in_the_first_group_or_records_say_why_not(sentence: Sentence) -> None:
    answer = answer_to(sentence)
    found = named(sentence, answer)
    assert found
    if sentence.against:
        plain = answer_to(sentence, traits=())
        for item in found:
            without = plain.find(item.method)
            assert without is not None and item.quality < without.quality, item.method
        return
    first = [item for item in found if item.tie_group == 1]
    for item in found:
        if item.tie_group > 1:
            gap = [reason.text for reason in item.reasons if reason.text.startswith("Not in the first group")]
            assert len(gap) == 1, item.method
    if not first:
        assert any("by records alone" in reason.text for item in found for reason in item.reasons), sentence.about


def test_what_keeps_a_method_out_is_said_of_those_alone_that_a_rule_speaks_for() -> None:
    answer = ask("ner", BERT, 8)
    best = max((item for item in answer.candidates if item.tried), key=lambda item: item.quality)
    told = 0
    for item in answer.candidates:
        gap = [reason.text for reason in item.reasons if reason.text.startswith("Not in the first group")]
        wanted = item.tie_group > 1 and any(reason.kind == "for" for reason in item.reasons)
        assert bool(gap) == wanted, item.method
        if gap and "points behind" in gap[0]:
            told += 1
            assert f"{best.quality - item.quality:.1f} points behind {best.method}" in gap[0]
    assert told
    cheapest = ask("ner", BERT, 8, prefer="memory")
    assert not any("first group" in reason.text for item in cheapest.candidates for reason in item.reasons)
