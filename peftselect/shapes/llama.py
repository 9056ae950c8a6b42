"""Decoders of the LLaMA line: LLaMA, Mistral, Qwen, Gemma, Phi, StarCoder 2."""

from __future__ import annotations

from peftselect.shape import LinearModule
from peftselect.shapes.body import Body, Config, Row, blocks, decoder_heads, family, need


def _sizes(config: Config) -> tuple[int, int, int, int, int, int]:
    """hidden, layers, feed-forward, heads, key/value heads, head size."""
    hidden, heads = need(config, "hidden_size"), need(config, "num_attention_heads")
    return (
        hidden,
        need(config, "num_hidden_layers"),
        need(config, "intermediate_size"),
        heads,
        config.get("num_key_value_heads") or heads,
        config.get("head_dim") or hidden // heads,
    )


def _attention(
    hidden: int, query: int, key: int, *, bias: bool, output_bias: bool, output: str = "o_proj"
) -> tuple[Row, ...]:
    return (
        ("self_attn.q_proj", "query", hidden, query, bias),
        ("self_attn.k_proj", "key", hidden, key, bias),
        ("self_attn.v_proj", "value", hidden, key, bias),
        (f"self_attn.{output}", "attention_output", query, hidden, output_bias),
    )


def _body(
    config: Config,
    linears: tuple[LinearModule, ...],
    *,
    norms: int,
    tied_default: bool,
    activation: str,
    norms_per_block: int = 2,
    **more: int,
) -> Body:
    """A rotary decoder; ``norms`` counts norm parameters, ``more`` may give biases of norms and of the last matrix."""
    hidden, layers, ffn, heads, kv_heads, head_dim = _sizes(config)
    vocabulary = need(config, "vocab_size")
    tied = bool(config.get("tie_word_embeddings", tied_default))
    untied = 0 if tied else vocabulary * hidden
    return Body(
        "decoder", hidden, heads, ffn, vocabulary, linears,
        embeddings=vocabulary * hidden, norms=norms, decoder_layers=layers,
        other_biases=more.get("norm_biases", 0), num_kv_heads=kv_heads, head_dim=head_dim,
        max_positions=config.get("max_position_embeddings"),
        gated_ffn=any(linear.role in ("ffn_gate", "ffn_gate_in") for linear in linears), tied_embeddings=tied,
        rms_norm=not more.get("norm_biases", 0), activation=activation, norms_per_block=norms_per_block,
        heads=decoder_heads(hidden, vocabulary, untied=untied, biases=more.get("head_bias", 0)),
    )  # fmt: skip


@family("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text")
def llama(config: Config) -> Body:
    """Gated feed-forward and RMS norms; the members differ in biases, norms on query and key, and norms per block."""
    hidden, layers, ffn, heads, kv_heads, head_dim = _sizes(config)
    kind = config["model_type"]
    if kind.startswith("gemma") or kind == "qwen3":
        head_dim = int(config.get("head_dim") or (128 if kind == "qwen3" else 256))
    bias = bool(config.get("attention_bias", False)) or kind == "qwen2"
    mlp = bool(config.get("mlp_bias", False))
    linears = blocks(
        "decoder",
        layers,
        *_attention(hidden, heads * head_dim, kv_heads * head_dim, bias=bias, output_bias=bias and kind != "qwen2"),
        ("mlp.gate_proj", "ffn_gate", hidden, ffn, mlp),
        ("mlp.up_proj", "ffn_in", hidden, ffn, mlp),
        ("mlp.down_proj", "ffn_out", ffn, hidden, mlp),
    )
    per_block = 4 if kind in ("gemma2", "gemma3_text") else 2
    of_heads = 2 * head_dim if kind in ("qwen3", "gemma3_text") else 0
    norms = hidden * (per_block * layers + 1) + of_heads * layers
    gemma = kind.startswith("gemma")
    return _body(
        {**config, "head_dim": head_dim}, linears, norms=norms, tied_default=gemma,
        activation="gelu_pytorch_tanh" if gemma else "silu", norms_per_block=per_block,
    )  # fmt: skip


@family("phi3")
def phi3(config: Config) -> Body:
    """Phi-3 and Phi-4: fused query-key-value and fused gate."""
    hidden, layers, ffn, heads, kv_heads, head_dim = _sizes(config)
    linears = blocks(
        "decoder",
        layers,
        ("self_attn.qkv_proj", "query_key_value", hidden, (heads + 2 * kv_heads) * head_dim, False),
        ("self_attn.o_proj", "attention_output", heads * head_dim, hidden, False),
        ("mlp.gate_up_proj", "ffn_gate_in", hidden, 2 * ffn, False),
        ("mlp.down_proj", "ffn_out", ffn, hidden, False),
    )
    return _body(config, linears, norms=hidden * (2 * layers + 1), tied_default=False, activation="silu")


@family("phi")
def phi(config: Config) -> Body:
    """Phi-1 and Phi-2: one LayerNorm a block, biases everywhere, also on the last matrix."""
    hidden, layers, ffn, heads, kv_heads, head_dim = _sizes(config)
    linears = blocks(
        "decoder",
        layers,
        *_attention(hidden, heads * head_dim, kv_heads * head_dim, bias=True, output_bias=True, output="dense"),
        ("mlp.fc1", "ffn_in", hidden, ffn, True),
        ("mlp.fc2", "ffn_out", ffn, hidden, True),
    )
    count = layers + 1
    vocabulary = need(config, "vocab_size")
    return _body(
        config,
        linears,
        norms=2 * hidden * count,
        tied_default=False,
        norm_biases=hidden * count,
        head_bias=vocabulary,
        activation="gelu_new",
        norms_per_block=1,
    )


@family("starcoder2")
def starcoder2(config: Config) -> Body:
    """StarCoder 2: LayerNorms and biases, plain feed-forward."""
    hidden, layers, ffn, heads, kv_heads, head_dim = _sizes(config)
    bias = bool(config.get("use_bias", True))
    linears = blocks(
        "decoder",
        layers,
        *_attention(hidden, heads * head_dim, kv_heads * head_dim, bias=bias, output_bias=bias),
        ("mlp.c_fc", "ffn_in", hidden, ffn, bias),
        ("mlp.c_proj", "ffn_out", ffn, hidden, bias),
    )
    count = 2 * layers + 1
    return _body(config, linears, norms=2 * hidden * count, tied_default=True, norm_biases=hidden * count,
                 activation="gelu_pytorch_tanh")  # fmt: skip
