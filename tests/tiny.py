"""Tiny random models with a word-level tokenizer, built from configurations: no network, a second each."""

from __future__ import annotations

from pathlib import Path

SPECIAL = ["<pad>", "</s>", "<unk>", "<s>", "[MASK]"]
PLAIN = """a the film is was good bad great awful dog cat runs sleeps summarize : . , ? who what where yes no person
hello bye question answer positive negative red blue one two three paris london #### 0 1 2"""
WORDS = [*SPECIAL, *(f"w{i}" for i in range(60)), *PLAIN.split()]
VOCABULARY = 128
#: name -> (config class, its arguments, model class)
CONFIGS: dict[str, tuple[str, dict[str, object], str]] = {
    "t5": (
        "T5Config",
        {
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 64,
            "num_layers": 2,
            "num_heads": 4,
            "decoder_start_token_id": 0,
            "dropout_rate": 0.0,
        },
        "T5ForConditionalGeneration",
    ),
    "flan": (
        "T5Config",
        {
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 64,
            "num_layers": 2,
            "num_decoder_layers": 3,
            "num_heads": 4,
            "feed_forward_proj": "gated-gelu",
            "decoder_start_token_id": 0,
            "dropout_rate": 0.0,
        },
        "T5ForConditionalGeneration",
    ),
    "bart": (
        "BartConfig",
        {
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "max_position_embeddings": 256,
            "dropout": 0.0,
            "decoder_start_token_id": 1,
            "forced_eos_token_id": 1,
            "bos_token_id": 3,
        },
        "BartForConditionalGeneration",
    ),
    "bert": (
        "BertConfig",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "max_position_embeddings": 256,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        "BertForMaskedLM",
    ),
    "roberta": (
        "RobertaConfig",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "max_position_embeddings": 258,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        "RobertaForMaskedLM",
    ),
    "distilbert": (
        "DistilBertConfig",
        {
            "dim": 32,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 64,
            "max_position_embeddings": 256,
            "dropout": 0.0,
            "attention_dropout": 0.0,
        },
        "DistilBertForMaskedLM",
    ),
    "gpt2": (
        "GPT2Config",
        {
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 256,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
        },
        "GPT2LMHeadModel",
    ),
    "llama": (
        "LlamaConfig",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 256,
        },
        "LlamaForCausalLM",
    ),
    "wav2vec2": (
        "Wav2Vec2Config",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "conv_dim": [16, 32, 32],
            "conv_kernel": [10, 4, 4],
            "conv_stride": [8, 4, 4],
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
            "classifier_proj_size": 16,
            "layerdrop": 0.0,
            "hidden_dropout": 0.0,
            "attention_dropout": 0.0,
            "activation_dropout": 0.0,
            "feat_proj_dropout": 0.0,
            "final_dropout": 0.0,
            "mask_time_prob": 0.0,
        },
        "Wav2Vec2Model",
    ),
    "whisper": (
        "WhisperConfig",
        {
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "num_mel_bins": 20,
            "max_source_positions": 100,
            "max_target_positions": 64,
            "classifier_proj_size": 16,
            "decoder_start_token_id": 3,
            "bos_token_id": 3,
            "suppress_tokens": [],
            "begin_suppress_tokens": [],
        },
        "WhisperForConditionalGeneration",
    ),
}


def feature_extractor(kind: str):
    """What makes a tiny model's input of samples; None for models that read text."""
    import transformers

    if kind == "whisper":  # two seconds at a mel frame each 10 ms, which the two convolutions halve
        return transformers.WhisperFeatureExtractor(feature_size=20, chunk_length=2)
    return transformers.Wav2Vec2FeatureExtractor(return_attention_mask=False) if kind == "wav2vec2" else None


def tokenizer():
    """A word-level tokenizer of the vocabulary above, as a transformers fast tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word: index for index, word in enumerate(dict.fromkeys(WORDS))}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        bos_token="<s>",
        mask_token="[MASK]",
        model_max_length=256,
    )


def config(kind: str):
    """The configuration of a tiny model."""
    import transformers

    name, arguments, architecture = CONFIGS[kind]
    return getattr(transformers, name)(
        vocab_size=VOCABULARY, pad_token_id=0, eos_token_id=1, architectures=[architecture], **arguments
    )


def build(kind: str, folder: Path) -> Path:
    """Write a tiny random model and its tokenizer into ``folder``."""
    import torch
    import transformers

    torch.manual_seed(0)
    made = getattr(transformers, CONFIGS[kind][2])(config(kind))
    made.save_pretrained(folder)
    extractor = feature_extractor(kind)
    if extractor is not None:
        extractor.save_pretrained(folder)
    if kind != "wav2vec2":
        tokenizer().save_pretrained(folder)
    return folder
