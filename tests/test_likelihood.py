"""Multiple choice on causal models: the likelihood of each choice, against a plain computation one at a time."""

from __future__ import annotations

import pytest

from peftselect import TaskContext
from peftselect.plugin_manager import host
from tests.tiny import config, tokenizer

TASK = host().task("multiple_choice")
ROWS = [
    {"question": "who runs ?", "choices": ["the dog", "a cat sleeps and runs", "w5"], "label": 0},
    {"question": "is the film good " * 30, "choices": ["yes", "no no no"], "label": 1},
]


@pytest.mark.parametrize("before", [0, 3])
def test_likelihoods_are_those_of_single_sequences(before: int) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config("llama")).eval()
    here = TaskContext(tokenizer(), "decoder", "causal_lm", 32)
    encoded = TASK.encode_eval(ROWS, here)
    assert all(len(ids) <= 32 for ids in encoded["input_ids"])
    batch = TASK.collator(here)(list(encoded))
    objective = TASK.objective(here)
    assert objective is not None

    def shifted(**inputs: torch.Tensor) -> object:
        """A model whose method puts positions before the input."""
        out = model(**inputs)
        out.logits = torch.nn.functional.pad(out.logits, (0, 0, before, 0))
        return out

    with torch.no_grad():
        found = objective.predict(shifted, dict(batch))
    for index, row in enumerate(encoded):
        ids = torch.tensor([row["input_ids"]])
        with torch.no_grad():
            logs = torch.log_softmax(model(ids).logits[0], -1)
        asked = [at for at, label in enumerate(row["labels"]) if label >= 0]
        own = [float(logs[at - 1, row["labels"][at]]) for at in asked]
        assert float(found[index]) == pytest.approx(sum(own) / len(own), abs=1e-5)
    assert list(encoded["row"]) == [0, 0, 0, 1, 1]
    assert TASK.decode([-3.0, -1.0, -2.0, -5.0, -4.0], ROWS, encoded, here) == [1, 1]


def test_training_learns_the_right_choice_alone() -> None:
    here = TaskContext(tokenizer(), "decoder", "causal_lm", 32)
    encoded = TASK.encode_train(ROWS, here)
    answers = [here.tokenizer.decode([label for label in labels if label >= 0]) for labels in encoded["labels"]]
    assert answers == ["the dog </s>", "no no no </s>"]
