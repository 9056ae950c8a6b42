"""A regression's head starts at the mean of the labels, where it has a bias."""

from __future__ import annotations

import pytest

from tests.tiny import config


@pytest.mark.parametrize(("kind", "has_bias"), [("bert", True), ("t5", True), ("roberta", True), ("llama", False)])
def test_the_output_bias_is_the_mean_label(kind: str, has_bias: bool) -> None:
    import torch
    import transformers

    from peftselect.shapes import read_shape
    from peftselect.training.regression import start_at_mean

    made = config(kind)
    made.num_labels = 1
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_config(made).eval()
    shape = read_shape(made.to_dict(), "sequence_classification", 1)
    inputs = {"input_ids": torch.tensor([[6, 7, 8, 1]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    with torch.no_grad():
        before = model(**inputs).logits
        assert start_at_mean(model, shape.head, [1.0, 4.0]) is has_bias
        moved = (model(**inputs).logits - before).item()
    assert moved == pytest.approx(2.5 if has_bias else 0.0, abs=1e-5)
