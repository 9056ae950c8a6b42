"""The selection mapping: the thesis's guidance, budgets, needs, recipes, ties; through ``peftselect.recommend``."""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path
from typing import Any

import pytest

import peftselect
import peftselect.api
from peftselect.plugin_manager import host
from peftselect.problem import GIB
from peftselect.selector import RankedCandidate, Recommendation, scoring
from peftselect.selector.scoring import NOISE_POINTS, PRICES

BERT, T5 = "bert-base-uncased", "flan-t5-base"


def answer(task: str, model: str | None = T5, **question: Any) -> Recommendation:
    return peftselect.recommend(task, model, **{"vram_gib": 8, **question})


def candidate(found: Recommendation, method: str) -> RankedCandidate:
    item = found.find(method)
    assert item is not None, f"{method} was left out: {found.excluded}"
    return item


def says(item: RankedCandidate, kind: str, words: str) -> bool:
    """Whether a reason of this kind has these words in its text or source."""
    return any(reason.kind == kind and words in f"{reason.text} {reason.source}" for reason in item.reasons)


def top(found: Recommendation) -> set[str]:
    return {item.method for item in found.candidates if item.tie_group == 1}


# thesis 5.3, sentence by sentence


def test_5_3_ner_names_prompt_tuning_and_says_what_speaks_against_it() -> None:
    found = answer("ner", BERT)
    prompt = candidate(found, "prompt_tuning")
    assert says(prompt, "for", "thesis 5.3")
    assert "prompt_tuning" in top(found) or says(prompt, "record", "below the median method")


def test_5_3_a_very_small_budget_names_prompt_tuning_and_says_what_speaks_against_it() -> None:
    found = answer("summarization", "flan-t5-large", vram_gib=3)
    prompt = candidate(found, "prompt_tuning")
    assert says(prompt, "for", "very small compute budget")
    assert "prompt_tuning" in top(found) or says(prompt, "record", "below the median method")


def test_5_3_question_answering_names_lora_on_queries_and_values() -> None:
    found = answer("qa", BERT)
    lora = candidate(found, "lora")
    assert "lora" in top(found)
    assert says(lora, "for", "relate words of the question to words of the answer")
    assert lora.candidate.values["target_modules"] == ("attention-qv",)
    assert says(lora, "for", "scaled addition")


def test_5_3_multiple_choice_names_lora() -> None:
    found = answer("multiple_choice", BERT)
    assert "lora" in top(found)
    assert says(candidate(found, "lora"), "for", "multiple-choice")


@pytest.mark.parametrize("task", ["summarization", "data_to_text"])
def test_5_3_generation_names_lora_beside_prefix_tuning_and_lora_as_the_cheaper(task: str) -> None:
    found = answer(task)
    lora, prefix = candidate(found, "lora"), candidate(found, "prefix_tuning_peft")
    assert "lora" in top(found)
    assert says(lora, "for", "LoRA and prefix tuning do about equally well")
    assert says(prefix, "for", "LoRA and prefix tuning do about equally well")
    assert lora.tie_group <= prefix.tie_group  # about equally well: what they cost decides between them
    with_network = {**prefix.candidate.values, "prefix_projection": True}
    shape, method = found.problem.shape, prefix.candidate.method
    assert lora.trainable_parameters < method.trainable_parameters(shape, with_network)


def test_5_3_faithfulness_speaks_for_full_and_prefix_tuning_and_against_changing_the_feed_forward_block() -> None:
    plain, found = answer("summarization", vram_gib=24), answer("summarization", vram_gib=24, traits=["faithful"])
    for method in ("full_finetuning", "prefix_tuning_peft"):
        item = candidate(found, method)
        assert says(item, "for", "faithful")
        assert item.quality == pytest.approx(candidate(plain, method).quality + 1.0)
    assert says(candidate(found, "ia3"), "against", "faithful")
    assert "full_finetuning" in top(found)


def test_5_3_reasoning_names_modules_in_attention() -> None:
    found = answer("text_generation", traits=["reasoning"])
    best = found.recommended
    assert best is not None
    assert "attention" in best.candidate.method.acts_on
    assert says(best, "for", "modules that act in attention")
    assert candidate(found, "lora").candidate.values["target_modules"] == ("attention",)


def test_5_3_new_knowledge_names_modules_in_the_feed_forward_block() -> None:
    found = answer("text_generation", traits=["new-knowledge"])
    assert says(candidate(found, "adalora"), "for", "feed-forward")
    lora = candidate(found, "lora")
    assert lora.candidate.values["target_modules"] == ("all-linear",)
    assert "lora" in top(found)


