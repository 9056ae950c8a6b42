"""Generate the dialogues of the embedded example: questions to pretrain on, summaries to fine-tune on."""

from __future__ import annotations

import random
import re
import string
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

SEED = 20240613
SPLITS = {"train": 1200, "validation": 100, "test": 100}
GRAMMAR = Path(__file__).with_name("example_dialogues.toml")


@dataclass(frozen=True)
class Dialogue:
    """One dialogue with its summary and its (question, answer) pairs."""

    text: str
    summary: str
    questions: tuple[tuple[str, str], ...]


@cache
def grammar() -> dict[str, Any]:
    """Slots and scenarios, as example_dialogues.toml has them."""
    return tomllib.loads(GRAMMAR.read_text(encoding="utf-8"))


def normalise(text: str) -> str:
    """Text without case, punctuation and spacing: what counts as the same dialogue."""
    return " ".join(re.findall(r"\w+", text.lower()))


def generate(rng: random.Random) -> Dialogue:
    """Draw one dialogue."""
    scenario = rng.choice(grammar()["scenario"])
    first, second = rng.sample(grammar()["slots"]["person"], 2)
    values = _fill(scenario, rng) | {"A": first, "B": second}
    text = "\n".join(rng.choice(block) for block in scenario["blocks"]).format_map(values)
    asked = [(question.format_map(values), answer.format_map(values)) for question, answer in scenario["questions"]]
    return Dialogue(
        text=text,
        summary=scenario["summary"].format_map(values),
        questions=tuple(asked),
    )


def _fill(scenario: dict[str, Any], rng: random.Random) -> dict[str, str]:
    """Two different values for each slot of the scenario: ``day`` and ``day1``."""
    text = "".join([scenario["summary"], *(alternative for block in scenario["blocks"] for alternative in block)])
    names = {name.rstrip("1") for _, name, _, _ in string.Formatter().parse(text) if name} - {"A", "B"}
    values = {}
    for name in sorted(names):
        values[name], values[name + "1"] = rng.sample(grammar()["slots"][name], 2)
    return values


def splits(seed: int = SEED) -> dict[str, list[dict[str, str]]]:
    """The shipped rows by split; no dialogue occurs twice."""
    rng = random.Random(seed)
    seen: set[str] = set()
    rows: dict[str, list[dict[str, str]]] = {}
    for split, count in SPLITS.items():
        rows[split] = []
        while len(rows[split]) < count:
            dialogue = generate(rng)
            if (key := normalise(dialogue.text)) not in seen:
                seen.add(key)
                rows[split].append({"dialogue": dialogue.text, "summary": dialogue.summary})
    return rows


def pretraining_rows(count: int, seed: int) -> list[tuple[str, str]]:
    """(question and dialogue, answer) pairs over dialogues which no shipped split has."""
    shipped = {normalise(row["dialogue"]) for rows in splits().values() for row in rows}
    rng = random.Random(seed)
    rows: list[tuple[str, str]] = []
    while len(rows) < count:
        dialogue = generate(rng)
        if normalise(dialogue.text) not in shipped:
            question, answer = rng.choice(dialogue.questions)
            rows.append((f"question: {question}\n{dialogue.text}", answer))
    return rows
