"""Every method against what it serves: task heads, architectures, merging, quantised bases, adapters, inference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftselect.cli import console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftselect.method import Method

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
}
STACKS = {"encoder": "enc", "decoder": "dec", "encoder-decoder": "e-d"}
_QUANTIZED = {"possible": console.styled("●", "green"), "required": console.styled("only", "yellow")}
_MARKS = {True: ("●", "green"), False: ("·", "dim")}


def show(methods: Sequence[Method]) -> None:
    """Print the matrix, a row a method, in the order of the families."""
    heads = sorted({head for method in methods for head in method.heads}, key=lambda head: list(_short(HEADS, head)))
    heads = [*(head for head in HEADS if head in heads), *(head for head in heads if head not in HEADS)]
    stacks = sorted({kind for method in methods for kind in method.architectures}, key=lambda kind: len(kind))
    columns = (
        "method", *(_short(HEADS, head) for head in heads), *(_short(STACKS, kind) for kind in stacks),
        "merge", "4-bit", "many", "free",
    )  # fmt: skip
    ordered = sorted(methods, key=lambda method: (method.family, method.name))
    rows = [
        (
            method.name,
            *(_mark(head in method.heads) for head in heads),
            *(_mark(kind in method.architectures) for kind in stacks),
            _mark(method.mergeable),
            _QUANTIZED.get(method.quantized_base) or _mark(False),
            _mark(method.multi_adapter),
            _mark(not method.adds_inference_cost),
        )
        for method in ordered
    ]  # fmt: skip
    console.table("What each method can", columns, rows, groups=[item.family for item in ordered], keep=columns)
    names = ", ".join(f"{_short(HEADS, head)} {head.replace('_', ' ')}" for head in heads)
    console.say(f"Task heads: {names}.")
    console.say(f"Models: {', '.join(f'{_short(STACKS, kind)} {kind}' for kind in stacks)}.")
    console.say("merge: into the base. 4-bit: on a quantised base. many: several adapters on one base.")
    console.say("free: costs nothing at inference. `peftselect methods NAME` says what else limits one.")


def _short(names: dict[str, str], name: str) -> str:
    return names.get(name, name.replace("_", " ")[:6])


def _mark(holds: bool) -> object:
    return console.styled(*_MARKS[holds])
