"""Decoders of the GPT line: GPT-2, GPT-BigCode, GPT-Neo, GPT-J, GPT-NeoX (Pythia), OPT, BLOOM."""

from __future__ import annotations

from dataclasses import replace

from peftselect.shape import LinearModule
from peftselect.shapes.body import Body, Config, blocks, decoder_heads, family, need


def _decoder(
    config: Config,
    hidden: int,
    layers: int,
    heads: int,
    ffn: int,
    linears: tuple[LinearModule, ...],
    *,
    norms: int,
    positions: int = 0,
    tied: bool = True,
    head_bias: bool = False,
    activation: str = "gelu_new",
    norms_per_block: int = 2,
    dropout: bool = False,
    **more: int,
) -> Body:
    """A decoder with LayerNorms (weight and bias): ``norms`` of them, ``positions`` learnt position rows."""
    vocabulary = need(config, "vocab_size")
    biases = vocabulary if head_bias else 0
    return Body(
        "decoder", hidden, heads, ffn, vocabulary, linears,
        embeddings=(vocabulary + positions) * hidden, norms=2 * hidden * norms, decoder_layers=layers,
        other=more.get("other", 0), other_biases=hidden * norms, num_kv_heads=more.get("kv_heads", 0),
        max_positions=more.get("max_positions"), tied_embeddings=tied,
        activation=activation, norms_per_block=norms_per_block, dropout=dropout,
        heads=decoder_heads(hidden, vocabulary, untied=0 if tied else vocabulary * hidden, biases=biases),
    )  # fmt: skip


@family("gpt2")
def gpt2(config: Config) -> Body:
    """GPT-2; its layers are transposed linear ones (``Conv1D``)."""
    hidden, layers = need(config, "n_embd", "hidden_size"), need(config, "n_layer", "num_hidden_layers")
    ffn, positions = config.get("n_inner") or 4 * hidden, need(config, "n_positions", "max_position_embeddings")
    linears = blocks(
        "decoder",
        layers,
        ("attn.c_attn", "query_key_value", hidden, 3 * hidden, True),
        ("attn.c_proj", "attention_output", hidden, hidden, True),
        ("mlp.c_fc", "ffn_in", hidden, ffn, True),
        ("mlp.c_proj", "ffn_out", ffn, hidden, True),
    )
    transposed = tuple(replace(linear, conv1d=True) for linear in linears)
    return _decoder(
        config, hidden, layers, need(config, "n_head", "num_attention_heads"), ffn, transposed,
        norms=2 * layers + 1, positions=positions, max_positions=positions, dropout=config["model_type"] == "gpt2",
    )  # fmt: skip


