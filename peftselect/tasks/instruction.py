"""Following instructions: an instruction, perhaps with an input, or a chat, to the answer."""

from __future__ import annotations

from peftselect.hookspecs import hookimpl
from peftselect.task import Task
from peftselect.tasks._chat import ChatTask, chat_columns


class Instruction(ChatTask):
    """Instruction tuning (thesis 3.3): rows of prompt and completion, Alpaca's three columns, or ``messages``."""

    name = "instruction"
    title = "Instruction following"
    aliases = ("instruction_tuning", "instruction_following", "sft", "chat", "assistant", "alpaca")
    columns = chat_columns(
        ("prompt", "instruction", "question", "query"), ("completion", "output", "response", "answer")
    )
    metrics = ("rougeL", "rouge1", "chrf", "exact_match")
    default_models = ("qwen2.5-1.5b", "llama-3.2-1b", "qwen3-0.6b", "smollm2-360m", "smollm2-135m")
    default_max_length = 512
    default_max_target_length = 256
    separator = "\n\n"


@hookimpl
def register_tasks() -> tuple[type[Task], ...]:
    """Offer instruction following."""
    return (Instruction,)