def test_5_3_a_simple_task_speaks_for_the_embedding_layer_and_against_changing_everything() -> None:
    found = answer("classification", BERT, traits=["simple"])
    assert says(candidate(found, "prompt_tuning"), "for", "simple task")
    assert says(candidate(found, "full_finetuning"), "against", "complexity")
    soft = candidate(found, "p_tuning")
    assert says(soft, "for", "simple task")
    assert "p_tuning" in top(found) or says(soft, "record", "below the median method")
    assert "full_finetuning" not in top(found)


def test_5_4_little_data_puts_peft_above_full_finetuning() -> None:
    found = answer("classification", "roberta-base", num_examples=100, vram_gib=24)
    assert candidate(found, "lora").rank < candidate(found, "full_finetuning").rank
    assert "full_finetuning" not in top(found)


# budgets


def test_the_thesis_out_of_memory_is_repeated_and_priced_a_way_out() -> None:
    found = answer("summarization", None, vram_gib=4)
    assert found.problem.model.name == T5
    assert {"lora", "prefix_tuning_peft"} <= {item.method for item in found.candidates}
    full = next(item for item in found.excluded if item.method == "full_finetuning")
    assert full.constraint == "memory"
    assert "4 GiB" in full.because
    assert full.cheapest_change is not None
    for way in ("8-bit Adam", "Adafactor", "bf16"):
        assert way.lower() in full.cheapest_change.lower()
    for setting in re.findall(r"--set (\w+)=(\w+)", full.cheapest_change):
        changed = answer("summarization", vram_gib=4, method="full_finetuning", settings=dict([setting]))
        assert changed.recommended is not None, f"{setting} does not admit it"
        assert "--set {}={}".format(*setting) in changed.recommended.command


def test_lora_of_the_thesis_has_its_parameter_count() -> None:
    lora = candidate(answer("summarization", vram_gib=4), "lora")
    values = lora.candidate.values
    assert (values["r"], values["lora_alpha"], values["lora_dropout"]) == (16, 16, 0.1)
    assert lora.trainable_parameters == 1_769_472
    assert lora.total_parameters == lora.candidate.method.trainable_parameters(
        peftselect.build_problem("summarization", T5).shape, values
    ) + (peftselect.build_problem("summarization", T5).shape.total_parameters)


@pytest.mark.parametrize("vram", [1, 2, 4, 8, 24])
def test_every_candidate_fits_and_more_memory_never_excludes(vram: float) -> None:
    small, large = answer("summarization", vram_gib=vram), answer("summarization", vram_gib=2 * vram)
    for item in small.candidates:
        context = item.memory.breakdown["cuda_context"]
        assert item.memory.peak_bytes * 0.97 + context <= vram * GIB
    assert {item.method for item in small.candidates} <= {item.method for item in large.candidates}


def test_every_method_is_either_offered_or_left_out_with_a_sentence() -> None:
    found = answer("summarization", vram_gib=2, must=["merge"], max_time="10m", num_examples=5000)
    offered = {item.method for item in found.candidates}
    left_out = {item.method for item in found.excluded}
    assert offered | left_out == set(host().methods())
    assert not offered & left_out
    assert all(item.because for item in found.excluded)


def test_what_nothing_is_known_about_runs_by_name_and_is_not_recommended() -> None:
    unjudged = {name for name, method in host().methods().items() if not method.judged}
    assert "dora" in unjudged
    left_out = {item.method: item for item in answer("summarization").excluded}
    assert unjudged <= set(left_out)
    assert left_out["dora"].constraint == "evidence"
    assert left_out["dora"].cheapest_change == "--method dora"
    alone = peftselect.recommend("summarization", T5, method="dora", trace="never")
    assert [item.method for item in alone.candidates] == ["dora"]


def test_the_effective_batch_is_kept_whatever_the_memory() -> None:
    tight, wide = (
        answer("summarization", vram_gib=1.5, batch_size=24),
        answer("summarization", vram_gib=80, batch_size=24),
    )
    for item in (*tight.candidates, *wide.candidates):
        recipe = item.candidate.recipe
        assert recipe.micro_batch_size * recipe.gradient_accumulation_steps == 24
    assert candidate(wide, "lora").candidate.recipe.micro_batch_size == 24
    assert candidate(tight, "lora").candidate.recipe.micro_batch_size < 24


