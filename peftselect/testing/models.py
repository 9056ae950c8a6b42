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
from peftselect.shape import AudioInput, ModelShape
from peftselect.shapes import read_shape

LABELS = ("bad", "fair", "good")
#: inputs of a model, labels and what its decoder reads apart
INPUTS = frozenset({"input_ids", "attention_mask", "input_values", "input_features"})
#: model_type -> the arguments of its configuration; with BART's usual weights of 0.02 the logits of so narrow a model
#: hardly depend on its attention, and what an adapter there changes is lost in rounding
TINY: dict[str, dict[str, Any]] = {
    "t5": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4,
           "feed_forward_proj": "gated-gelu", "dropout_rate": 0.0, "decoder_start_token_id": 0},
    "bart": {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
             "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "dropout": 0.0,
             "max_position_embeddings": 128, "bos_token_id": 3, "decoder_start_token_id": 1, "init_std": 0.08},
    "bert": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
             "max_position_embeddings": 128, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128,
             "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "llama": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
              "head_dim": 16, "intermediate_size": 64, "max_position_embeddings": 128},
    "wav2vec2": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
                 "conv_dim": [8, 16], "conv_kernel": [10, 3], "conv_stride": [5, 2], "num_conv_pos_embeddings": 16,
                 "num_conv_pos_embedding_groups": 4, "classifier_proj_size": 16, "layerdrop": 0.0,
                 "hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "feat_proj_dropout": 0.0,
                 "final_dropout": 0.0, "mask_time_prob": 0.0, "ctc_loss_reduction": "mean"},
    "whisper": {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
                "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_mel_bins": 8,
                "max_source_positions": 50, "max_target_positions": 64, "classifier_proj_size": 16,
                "decoder_start_token_id": 2, "bos_token_id": 2, "suppress_tokens": [], "begin_suppress_tokens": [],
                "init_std": 0.1},
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


def _config(kind: str, head: str) -> Any:
    import transformers

    words = len(LABELS) if head == "ctc" else 96  # a CTC head is as wide as its labels
    arguments = {"vocab_size": words, "pad_token_id": 0, "eos_token_id": 1, "num_labels": len(LABELS), **TINY[kind]}
    return transformers.AutoConfig.for_model(kind, **arguments)


def auto_class(shape: ModelShape) -> Any:
    """The transformers class that loads this shape."""
    import transformers

    return getattr(transformers, AUTO_CLASSES[shape.head.kind])


@cache
def tiny_shape(kind: str, head: str) -> ModelShape | None:
    """The shape of a tiny model, None where the architecture cannot carry the head."""
    try:
        return read_shape(_config(kind, head).to_dict(), head, 2 if head == "question_answering" else len(LABELS))
    except InputError:
        return None


@cache
def tiny_folder(kind: str, head: str) -> Path:
    """A folder with the tiny model, written once a process."""
    import torch
    import transformers

    folder = Path(mkdtemp(prefix=f"peftselect-{kind}-{head}-"))
    config = _config(kind, head)
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
        "audio_classification": lambda: {"labels": torch.tensor([0, 2])},
        "ctc": lambda: {"labels": torch.tensor([[1, 2, 1], [2, 1, -100]])},
        "speech_seq2seq": lambda: {"labels": ids},
        "masked_lm": lambda: {"labels": ids},
    }
    answers = labels[case.shape.head.kind]()
    if case.shape.head.kind == "multiple_choice":
        ids = torch.stack([ids, ids.flip(0)], dim=1)
    if case.shape.audio is not None:
        return {**_sounds(case.shape.audio), **answers}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **answers}


def _sounds(audio: AudioInput) -> dict[str, Any]:
    """Two clips of noise, a tenth of a second long (or as long as the model wants them)."""
    import torch

    made, frames = torch.Generator().manual_seed(3), audio.frames(0.1)
    if audio.features > 1:
        return {"input_features": torch.randn(2, audio.features, frames, generator=made)}
    return {"input_values": torch.randn(2, frames, generator=made)}


def model_inputs(case: Case) -> dict[str, Any]:
    """The batch without its labels, and what the decoder reads."""
    whole = batch(case)
    inputs = {name: item for name, item in whole.items() if name in INPUTS}
    if case.shape.head.kind in ("seq2seq_lm", "speech_seq2seq"):
        inputs["decoder_input_ids"] = whole["labels"]
    return inputs


def logits(model: Any, case: Case) -> Any:
    """Logits without dropout (start logits of spans)."""
    import torch

    inputs = model_inputs(case)
    with torch.no_grad():
        output = model.eval()(**inputs)
    if case.shape.head.kind == "feature_extraction":
        return output.last_hidden_state
    return output.start_logits if case.shape.head.kind == "question_answering" else output.logits


def decoded_logits(model: Any, case: Case, steps: int = 6) -> tuple[Any, Any]:
    """Logits (rows, steps, vocabulary) of tokens decoded greedily with a cache, and of the same read at once."""
    import torch
    from transformers import DynamicCache, EncoderDecoderCache

    inputs, pairs = model_inputs(case), case.shape.architecture == "encoder-decoder"
    inputs.pop("decoder_input_ids", None)
    # transformers counts the encoder's layers for the cache of a T5, of which the tiny one has fewer
    cache = {"past_key_values": EncoderDecoderCache(DynamicCache(), DynamicCache())} if pairs else {}
    answer = model.eval().generate(
        **inputs, max_new_tokens=steps, min_new_tokens=steps,
        do_sample=False, output_logits=True, return_dict_in_generate=True, pad_token_id=0, **cache,
    )  # fmt: skip
    said = answer.sequences[:, :-1]
    read = {**inputs, "decoder_input_ids": said} if pairs else {"input_ids": said, "attention_mask": said == said}
    with torch.no_grad():
        whole = model(**read).logits
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
