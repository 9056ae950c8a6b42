"""Slot filling from speech: what is said, with the parts that matter marked and named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from peftselect.hookspecs import hookimpl
from peftselect.task import Column, Row, Task
from peftselect.tasks._speech import SOUND, Transcription


class SlotFilling(Transcription):
    """Words and their tags, transcribed as letters with a mark before and behind each slot, as SUPERB does it.

    A prediction is a list of ``slot=value``.
    """

    name = "slot_filling"
    title = "Slot filling from speech"
    aliases = ("sf", "spoken_slot_filling")
    columns = (
        SOUND,
        Column("tokens", "tokens", ("words", "text"), answer=True),
        Column("tags", "tags", ("slots", "slot_tags", "labels", "ner_tags")),
    )
    metrics = ("slot_f1", "slot_value_cer")
    higher_is_better = True

    def check_row(self, row: Row) -> str | None:
        """Every word has a tag."""
        if len(row["tokens"]) != len(row["tags"]):
            return f"{len(row['tokens'])} words and {len(row['tags'])} tags"
        return None

    def symbols(self, row: Row) -> list[str]:
        """Characters, ``<slot>`` before the first word of a slot and ``</slot>`` behind its last."""
        found: list[str] = []
        open_slot = ""
        for word, tag in zip(row["tokens"], row["tags"], strict=True):
            slot = tag.partition("-")[2]
            if open_slot and (tag[:2] != "I-" or slot != open_slot):
                found.append(f"</{open_slot}>")
                open_slot = ""
            found += [" "] if found else []
            if slot and slot != open_slot:
                found.append(f"<{slot}>")
                open_slot = slot
            found += list(str(word))
        return [*found, f"</{open_slot}>"] if open_slot else found

    def read(self, symbols: Sequence[str]) -> Any:
        """``slot=value`` of each slot that is opened and closed."""
        found, slot, value = [], "", ""
        for symbol in symbols:
            if len(symbol) > 1 and symbol.startswith("</") and symbol[2:-1] == slot:
                found.append(f"{slot}={' '.join(value.split())}")
                slot = ""
            elif len(symbol) > 1 and symbol.startswith("<"):
                slot, value = symbol.strip("</>"), ""
            else:
                value += symbol
        return found

    def split(self, text: str) -> list[str]:
        """Characters, marks whole."""
        return re.findall(r"</?[\w.\-]+>|.", text)


@hookimpl
def register_tasks() -> tuple[type[Task], ...]:
    """Offer slot filling."""
    return (SlotFilling,)
