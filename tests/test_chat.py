"""Instructions and dialogues: templates of the tokenizer, the loss on answers alone, tokenizers that lack marks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import peftselect
from peftselect import TaskContext
from peftselect.data import read_rows
from peftselect.errors import DataError
from peftselect.plugin_manager import host
from tests.tiny import tokenizer

INSTRUCTION, DIALOGUE = host().task("instruction"), host().task("dialogue")
TEMPLATE = (
    "{% for m in messages %}{{ '<s> ' + m['role'] + ' : ' + m['content'] + ' </s>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s> assistant : ' }}{% endif %}"
)
TURNS = [("user", "who runs ?"), ("assistant", "the dog"), ("user", "where ?"), ("assistant", "paris")]
CHAT = {"messages": [{"role": role, "content": content} for role, content in TURNS]}


def context(template: str | None = None, architecture: str = "decoder") -> TaskContext:
    reader = tokenizer()
    reader.chat_template = template
    return TaskContext(reader, architecture, "causal_lm" if architecture == "decoder" else "seq2seq_lm", 64, 16)


def answers(encoded: Any, reader: Any) -> list[str]:
    return [reader.decode([label for label in labels if label >= 0]) for labels in encoded["labels"]]


def test_every_answer_of_a_chat_is_learned_in_the_tokenizers_template() -> None:
    here = context(TEMPLATE)
    encoded = INSTRUCTION.encode_train([CHAT], here)
    assert answers(encoded, here.tokenizer) == ["the dog </s>", "paris </s>"]
    whole = here.tokenizer.apply_chat_template(CHAT["messages"], tokenize=False).rstrip()
    assert encoded["input_ids"][1] == here.tokenizer(whole, add_special_tokens=False)["input_ids"]


def test_evaluation_asks_for_the_last_answer_only() -> None:
    here = context(TEMPLATE)
    (ids,) = INSTRUCTION.encode_eval([CHAT], here)["input_ids"]
    asked = here.tokenizer.apply_chat_template(CHAT["messages"][:3], tokenize=False, add_generation_prompt=True)
    assert ids == here.tokenizer(asked, add_special_tokens=False)["input_ids"]
    assert INSTRUCTION.score(["paris"], [CHAT])["exact_match"] == 1.0


@pytest.mark.parametrize("architecture", ["decoder", "encoder-decoder"])
def test_without_a_template_the_speakers_are_named(architecture: str) -> None:
    here = context(None, architecture)
    encoded = DIALOGUE.encode_train([CHAT], here)
    assert answers(encoded, here.tokenizer) == ["the dog </s>", "paris </s>"]
    assert here.tokenizer.decode(encoded["input_ids"][1]).count(":") == 4


def test_an_instruction_keeps_its_input(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"instruction": "say", "input": "w1", "output": "w2"}) + "\n")
    (row,) = read_rows(file, INSTRUCTION)
    assert INSTRUCTION.input_texts(row) == ("say", "w1")
    assert INSTRUCTION.prompt(row, context()) == "say\n\nw1\n\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"messages": [{"role": "user", "content": "a"}]}, "do not end in an answer"),
        ({"messages": [{"role": "judge", "content": "a"}, {"role": "assistant", "content": "b"}]}, "role 'judge'"),
        ({"messages": [{"content": "a"}]}, "it should hold a list of turns"),
        ({"prompt": "a"}, "neither messages nor a prompt with its completion"),
    ],
)
def test_rows_that_are_no_chat_are_refused(row: dict[str, Any], text: str, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError) as caught:
        read_rows(file, INSTRUCTION)
    assert text in f"{caught.value} {caught.value.hint}"


def test_shared_gpt_turns_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}))
    assert read_rows(file, DIALOGUE)[0]["messages"][1] == {"role": "assistant", "content": "b"}


def test_a_tokenizer_without_padding_pads_with_the_end_of_text(tmp_path: Path, tiny_models: Any) -> None:
    import shutil

    folder = tmp_path / "nopad"
    shutil.copytree(tiny_models("llama"), folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("pad_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    rows = [{"prompt": f"w{n} w{n % 7}" + " w1" * (n % 5), "completion": f"w{n % 3}"} for n in range(24)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = peftselect.run(
        "instruction", str(folder), train=file, method="lora", device="cpu", output=tmp_path / "out", max_length=32,
        max_target_length=4, settings={"num_train_epochs": 1},
    )  # fmt: skip
    assert result.record.status == "ok"
    history = json.loads((tmp_path / "out" / "metrics.json").read_text())["history"]["training"]
    assert all(entry["loss"] > 0 for entry in history)
