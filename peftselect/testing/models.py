"""Tiny random models of each architecture under each head, with a batch to train them on."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from peftselect.errors import InputError
from peftselect.modeling import AUTO_CLASSES
from peftselect.problem import BaseModel
from peftselect.shape import ModelShape
from peftselect.shapes import read_shape

LABELS = ("bad", "fair", "good")
#: model_type -> the arguments of its configuration
TINY: dict[str, dict[str, Any]] = {
    "t5": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4,
           "feed_forward_proj": "gated-gelu", "dropout_rate": 0.0, "decoder_start_token_id": 0},
    "bart": {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
             "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "dropout": 0.0,
             "max_position_embeddings": 128, "bos_token_id": 3, "decoder_start_token_id": 1},
    "bert": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
             "max_position_embeddings": 128, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128,
             "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "llama": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
              "head_dim": 16, "intermediate_size": 64, "max_position_embeddings": 128},
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One tiny model under one head, with the values the method is tried with."""

    base: BaseModel
    shape: ModelShape
    values: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.shape.model_type} {self.shape.head.kind}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Warnings about new heads say nothing here: every weight is random."""
    import transformers

    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    transformers.logging.set_verbosity(level)


def _config(kind: str) -> Any:
    import transformers

    arguments = {"vocab_size": 96, "pad_token_id": 0, "eos_token_id": 1, "num_labels": len(LABELS), **TINY[kind]}
    return transformers.AutoConfig.for_model(kind, **arguments)


def auto_class(shape: ModelShape) -> Any:
    """The transformers class that loads this shape."""
    import transformers

    return getattr(transformers, AUTO_CLASSES[shape.head.kind])


@cache
def tiny_shape(kind: str, head: str) -> ModelShape | None:
    """The shape of a tiny model, None where the architecture cannot carry the head."""
    try:
        return read_shape(_config(kind).to_dict(), head, 2 if head == "question_answering" else len(LABELS))
    except InputError:
        return None


@cache
def tiny_folder(kind: str, head: str) -> Path:
    """A folder with the tiny model, written once a process."""
    import torch
    import transformers

    folder = Path(mkdtemp(prefix=f"peftselect-{kind}-{head}-"))
    config = _config(kind)
    config.num_labels = 2 if head == "question_answering" else len(LABELS)
    torch.manual_seed(1)
    getattr(transformers, AUTO_CLASSES[head]).from_config(config).save_pretrained(folder)
    return folder


def batch(case: Case, prepended: int = 0) -> dict[str, Any]:
    """Two sequences of ids that end in the end-of-text token, with labels for the head."""
    import torch

    ids = torch.randint(5, 90, (2, 9), generator=torch.Generator().manual_seed(2))
    ids[:, -1] = 1
    labels: dict[str, Callable[[], dict[str, Any]]] = {
        "causal_lm": lambda: {"labels": ids},
        "seq2seq_lm": lambda: {"labels": ids},
        "sequence_classification": lambda: {"labels": torch.tensor([0, 2])},
        "token_classification": lambda: {"labels": torch.nn.functional.pad(ids % 3, (prepended, 0), value=-100)},
        "question_answering": lambda: {
            "start_positions": torch.tensor([1, 2]) + prepended,
            "end_positions": torch.tensor([3, 4]) + prepended,
        },
        "multiple_choice": lambda: {"labels": torch.tensor([0, 1])},
        "feature_extraction": dict,
    }
    answers = labels[case.shape.head.kind]()
    if case.shape.head.kind == "multiple_choice":
        ids = torch.stack([ids, ids.flip(0)], dim=1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **answers}


def logits(model: Any, case: Case) -> Any:
    """Logits without dropout (start logits of spans)."""
    import torch

    inputs = {name: item for name, item in batch(case).items() if name in {"input_ids", "attention_mask"}}
    if case.shape.head.kind == "seq2seq_lm":
        inputs["decoder_input_ids"] = inputs["input_ids"]
    with torch.no_grad():
        output = model.eval()(**inputs)
    if case.shape.head.kind == "feature_extraction":
        return output.last_hidden_state
    return output.start_logits if case.shape.head.kind == "question_answering" else output.logits


def decoded_logits(model: Any, case: Case, steps: int = 6) -> tuple[Any, Any]:
    """Logits (rows, steps, vocabulary) of tokens decoded greedily with a cache, and of the same read at once."""
    import torch
    from transformers import DynamicCache, EncoderDecoderCache

    prompt, pairs = batch(case)["input_ids"], case.shape.architecture == "encoder-decoder"
    # transformers counts the encoder's layers for the cache of a T5, of which the tiny one has fewer
    cache = {"past_key_values": EncoderDecoderCache(DynamicCache(), DynamicCache())} if pairs else {}
    answer = model.eval().generate(
        input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=steps, min_new_tokens=steps,
        do_sample=False, output_logits=True, return_dict_in_generate=True, pad_token_id=0, **cache,
    )  # fmt: skip
    said = answer.sequences[:, :-1]
    read = {"input_ids": prompt, "decoder_input_ids": said} if pairs else {"input_ids": said}
    with torch.no_grad():
        whole = model(**read, attention_mask=torch.ones_like(read["input_ids"])).logits
    return torch.stack(answer.logits, dim=1), whole[:, -steps:]


def loss_of(output: Any) -> Any:
    """The model's loss; of vectors, which have none, something that every weight has a part in."""
    if hasattr(output, "last_hidden_state") and getattr(output, "loss", None) is None:
        states = [output.last_hidden_state, getattr(output, "pooler_output", None)]
        return sum((item - 1).abs().mean() for item in states if item is not None)
    return output.loss


def saved_parameters(file: Path) -> int:
    """Numbers in a safetensors file."""
    from safetensors import safe_open

    with safe_open(str(file), "pt") as saved:
        return sum(math.prod(saved.get_slice(name).get_shape()) for name in saved.keys())  # noqa: SIM118