def test_memory_is_bought_with_the_cheapest_change_first() -> None:
    seen = []
    for vram in (40, 4, 2, 1.5, 1.2, 1):
        lora = answer("summarization", vram_gib=vram, batch_size=16).find("ia3")
        if lora is not None:
            recipe = lora.candidate.recipe
            seen.append((recipe.quantization is not None, recipe.gradient_checkpointing, -recipe.micro_batch_size))
    assert len(set(seen)) >= 3
    assert seen[0] == (False, False, -16)
    for before, after in itertools.pairwise(seen):
        assert (before[0], before[1]) <= (after[0], after[1])


def test_several_devices_share_the_batch_and_zero3_the_weights() -> None:
    one = candidate(answer("summarization", vram_gib=40), "full_finetuning")
    four = candidate(answer("summarization", vram_gib=40, devices=4, batch_size=8), "full_finetuning")
    zero = candidate(answer("summarization", vram_gib=40, devices=4, batch_size=8, sharding="zero3"), "full_finetuning")
    assert four.candidate.recipe.micro_batch_size * four.candidate.recipe.gradient_accumulation_steps == 2
    assert zero.memory.peak_bytes < four.memory.peak_bytes < one.memory.peak_bytes


def test_without_a_budget_everything_fits_and_the_answer_says_so() -> None:
    found = answer("summarization", vram_gib=None, device="cpu")
    assert all(item.verdict.fits for item in found.candidates)
    assert any("memory budget is unlimited" in note for note in found.notes)
    assert found.candidates[0].candidate.recipe.precision == "fp32"


def test_a_time_budget_excludes_only_what_cannot_make_it_and_says_how_many_epochs_would() -> None:
    question: dict[str, Any] = {"num_examples": 2000, "vram_gib": 24}
    free = answer("summarization", **question)
    seconds = candidate(free, "lora").train_seconds
    assert seconds is not None
    inside = answer("summarization", **question, max_time=(seconds.low + seconds.value) / 2)
    assert inside.find("lora") is not None
    short = answer("summarization", **question, max_time=seconds.low * 0.7)
    lora = next(item for item in short.excluded if item.method == "lora")
    assert lora.constraint == "time"
    assert "--set num_train_epochs=" in (lora.cheapest_change or "")


# needs


@pytest.mark.parametrize("need", ["merge", "multi-adapter", "quantized-base"])
def test_a_need_leaves_only_methods_that_meet_it(need: str) -> None:
    found = answer("summarization", must=[need], vram_gib=24)
    assert found.candidates
    for item in found.candidates:
        method, recipe = item.candidate.method, item.candidate.recipe
        assert {
            "merge": method.mergeable,
            "multi-adapter": method.multi_adapter,
            "quantized-base": method.quantized_base != "no" and recipe.quantization is not None,
        }[need]
    assert all(item.because for item in found.excluded)


def test_every_failed_constraint_is_listed() -> None:
    found = answer("summarization", vram_gib=4, must=["merge", "multi-adapter"], max_time="1s", num_examples=100_000)
    full = next(item for item in found.excluded if item.method == "full_finetuning")
    failed = [full.constraint, *(item.constraint for item in full.also)]
    assert failed == ["merge", "multi-adapter", "memory", "time"]


def test_a_method_that_is_another_ones_quantised_form_is_offered_once() -> None:
    found = answer("summarization", must=["quantized-base"], vram_gib=24)
    assert found.find("qlora") is not None
    lora = next(item for item in found.excluded if item.method == "lora")
    assert "qlora" in lora.because


# recipes


def test_the_largest_rank_that_fits_is_not_what_is_recommended() -> None:
    small, large = (candidate(answer("classification", BERT, vram_gib=vram), "lora") for vram in (4, 80))
    assert small.candidate.values["r"] == large.candidate.values["r"] <= 32


def test_the_learning_rate_follows_the_rank_unless_it_is_set() -> None:
    question = peftselect.build_problem("summarization", T5, vram_gib=8)
    rates = [
        peftselect.recommend(question, method="lora", settings=settings).candidates[0].candidate.recipe.learning_rate
        for settings in ({"r": 4, "lora_alpha": 4}, {"r": 64, "lora_alpha": 64}, {"r": 64, "learning_rate": "0.007"})
    ]
    assert rates[0] > rates[1]
    assert rates[2] == 0.007


def test_few_examples_are_seen_more_often_than_many() -> None:
    epochs = [
        candidate(answer("classification", BERT, num_examples=number), "lora").candidate.recipe.num_train_epochs
        for number in (100, 2000, 100_000)
    ]
    assert epochs[0] > epochs[1] > epochs[2] >= 1


