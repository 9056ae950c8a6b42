"""Encoder-decoders: T5 and its kin, BART and mBART."""

from __future__ import annotations

from functools import partial

from peftselect.shape import Role
from peftselect.shapes.body import Body, Config, Head, Row, blocks, family, linear_parameters, need


def _classification(hidden: int, labels: int) -> Head:
    size = linear_parameters(hidden, hidden) + linear_parameters(hidden, labels)
    return Head("sequence_classification", labels, size, ("classification_head",))


def _language_model(vocabulary: int, untied: int, _: int) -> Head:
    return Head("seq2seq_lm", vocabulary, frozen=untied)


@family("t5", "mt5")
def t5(config: Config) -> Body:
    """T5, FLAN-T5, CodeT5, mT5: no biases, relative attention in the first block of each stack.

    Checkpoints of version 1.1 (FLAN-T5, mT5) keep their own language-model matrix; ``tie_word_embeddings`` says so.
    """
    hidden, key = need(config, "d_model"), need(config, "d_kv")
    heads, ffn, vocabulary = need(config, "num_heads"), need(config, "d_ff"), need(config, "vocab_size")
    encoder = need(config, "num_layers")
    decoder = need(config, "num_decoder_layers") if config.get("num_decoder_layers") else encoder
    inner = heads * key
    gated = str(config.get("feed_forward_proj", "relu")).startswith("gated")
    tied = bool(config.get("tie_word_embeddings", True))

    def attention(name: str) -> tuple[Row, ...]:
        return (
            (f"{name}.q", "query", hidden, inner, False),
            (f"{name}.k", "key", hidden, inner, False),
            (f"{name}.v", "value", hidden, inner, False),
            (f"{name}.o", "attention_output", inner, hidden, False),
        )

    feed_forward: tuple[Row, ...]
    if gated:
        feed_forward = (
            ("DenseReluDense.wi_0", "ffn_gate", hidden, ffn, False),
            ("DenseReluDense.wi_1", "ffn_in", hidden, ffn, False),
            ("DenseReluDense.wo", "ffn_out", ffn, hidden, False),
        )
    else:
        feed_forward = (
            ("DenseReluDense.wi", "ffn_in", hidden, ffn, False),
            ("DenseReluDense.wo", "ffn_out", ffn, hidden, False),
        )
    linears = (
        *blocks("encoder", encoder, *attention("SelfAttention"), *feed_forward),
        *blocks("decoder", decoder, *attention("SelfAttention")),
        *blocks("decoder", decoder, *attention("EncDecAttention"), cross=True),
        *blocks("decoder", decoder, *feed_forward),
    )
    buckets = int(config.get("relative_attention_num_buckets", 32))
    untied = 0 if tied else vocabulary * hidden
    return Body(
        "encoder-decoder", hidden, heads, ffn, vocabulary, linears,
        embeddings=vocabulary * hidden, norms=hidden * (2 * encoder + 3 * decoder + 2),
        encoder_layers=encoder, decoder_layers=decoder, other=2 * buckets * heads, head_dim=key, gated_ffn=gated,
        tied_embeddings=tied, relative_attention=True, rms_norm=True,
        activation="gelu_new" if gated else "relu", dropout=True,
        heads={"seq2seq_lm": partial(_language_model, vocabulary, untied),
               "sequence_classification": partial(_classification, hidden)},
    )  # fmt: skip


@family("bart", "mbart")
def bart(config: Config) -> Body:
    """BART (Lewis et al. 2020) and mBART, which has a last norm on each stack."""
    hidden, vocabulary = need(config, "d_model"), need(config, "vocab_size")
    encoder, decoder = need(config, "encoder_layers"), need(config, "decoder_layers")
    encoder_ffn, decoder_ffn = need(config, "encoder_ffn_dim"), need(config, "decoder_ffn_dim")
    positions = need(config, "max_position_embeddings")

    def attention(name: str) -> tuple[Row, ...]:
        names: dict[str, Role] = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "attention_output"}
        return tuple((f"{name}.{part}", role, hidden, hidden, True) for part, role in names.items())

    linears = (
        *blocks("encoder", encoder, *attention("self_attn"), ("fc1", "ffn_in", hidden, encoder_ffn, True),
                ("fc2", "ffn_out", encoder_ffn, hidden, True)),
        *blocks("decoder", decoder, *attention("self_attn")),
        *blocks("decoder", decoder, *attention("encoder_attn"), cross=True),
        *blocks("decoder", decoder, ("fc1", "ffn_in", hidden, decoder_ffn, True),
                ("fc2", "ffn_out", decoder_ffn, hidden, True)),
    )  # fmt: skip
    last = 2 if config["model_type"] == "mbart" else 0
    norms = 2 * encoder + 3 * decoder + 2 + last
    return Body(
        "encoder-decoder", hidden, need(config, "encoder_attention_heads"), encoder_ffn, vocabulary, linears,
        embeddings=(vocabulary + 2 * (positions + 2)) * hidden, norms=2 * hidden * norms,
        encoder_layers=encoder, decoder_layers=decoder, other_biases=hidden * norms,
        max_positions=positions, dropout=True,
        heads={"seq2seq_lm": partial(_language_model, vocabulary, 0),
               "sequence_classification": partial(_classification, hidden)},
    )  # fmt: skip
