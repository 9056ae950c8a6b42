"""Every tuner that peft registers, by a raw configuration: traced with peft's own counts, or refused in one line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from peftselect.errors import InputError
from peftselect.memory.trace import NotTracedError
from peftselect.memory.worker import trace_memory
from tests.test_trace import request

PROMPTS = {"num_virtual_tokens": 4, "task_type": "CAUSAL_LM"}
PREFIXES = {"num_virtual_tokens": 4, "task_type": "CAUSAL_LM"}
TARGETS: dict[str, Any] = {"target_modules": ["q_proj", "v_proj"]}
#: what a type needs beyond target modules, on a llama of width 32
SETTINGS: dict[str, dict[str, Any]] = {
    "PROMPT_TUNING": PROMPTS, "P_TUNING": {**PROMPTS, "encoder_hidden_size": 16}, "PREFIX_TUNING": PREFIXES,
    "MULTITASK_PROMPT_TUNING": {**PROMPTS, "num_tasks": 2}, "CARTRIDGE": PREFIXES,
    "CPT": {"task_type": "CAUSAL_LM", "cpt_token_ids": [1, 2, 3, 4], "cpt_mask": [1, 1, 1, 1],
            "cpt_tokens_type_mask": [1, 2, 3, 4]},
    "ADAPTION_PROMPT": {"adapter_len": 4, "adapter_layers": 2, "task_type": "CAUSAL_LM"},
    "IA3": {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    "LN_TUNING": {"target_modules": ["input_layernorm", "norm"]},
    "TRAINABLE_TOKENS": {"target_modules": "model.embed_tokens", "token_indices": [3, 4]},
    "ADALORA": {**TARGETS, "init_r": 4, "target_r": 2, "total_step": 100},
    "C3A": {**TARGETS, "block_size": 8}, "BOFT": {**TARGETS, "boft_block_size": 4},
    "OFT": {**TARGETS, "oft_block_size": 8, "r": 0}, "HRA": {**TARGETS, "r": 4},
    "FOURIERFT": {**TARGETS, "n_frequency": 20},
    "WAVEFT": {**TARGETS, "n_frequency": 20}, "VBLORA": {**TARGETS, "vector_length": 8, "num_vectors": 16, "topk": 2},
    "SHIRA": {**TARGETS, "r": 2}, "MISS": {**TARGETS, "r": 4}, "ADAMSS": {**TARGETS, "r": 8, "num_subspaces": 2},
    "XLORA": {}, "LILY": {**TARGETS, "r": 4, "num_B": 2, "stride_A": 1},
    "RANDLORA": {**TARGETS, "r": 4}, "ROAD": {**TARGETS, "group_size": 8},
    "GRALORA": {**TARGETS, "r": 4, "gralora_k": 2}, "PSOFT": {**TARGETS, "r": 4}, "OSF": {**TARGETS},
    "POLY": {**TARGETS, "r": 4, "n_tasks": 2, "task_type": "CAUSAL_LM"}, "TINYLORA": {**TARGETS, "r": 2, "u": 4},
}  # fmt: skip
#: what fake tensors or a configuration alone cannot do, and how the refusal begins
REFUSED: dict[str, str] = {
    "CPT": "it reads values of tensors", "SHADOW": "peft or transformers stopped with AttributeError",
    "XLORA": "peft or transformers stopped with RuntimeError",
}  # fmt: skip


@pytest.mark.slow
def test_every_type_of_peft_is_traced_or_refused_in_one_line(tiny_models) -> None:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    asked = replace(request(tiny_models("llama")), method="")
    # tuners of our own have methods, which tests of their own trace
    types = sorted(str(kind.value) for kind in PEFT_TYPE_TO_CONFIG_MAPPING if not str(kind.value).startswith("PSEL_"))
    assert {"LORA", "IA3", "BOFT", "SHIRA", "FROD"} < set(types)
    refusals = {}
    for kind in types:
        raw = {"peft_type": kind, **SETTINGS.get(kind, TARGETS)}
        try:
            found = trace_memory(replace(asked, peft_config=raw))
        except (NotTracedError, InputError) as error:
            refusals[kind] = str(error)
            continue
        assert found.trainable_parameters > 0, kind
        assert found.peak_allocated_bytes <= found.smallest_capacity_bytes, kind
        assert found.adapter_bytes > 0, kind
    assert set(refusals) == set(REFUSED), refusals
    for kind, line in refusals.items():
        assert line.startswith(REFUSED[kind]), line
        assert "\n" not in line