def test_what_the_user_sets_goes_before_the_rules_and_is_pinned_in_the_command() -> None:
    lora = answer("summarization", method="lora", settings={"r": "8", "num_train_epochs": "2"}).candidates[0]
    assert lora.candidate.values["r"] == 8
    assert lora.candidate.recipe.num_train_epochs == 2
    assert "--set r=8" in lora.command
    assert "--set num_train_epochs=2" in lora.command
    assert says(lora, "setting", "You set")


def test_a_setting_that_no_method_has_is_refused() -> None:
    with pytest.raises(peftselect.InputError, match="unknown setting of lora 'rang'"):
        answer("summarization", method="lora", settings={"rang": "8"})
    with pytest.raises(peftselect.InputError, match="num_train_epochs='many' cannot be read"):
        answer("summarization", method="lora", settings={"num_train_epochs": "many"})
    with pytest.raises(peftselect.InputError, match="optimizer='adamm' is not a choice"):
        answer("summarization", method="full_finetuning", settings={"optimizer": "adamm"})


def test_the_recipe_of_the_command_is_the_recipe_of_the_answer() -> None:
    """Asking again with what the command pins gives the same candidate."""
    found = answer("summarization", vram_gib=1.5)
    for item in found.candidates:
        words = item.command.split()
        settings = dict(word.split("=") for before, word in itertools.pairwise(words) if before == "--set")
        again = answer("summarization", vram_gib=1.5, method=item.method, settings=settings).candidates[0]
        assert again.candidate.recipe == item.candidate.recipe
        assert again.candidate.values == item.candidate.values


# ranking


def test_groups_are_as_wide_as_the_noise_and_no_wider() -> None:
    found = answer("classification", BERT, vram_gib=24)
    groups: dict[int, list[RankedCandidate]] = {}
    for item in found.candidates:
        groups.setdefault(item.tie_group, []).append(item)
    assert len(groups) > 1
    best = [max(item.quality for item in members if item.tried) for members in groups.values()]
    assert best == sorted(best, reverse=True)
    for members in groups.values():
        qualities = [item.quality for item in members if item.tried]
        assert max(qualities) - min(qualities) < NOISE_POINTS
        assert [item.score for item in members] == sorted((item.score for item in members), reverse=True)
    for before, after in itertools.pairwise(best):
        assert before - after >= NOISE_POINTS


def test_where_records_lie_close_together_a_smaller_difference_counts() -> None:
    code = answer("code_summarization", "codet5-base", num_examples=10_000).candidates[0].noise_points
    few_points = answer("classification", "roberta-base", num_examples=100).candidates[0].noise_points
    assert 0 < code < few_points <= NOISE_POINTS


def test_what_nobody_tried_on_such_tasks_is_not_in_the_first_group() -> None:
    found = answer("summarization", vram_gib=24)
    untried = [item.method for item in found.candidates if not item.tried]
    assert "compacter" in untried
    assert not set(untried) & top(found)


@pytest.mark.parametrize("prefer", ["memory", "speed", "size"])
def test_a_preference_never_makes_its_cost_worse(prefer: str) -> None:
    def cost(item: RankedCandidate) -> float:
        seconds = item.train_seconds.value if item.train_seconds else 0.0
        return {"memory": item.comparable_bytes, "speed": seconds, "size": item.adapter_bytes}[prefer]

    question: dict[str, Any] = {"num_examples": 5000, "vram_gib": 24}
    for task, model in (("summarization", T5), ("classification", BERT)):
        plain = answer(task, model, **question).recommended
        preferred = answer(task, model, **question, prefer=prefer).recommended
        assert plain is not None
        assert preferred is not None
        assert cost(preferred) <= cost(plain)


