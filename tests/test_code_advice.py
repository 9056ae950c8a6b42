"""What the advice on code summaries rests on: the thesis's table 2.13."""

from __future__ import annotations

import peftselect
from peftselect.plugin_manager import host


def test_the_winners_of_the_table_are_in_the_first_group() -> None:
    answer = peftselect.recommend("code_summarization", "codet5-base", num_examples=10_000)
    first = {item.method for item in answer.candidates if item.tie_group == 1}
    table = {"full_finetuning", "adapter_houlsby", "mam_adapter", "lora"}
    assert table <= first
    assert len(first) < len(answer.candidates) / 2  # differences on code are small: many are tied, but not all
    for name in ("full_finetuning", "adapter_houlsby", "mam_adapter"):
        found = answer.find(name)
        assert found is not None
        assert any("table 2.13" in reason.source for reason in found.reasons), name
    by_quality = sorted((item for item in answer.candidates if item.tried), key=lambda item: -item.quality)
    assert [item.method for item in by_quality[:2]] == ["full_finetuning", "mam_adapter"]  # best and next in the table


def test_across_projects_a_frozen_base_is_preferred() -> None:
    same = peftselect.recommend("code_summarization", "codet5-base", num_examples=10_000)
    across = peftselect.recommend("code_summarization", "codet5-base", num_examples=10_000, traits=["cross-project"])

    def lead(answer: peftselect.api.Recommendation) -> float:
        full, adapter = answer.find("full_finetuning"), answer.find("adapter_houlsby")
        assert full is not None and adapter is not None
        return adapter.quality - full.quality

    assert lead(across) > lead(same)


def test_a_pretrained_code_model_is_proposed_within_the_budget() -> None:
    small = peftselect.recommend("code_summarization", vram_gib=2).problem.model.name
    large = peftselect.recommend("code_summarization", vram_gib=48).problem.model.name
    assert {small, large} <= set(host().task("code_summarization").default_models)
    assert small != large
