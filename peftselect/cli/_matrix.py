"""Every method against what it serves: task heads, architectures, merging, quantised bases, adapters, inference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftselect.cli import console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftselect.method import Method

#: columns of a terminal below which heads, and what else there is, stand in tables of their own
ROOMY = 118
#: heads by the letters over their column; a head that is not here gets its own first letters
HEADS = {
    "causal_lm": "lm",
    "seq2seq_lm": "s2s",
    "sequence_classification": "seq",
    "token_classification": "tok",
    "question_answering": "qa",
    "multiple_choice": "mc",
    "feature_extraction": "vec",
    "masked_lm": "mlm",
    "audio_classification": "aud",
    "ctc": "ctc",
    "speech_seq2seq": "s2t",
}
STACKS = {"encoder": "enc", "decoder": "dec", "encoder-decoder": "e-d"}
_QUANTIZED = {"possible": console.styled("●", "green"), "required": console.styled("only", "yellow")}
_MARKS = {True: ("●", "green"), False: ("·", "dim")}


def show(methods: Sequence[Method]) -> None:
    """Print the matrix, a row a method, in the order of the families."""
    heads = sorted({head for method in methods for head in method.heads}, key=lambda head: list(_short(HEADS, head)))
    heads = [*(head for head in HEADS if head in heads), *(head for head in heads if head not in HEADS)]
    stacks = [kind for kind in STACKS if any(kind in method.architectures for method in methods)]
    ordered = sorted(methods, key=lambda method: (method.family, method.name))
    served = {_short(HEADS, head): [_mark(head in item.heads) for item in ordered] for head in heads}
    can = {_short(STACKS, kind): [_mark(kind in item.architectures) for item in ordered] for kind in stacks}
    can |= {
        "merge": [_mark(item.mergeable) for item in ordered],
        "4-bit": [_QUANTIZED.get(item.quantized_base) or _mark(False) for item in ordered],
        "many": [_mark(item.multi_adapter) for item in ordered],
        "free": [_mark(not item.adds_inference_cost) for item in ordered],
    }
    if console.width() < ROOMY:
        _table("What each method serves", ordered, served)
        _table("What each method can", ordered, can)
    else:
        _table("What each method can", ordered, served | can)
    names = ", ".join(dict.fromkeys(f"{_short(HEADS, head)} {_long(head)}" for head in heads))
    console.say(f"Task heads: {names}.")
    console.say(f"Models: {', '.join(f'{_short(STACKS, kind)} {kind}' for kind in stacks)}.")
    console.say("merge: into the base. 4-bit: on a quantised base. many: several adapters on one base.")
    console.say("free: costs nothing at inference. `peftselect methods NAME` says what else limits one.")


def _table(title: str, methods: Sequence[Method], marks: dict[str, list[object]]) -> None:
    """A row a method, a column a kind of mark, a line between families."""
    columns = ("method", *marks)
    rows = [(method.name, *row) for method, row in zip(methods, zip(*marks.values(), strict=True), strict=True)]
    console.table(title, columns, rows, groups=[item.family for item in methods], keep=columns)


def _long(head: str) -> str:
    return {"ctc": "(letters of speech)", "feature_extraction": "vectors"}.get(head, head.replace("_", " "))


def _short(names: dict[str, str], name: str) -> str:
    return names.get(name, name.replace("_", " ")[:6])


def _mark(holds: bool) -> object:
    return console.styled(*_MARKS[holds])