@pytest.mark.parametrize(
    ("task", "model", "question"),
    [
        ("summarization", "flan-t5-base", {"vram_gib": 4, "num_examples": 800}),
        ("classification", "roberta-base", {"vram_gib": 2, "num_examples": 1000}),
        ("ner", "roberta-base", {"vram_gib": 6}),
        ("instruction", "llama-3.2-3b", {"vram_gib": 16, "num_examples": 1000}),
    ],
)
def test_the_front_is_what_nothing_beats_and_every_preference_chooses_from_it(
    task: str, model: str, question: dict[str, Any]
) -> None:
    answer = peftselect.recommend(task, model, trace="never", **question)
    found = peftselect.api.tradeoffs(answer)
    front = found.front
    on_it = {item.method for item in front}

    def no_worse(one: RankedCandidate, other: RankedCandidate) -> bool:
        return (
            one.quality >= other.quality
            and one.memory.peak_bytes <= other.memory.peak_bytes
            and one.adapter_bytes <= other.adapter_bytes
            and (one.train_seconds is None or one.train_seconds.value <= other.train_seconds.value)
        )

    for item in answer.candidates:
        beaten = any(no_worse(other, item) and not no_worse(item, other) for other in answer.candidates)
        assert beaten != (item.method in on_it)
    assert [item.quality for item in front] == sorted((item.quality for item in front), reverse=True)
    chosen = {prefer: candidate(answer, method) for prefer, method in found.chosen.items()}
    assert chosen.keys() == scoring.PRICES.keys()
    assert chosen["quality"] == answer.recommended
    for prefer, item in chosen.items():
        beaters = [other for other in answer.candidates if no_worse(other, item) and not no_worse(item, other)]
        assert all(not other.tried for other in beaters), (prefer, item.method)
        assert any(f"--prefer {prefer} recommends {item.method}" in text for text in found.notes) == bool(beaters)
    assert chosen["memory"].comparable_bytes <= chosen["quality"].comparable_bytes
    assert chosen["size"].adapter_bytes <= chosen["quality"].adapter_bytes
    for point, item in zip(found.to_json(), front, strict=True):
        assert point["peak_memory_bytes"] == item.memory.peak_bytes
        assert point["chosen_by"] == [prefer for prefer, method in found.chosen.items() if method == item.method]


def test_the_utility_is_one_formula_wherever_it_is_told() -> None:
    told = " ".join((Path(__file__).parents[1] / "benchmarks" / "README.md").read_text().split())
    assert scoring.UTILITY in told
    assert scoring.UTILITY.removeprefix("score = ") in " ".join(scoring.__doc__.split())
    answer = peftselect.recommend("qa", "roberta-base", vram_gib=8, num_examples=500, trace="never")
    cheapest = scoring.cheapest_costs(answer.candidates)
    for item in answer.candidates:
        taken = sum(charge.points for charge in scoring.charges(item, cheapest, "quality"))
        risks = scoring.risk_points(item, answer.candidates, "quality")
        assert item.score == pytest.approx(item.quality - taken - risks)
        assert all(charge.ratio >= 1 for charge in scoring.charges(item, cheapest, "quality"))


def test_every_preference_has_its_prices() -> None:
    from typing import get_args

    from peftselect.problem import Preference

    assert set(PRICES) == set(get_args(Preference))


def test_confidence_says_what_it_rests_on() -> None:
    from peftselect.predictor import Predictor
    from peftselect.selector import select

    problem = peftselect.build_problem("summarization", T5, vram_gib=8)
    methods = host().methods()
    sources = {
        (with_rules, with_records): candidate(
            select(
                problem,
                methods,
                peftselect.api.rules() if with_rules else (),
                peftselect.api.predictor() if with_records else Predictor.fit([]),
            ),
            "lora",
        ).confidence.source
        for with_rules in (True, False)
        for with_records in (True, False)
    }
    assert sources == {
        (True, True): "both",
        (True, False): "rules",
        (False, True): "records",
        (False, False): "abstained",
    }


def test_far_from_every_record_it_abstains_and_lets_rules_speak() -> None:
    found = answer("qa", BERT)
    lora, adapter = candidate(found, "lora").confidence, candidate(found, "adapter_houlsby").confidence
    assert lora.source == "rules"
    assert adapter.source == "abstained"
    for said in (lora, adapter):
        assert "nearest record: " in said.because
        assert re.search(r"distance 0\.[678]", said.because)


def test_a_method_placed_by_its_structure_says_so() -> None:
    unseen = candidate(answer("summarization"), "compacter")
    assert unseen.confidence.source == "abstained"
    assert "placed by its structure" in unseen.confidence.because
    assert says(unseen, "record", "placed by its structure")


def test_an_answer_is_frozen_and_the_same_twice() -> None:
    first, second = answer("summarization").to_json(), answer("summarization").to_json()
    assert first == second
    with pytest.raises(dataclasses.FrozenInstanceError):
        answer("summarization").candidates[0].rank = 7  # type: ignore[misc]


def test_soft_prompts_leave_room_in_the_position_table() -> None:
    answer = peftselect.recommend("classification", "bert-base-uncased", max_length=512, num_examples=1000)
    prompt, lora = answer.find("prompt_tuning"), answer.find("lora")
    assert prompt is not None
    assert lora is not None
    assert lora.candidate.recipe.max_length == 512
    assert prompt.candidate.recipe.max_length == 512 - prompt.candidate.values["num_virtual_tokens"]
