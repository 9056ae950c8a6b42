"""Several short examples in one sequence, each seeing itself alone: positions start again, attention stays inside.

transformers cuts the causal mask where positions start again, if there is no padding mask and no cache. Not every
architecture reads positions, and soft prompts shift them; so :func:`check` compares packed and single logits on the
very model that is to be trained, and refuses it where they differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from datasets import Dataset

from peftselect.errors import UnsupportedError

Collate = Callable[[list[dict[str, Any]]], dict[str, Any]]
IGNORED = -100
#: share of what a leak between examples would change, up to which packed logits may differ by rounding
TOLERANCE = 0.05
_HINT = "leave out packing: --set packing=false"


def pack(encoded: Any, length: int, head: str) -> Any:
    """The encoded examples in rows of at most ``length`` tokens, in their order, each put into the first row with room.

    UnsupportedError for heads other than the causal language model's, whose targets are not tokens of the sequence.
    """
    if head != "causal_lm":
        raise UnsupportedError("packing is for causal language models", _HINT)
    rows: list[list[dict[str, Any]]] = []
    room: list[int] = []
    for example in encoded:
        size = len(example["input_ids"])
        place = next((at for at, left in enumerate(room) if left >= size), None)
        if place is None:
            rows.append([])
            room.append(max(length, size))
            place = len(rows) - 1
        rows[place].append(example)
        room[place] -= size
    return Dataset.from_list([_joined(row) for row in rows])


def _joined(examples: Sequence[dict[str, Any]]) -> dict[str, list[int]]:
    """One sequence: positions from 0 for each example, whose first token nothing before it is asked to foretell."""
    found: dict[str, list[int]] = {"input_ids": [], "labels": [], "position_ids": []}
    for example in examples:
        found["input_ids"] += example["input_ids"]
        found["labels"] += [IGNORED, *example["labels"][1:]]
        found["position_ids"] += range(len(example["input_ids"]))
    return found


def collator(pad: int, others: Collate | None = None) -> Collate:
    """Pads packed rows on the right; the padding is an example of its own, without labels.

    ``others`` collates rows that are not packed: those to be predicted.
    """

    def collate(features: list[dict[str, Any]]) -> dict[str, Any]:
        if others is not None and "position_ids" not in features[0]:
            return others(features)
        longest = max(len(row["input_ids"]) for row in features)
        batch: dict[str, list[list[int]]] = {name: [] for name in ("input_ids", "labels", "position_ids")}
        for row in features:
            missing = longest - len(row["input_ids"])
            batch["input_ids"].append(row["input_ids"] + [pad] * missing)
            batch["labels"].append(row["labels"] + [IGNORED] * missing)
            batch["position_ids"].append(row["position_ids"] + list(range(missing)))
        # with a cache transformers would not look where positions start again
        return {**{name: torch.tensor(values) for name, values in batch.items()}, "use_cache": False}

    return collate


def check(model: Any, name: str) -> None:
    """UnsupportedError where ``model`` (``name`` in the message) lets packed examples see one another."""
    device = next(model.parameters()).device
    first, second = (torch.arange(low, high, device=device).unsqueeze(0) for low, high in ((5, 12), (20, 27)))
    both = torch.cat([first, second], dim=1)
    again = torch.cat([torch.arange(7), torch.arange(7)]).unsqueeze(0).to(device)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            alone = model(input_ids=second).logits.float()[:, -7:]
            packed = model(input_ids=both, position_ids=again, use_cache=False).logits.float()[:, -7:]
            leaked = model(input_ids=both, use_cache=False).logits.float()[:, -7:]
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise UnsupportedError(f"{name} cannot train on packed examples (it takes no positions)", _HINT) from error
    finally:
        model.train(training)
    if float((packed - alone).abs().max()) > TOLERANCE * float((leaked - alone).abs().max()):
        raise UnsupportedError(f"{name} cannot train on packed examples (they would see one another)", _HINT)