@family("gpt_bigcode")
def gpt_bigcode(config: Config) -> Body:
    """StarCoder: GPT-2 with plain linear layers and one key/value head."""
    hidden, layers = need(config, "n_embd", "hidden_size"), need(config, "n_layer", "num_hidden_layers")
    heads = need(config, "n_head", "num_attention_heads")
    kv_heads = 1 if config.get("multi_query", True) else heads
    fused = hidden + 2 * kv_heads * (hidden // heads)
    ffn, positions = config.get("n_inner") or 4 * hidden, need(config, "n_positions", "max_position_embeddings")
    linears = blocks(
        "decoder",
        layers,
        ("attn.c_attn", "query_key_value", hidden, fused, True),
        ("attn.c_proj", "attention_output", hidden, hidden, True),
        ("mlp.c_fc", "ffn_in", hidden, ffn, True),
        ("mlp.c_proj", "ffn_out", ffn, hidden, True),
    )
    return _decoder(
        config, hidden, layers, heads, ffn, linears,
        norms=2 * layers + 1, positions=positions, max_positions=positions, kv_heads=kv_heads,
        activation="gelu_pytorch_tanh", dropout=True,
    )  # fmt: skip


@family("gpt_neo")
def gpt_neo(config: Config) -> Body:
    """GPT-Neo: attention without biases on query, key and value."""
    hidden, layers = need(config, "hidden_size"), need(config, "num_layers", "num_hidden_layers")
    ffn, positions = config.get("intermediate_size") or 4 * hidden, need(config, "max_position_embeddings")
    linears = blocks(
        "decoder",
        layers,
        ("attn.attention.q_proj", "query", hidden, hidden, False),
        ("attn.attention.k_proj", "key", hidden, hidden, False),
        ("attn.attention.v_proj", "value", hidden, hidden, False),
        ("attn.attention.out_proj", "attention_output", hidden, hidden, True),
        ("mlp.c_fc", "ffn_in", hidden, ffn, True),
        ("mlp.c_proj", "ffn_out", ffn, hidden, True),
    )
    return _decoder(
        config, hidden, layers, need(config, "num_heads", "num_attention_heads"), ffn, linears,
        norms=2 * layers + 1, positions=positions, max_positions=positions, dropout=config["model_type"] == "gpt2",
    )  # fmt: skip


@family("gptj")
def gptj(config: Config) -> Body:
    """GPT-J: rotary positions, attention and feed-forward side by side under one norm, a bias on the last matrix."""
    hidden, layers = need(config, "n_embd", "hidden_size"), need(config, "n_layer", "num_hidden_layers")
    ffn = config.get("n_inner") or 4 * hidden
    linears = blocks(
        "decoder",
        layers,
        ("attn.q_proj", "query", hidden, hidden, False),
        ("attn.k_proj", "key", hidden, hidden, False),
        ("attn.v_proj", "value", hidden, hidden, False),
        ("attn.out_proj", "attention_output", hidden, hidden, False),
        ("mlp.fc_in", "ffn_in", hidden, ffn, True),
        ("mlp.fc_out", "ffn_out", ffn, hidden, True),
    )
    return _decoder(
        config, hidden, layers, need(config, "n_head", "num_attention_heads"), ffn, linears,
        norms=layers + 1, norms_per_block=1, tied=False, head_bias=True, max_positions=need(config, "n_positions"),
    )  # fmt: skip


@family("gpt_neox")
def gpt_neox(config: Config) -> Body:
    """GPT-NeoX and Pythia: rotary positions, an untied last matrix."""
    hidden, layers = need(config, "hidden_size"), need(config, "num_hidden_layers")
    ffn, bias = need(config, "intermediate_size"), bool(config.get("attention_bias", True))
    linears = blocks(
        "decoder",
        layers,
        ("attention.query_key_value", "query_key_value", hidden, 3 * hidden, bias),
        ("attention.dense", "attention_output", hidden, hidden, bias),
        ("mlp.dense_h_to_4h", "ffn_in", hidden, ffn, True),
        ("mlp.dense_4h_to_h", "ffn_out", ffn, hidden, True),
    )
    return _decoder(
        config, hidden, layers, need(config, "num_attention_heads"), ffn, linears, norms=2 * layers + 1,
        activation="gelu", tied=bool(config.get("tie_word_embeddings", False)),
        max_positions=need(config, "max_position_embeddings"),
    )  # fmt: skip


@family("opt")
def opt(config: Config) -> Body:
    """OPT; the 350M model's embeddings are narrower than its blocks, and it norms after the block."""
    hidden, layers = need(config, "hidden_size"), need(config, "num_hidden_layers")
    ffn, positions = need(config, "ffn_dim"), need(config, "max_position_embeddings")
    vocabulary, wide = need(config, "vocab_size"), config.get("word_embed_proj_dim") or hidden
    bias = bool(config.get("enable_bias", True))
    linears = blocks(
        "decoder",
        layers,
        ("self_attn.q_proj", "query", hidden, hidden, bias),
        ("self_attn.k_proj", "key", hidden, hidden, bias),
        ("self_attn.v_proj", "value", hidden, hidden, bias),
        ("self_attn.out_proj", "attention_output", hidden, hidden, bias),
        ("fc1", "ffn_in", hidden, ffn, bias),
        ("fc2", "ffn_out", ffn, hidden, bias),
    )
    last = bool(config.get("do_layer_norm_before", True)) and not config.get("_remove_final_layer_norm", False)
    norms = 2 * layers + (1 if last else 0)
    return Body(
        "decoder", hidden, need(config, "num_attention_heads"), ffn, vocabulary, linears,
        embeddings=vocabulary * wide + (positions + 2) * hidden, norms=2 * hidden * norms, decoder_layers=layers,
        other=2 * wide * hidden if wide != hidden else 0, other_biases=hidden * norms, embedding_size=wide,
        max_positions=positions, activation="relu", dropout=True, heads=decoder_heads(wide, vocabulary),
    )  # fmt: skip


@family("bloom")
def bloom(config: Config) -> Body:
    """BLOOM: ALiBi positions, a norm on the embeddings."""
    hidden, layers = need(config, "n_embed", "hidden_size"), need(config, "n_layer", "num_hidden_layers")
    ffn = 4 * hidden
    linears = blocks(
        "decoder",
        layers,
        ("self_attention.query_key_value", "query_key_value", hidden, 3 * hidden, True),
        ("self_attention.dense", "attention_output", hidden, hidden, True),
        ("mlp.dense_h_to_4h", "ffn_in", hidden, ffn, True),
        ("mlp.dense_4h_to_h", "ffn_out", ffn, hidden, True),
    )
    heads = need(config, "n_head", "num_attention_heads")
    return _decoder(config, hidden, layers, heads, ffn, linears, norms=2 * layers + 2, activation="gelu")
