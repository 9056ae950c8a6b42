"""What stands between a model and its input: tokenizers of text, extractors of what is heard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect.errors import InputError
from peftselect.method import PROMPTED

if TYPE_CHECKING:
    from peftselect.problem import BaseModel
    from peftselect.shape import ModelShape

#: hint where a model's files are not what they should be
FIX = "give a folder with config.json, tokenizer and safetensors weights, or a hub id that can be fetched"


def load_tokenizer(base_model: BaseModel) -> Any:
    """The model's fast tokenizer, with a padding token (the end of text, where it has none of its own)."""
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            base_model.load_from, local_files_only=base_model.folder is not None, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise InputError(f"{base_model.reference}: no tokenizer could be loaded ({first_line(error)})", FIX) from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # transformers makes an empty one where files are missing
        raise InputError(f"{base_model.reference}: the tokenizer knows no words, its files are missing", FIX)
    if tokenizer.pad_token is None:
        stand_in = tokenizer.eos_token or tokenizer.unk_token
        if stand_in is None:
            raise InputError(f"{base_model.reference}: the tokenizer has no padding, end or unknown token", FIX)
        tokenizer.pad_token = stand_in
    return tokenizer


def load_feature_extractor(base_model: BaseModel) -> Any:
    """What turns samples into the input of a model that hears. InputError where its file is missing."""
    import transformers

    try:
        return transformers.AutoFeatureExtractor.from_pretrained(
            base_model.load_from, local_files_only=base_model.folder is not None, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise InputError(
            f"{base_model.reference}: no feature extractor could be loaded ({first_line(error)})",
            "a speech model's folder holds preprocessor_config.json beside its weights",
        ) from error


def load_processors(base_model: BaseModel, shape: ModelShape) -> tuple[Any, Any]:
    """(tokenizer, feature extractor), None where the model has no use for one: it reads no text, or does not hear."""
    hears, writes = shape.audio is not None, shape.head.kind not in ("audio_classification", "ctc")
    return load_tokenizer(base_model) if writes else None, load_feature_extractor(base_model) if hears else None


def fit_tokenizer(base_model: BaseModel, model: Any, tokenizer: Any, shape: ModelShape) -> None:
    """Refuse a tokenizer of another model; tell the model which token is padding."""
    rows = shape.vocab_size if shape.audio else model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise InputError(
            f"{base_model.reference}: the tokenizer has {len(tokenizer)} tokens, the model knows {rows}",
            "the folder holds the tokenizer of another model",
        )
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    if getattr(model, "generation_config", None) is not None and model.generation_config.pad_token_id is None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    if shape.head.kind in PROMPTED:
        if tokenizer.mask_token_id is None:
            raise InputError(f"{base_model.reference}: the tokenizer has no mask", "take a masked language model")
        speak_at_mask(model, tokenizer.mask_token_id)


def speak_at_mask(model: Any, mask: int) -> None:
    """Let a masked language model look for a word at the first mask of each row alone: logits (rows, 1, vocabulary).

    Of all other positions nobody reads the logits, which are as many as the vocabulary's words each.
    """

    def first_mask(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        tokens: Any = kwargs.get("input_ids", args[0] if args else None)
        states = output[0]
        at = (tokens == mask).int().argmax(dim=1).view(-1, 1, 1).expand(-1, 1, states.shape[-1])
        output["last_hidden_state"] = states.gather(1, at)
        return output

    model.base_model.register_forward_hook(first_mask, with_kwargs=True)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, cut to a readable length."""
    text = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return text if len(text) <= 160 else text[:157] + "..."
