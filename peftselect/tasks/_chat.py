"""What tasks share whose rows may be chats: turns in the tokenizer's own template, the loss on the answers alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peftselect.task import Column, Row, TaskContext
from peftselect.tasks._generation import GenerationTask, encode_continuation, encode_pair, encode_prompt

ROLES = ("system", "user", "assistant", "tool")
ANSWERER = "assistant"
Turn = dict[str, str]


class ChatTask(GenerationTask):
    """Rows with a source and a target, or with ``messages`` (turns with a role and a content, an answer last).

    A chat is rendered with the tokenizer's chat template, or as ``User: ... Assistant:`` where it has none. Training
    sees every answer of a chat after all that was said before it, each as an example of its own; evaluation asks for
    the last one. The loss is on answers alone.
    """

    def input_texts(self, row: Row) -> tuple[str, ...]:
        """The turns before the last answer, or the source."""
        if "messages" in row:
            return tuple(turn["content"] for turn in row["messages"][:-1])
        return tuple(row[name] for name in ("source", "input") if row.get(name))

    def target_text(self, row: Row) -> str:
        """The last answer."""
        return str(row["messages"][-1]["content"] if "messages" in row else row["target"])

    def check_row(self, row: Row) -> str | None:
        """A row has messages that end in an answer, or both a source and a target."""
        if "messages" not in row:
            return None if {"source", "target"} <= row.keys() else "neither messages nor a prompt with its completion"
        turns = row["messages"]
        if unknown := [turn["role"] for turn in turns if turn["role"] not in ROLES]:
            return f"role {unknown[0]!r} is none of {', '.join(ROLES)}"
        if turns[-1]["role"] != ANSWERER or len(turns) < 2:
            return "messages do not end in an answer (role assistant) to something"
        return None

    def encode_train(self, rows: Sequence[Row], context: TaskContext) -> Any:
        """Every answer after what was said before it."""
        from datasets import Dataset

        return Dataset.from_list([self._example(*pair, context) for row in rows for pair in self._pairs(row, context)])

    def encode_eval(self, rows: Sequence[Row], context: TaskContext) -> Any:
        """What was said before the last answer."""
        from datasets import Dataset

        last = [self._pairs(row, context)[-1] for row in rows]
        return Dataset.from_list([encode_prompt(prompt, context, whole) for prompt, _, whole in last])

    def prompt(self, row: Row, context: TaskContext) -> str:
        """Instruction and input in the task's template."""
        return super().prompt({"source": "\n\n".join(self.input_texts(row))}, context)

    def score(self, predictions: Sequence[Any], rows: Sequence[Row]) -> dict[str, float]:
        """The task's metrics against the last answers."""
        return super().score(predictions, [{**row, "target": self.target_text(row)} for row in rows])

    def _pairs(self, row: Row, context: TaskContext) -> list[tuple[str, str, bool]]:
        """(prompt, answer, whether the template has set every special token) of each answer of a row."""
        if "messages" not in row:
            return [(self.prompt(row, context), self.target_text(row), False)]
        turns = row["messages"]
        places = [at for at, turn in enumerate(turns) if at and turn["role"] == ANSWERER]
        return [_render(turns[:at], turns[at], context.tokenizer) for at in places]

    def _example(self, prompt: str, answer: str, whole: bool, context: TaskContext) -> Row:
        if context.architecture == "encoder-decoder":
            return encode_pair(prompt, answer, context)
        return encode_continuation(prompt, answer, context, whole)


def _render(before: Sequence[Turn], answer: Turn, tokenizer: Any) -> tuple[str, str, bool]:
    """A prompt and its answer, with the marks that the template puts around them."""
    if not getattr(tokenizer, "chat_template", None):
        said = "\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in before)
        return f"{said}\nAssistant: ", answer["content"], False
    prompt = str(tokenizer.apply_chat_template(list(before), tokenize=False, add_generation_prompt=True))
    whole = str(tokenizer.apply_chat_template([*before, answer], tokenize=False))
    # some templates treat the last turn otherwise (they drop its reasoning): there the answer stands as it is
    text = whole[len(prompt) :].rstrip() if whole.startswith(prompt) else answer["content"]
    return prompt, text, True


def chat_columns(source: Sequence[str], target: Sequence[str]) -> tuple[Column, ...]:
    """Source, an optional second part of it, target and references; or messages."""
    return (
        Column("messages", "messages", ("conversations", "conversation", "chat", "turns"), required=False),
        Column("source", "text", tuple(source), required=False),
        Column("input", "text", (), required=False),
        Column("target", "text", tuple(target), required=False, answer=True),
        Column("references", "references", ("targets",), required=False),
    )
