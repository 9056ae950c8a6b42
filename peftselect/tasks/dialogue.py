"""Dialogue: what was said so far to what is said next."""

from __future__ import annotations

from peftselect.hookspecs import hookimpl
from peftselect.task import Task
from peftselect.tasks._chat import ChatTask, chat_columns


class Dialogue(ChatTask):
    """The next turn of a conversation, given as ``messages`` or as its text so far and the reply."""

    name = "dialogue"
    title = "Dialogue"
    aliases = ("conversation", "dialog", "response_generation", "chatbot")
    columns = chat_columns(("history", "context", "dialogue", "prompt"), ("response", "reply", "completion"))
    metrics = ("rougeL", "bleu", "chrf")
    default_models = ("qwen2.5-1.5b", "llama-3.2-1b", "qwen3-0.6b", "smollm2-360m", "smollm2-135m")
    default_max_length = 512
    default_max_target_length = 128


@hookimpl
def register_tasks() -> tuple[type[Task], ...]:
    """Offer dialogue."""
    return (Dialogue,)
