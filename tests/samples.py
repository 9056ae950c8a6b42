"""Sample rows of every task, which the tests over the registry take their data from: one table, one entry a task.

``SAMPLES[task](number)`` is a row under names that the task's columns know, made of words of the tiny models; no two
numbers below 3600 give the same row. A task without an entry fails the tests that go over the registry.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

Sample = Callable[[int], dict[str, Any]]
CHOICES = ("good", "bad")


def words(number: int) -> list[str]:
    """Six words; the last two are different for each number."""
    return [f"w{(number * 7 + step * step) % 60}" for step in range(4)] + [f"w{number % 60}", f"w{number // 60}"]


def text(number: int) -> str:
    """The six words as a text."""
    return " ".join(words(number))


def _pair(source: str, target: str) -> Sample:
    return lambda number: {source: text(number), target: " ".join(words(number)[:4])}


def _qa(number: int) -> dict[str, Any]:
    found = words(number)
    answer = {"text": [found[2]], "answer_start": [text(number).index(found[2])]}
    return {"context": text(number), "question": "what ?", "answers": answer}


def _math(number: int) -> dict[str, Any]:
    return {"question": text(number), "answer": f"{words(number)[0]} #### {number % 3}"}


def _chat(number: int) -> dict[str, Any]:
    first, *rest = words(number)
    turns = [("user", " ".join(rest)), ("assistant", first), ("user", "what ?"), ("assistant", "yes")]
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


#: pitches in Hz that stand for words
PITCHES = {"red": 220.0, "blue": 440.0, "dog": 880.0}


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="peftselect-clips-"))


@cache
def clip(number: int, words: tuple[str, ...], seconds: float = 0.4, rate: int = 8000) -> str:
    """A sound file of a tone a word, each a little out of tune by the number; its absolute path."""
    import numpy as np
    import soundfile

    each = np.arange(round(rate * seconds / len(words))) / rate
    tones = [np.sin(2 * np.pi * (PITCHES[word] + number % 60) * each) for word in words]
    file = _folder() / f"{number}-{'-'.join(words)}-{rate}.wav"
    soundfile.write(file, 0.5 * np.concatenate(tones), rate)
    return str(file)


def _heard(column: str) -> Sample:
    """One tone and its name."""

    def sample(number: int) -> dict[str, Any]:
        word = tuple(PITCHES)[number % len(PITCHES)]
        return {"audio": clip(number, (word,)), column: word}

    return sample


def _said(number: int) -> tuple[str, ...]:
    names = tuple(PITCHES)
    return names[number % 3], names[(number // 3) % 3]


SAMPLES: dict[str, Sample] = {
    "classification": lambda n: {"text": f"{text(n)} {CHOICES[n % 2]}", "label": ("positive", "negative")[n % 2]},
    "multi_label": lambda n: {
        "text": f"{text(n)} {'red' if n % 2 else ''} {'blue' if n % 3 else ''}",
        "labels": [name for name, given in (("red", n % 2), ("blue", n % 3)) if given],
    },
    "similarity": lambda n: {"sentence1": text(n), "sentence2": " ".join(words(n)[:2]), "score": n % 5 / 4},
    "ner": lambda n: {"tokens": [*words(n), "paris"], "ner_tags": ["O"] * 6 + ["B-LOC"]},
    "qa": _qa,
    "multiple_choice": lambda n: {"question": text(n), "choices": list(CHOICES), "answer": n % 2},
    "summarization": _pair("dialogue", "summary"),
    "data_to_text": _pair("mr", "ref"),
    "text_generation": _pair("prompt", "completion"),
    "code_summarization": _pair("code", "docstring"),
    "translation": _pair("src", "tgt"),
    "math_reasoning": _math,
    "instruction": lambda n: {"instruction": text(n), "input": "what ?", "output": " ".join(words(n)[:4])},
    "dialogue": _chat,
    "semantic_search": lambda n: {"query": " ".join(words(n)[4:]), "passage": text(n)},
    "speech_emotion": _heard("emotion"),
    "keyword_spotting": _heard("label"),
    "speaker_recognition": _heard("speaker"),
    "speech_intent": _heard("intent"),
    "speech_recognition": lambda n: {"audio": clip(n, _said(n)), "text": " ".join(_said(n))},
    "phoneme_recognition": lambda n: {"audio": clip(n, _said(n)), "phonemes": list(_said(n))},
    "slot_filling": lambda n: {"audio": clip(n, _said(n)), "tokens": list(_said(n)), "tags": ["O", "B-pitch"]},
    "speaker_diarization": lambda n: {**_heard("label")(n), "segments": f"0.0 0.4 {n % 2}"},
    "alignment": lambda n: {"prompt": text(n), "chosen": "yes", "rejected": "no"},
}
