"""Models that hear: wav2vec 2.0, HuBERT and WavLM, which read the wave, and Whisper, which reads mel spectra."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from peftselect.errors import InputError
from peftselect.shape import AudioInput, LinearModule, Role
from peftselect.shapes.body import Body, Config, Head, Row, blocks, family, linear_parameters, need

#: seconds that Whisper's extractor pads every input to, at a mel frame each 10 ms
WHISPER_HOP = 160


def _classification(hidden: int, projected: int, layers: int, labels: int) -> Head:
    """A projection of each position, their mean, and a layer on it; ``layers``: weights of a sum, which stay frozen."""
    size = linear_parameters(hidden, projected) + linear_parameters(projected, labels)
    return Head("audio_classification", labels, size, ("projector", "classifier"), frozen=layers)


def _ctc(hidden: int, labels: int) -> Head:
    return Head("ctc", labels, linear_parameters(hidden, labels), ("lm_head",))


def _heads(config: Config, hidden: int, layers: int) -> dict[str, Callable[[int], Head]]:
    weighted = layers + 1 if config.get("use_weighted_layer_sum") else 0
    projected = int(config.get("classifier_proj_size", 256))
    return {"audio_classification": partial(_classification, hidden, projected, weighted)}


def _numbers(config: Config, key: str) -> list[int]:
    value = config.get(key)
    if not isinstance(value, list | tuple) or not value or not all(isinstance(item, int) for item in value):
        raise InputError(
            f"config.json of a {config.get('model_type')} model lacks {key!r}", "take the file that came with the model"
        )
    return list(value)


def _wave_encoder(config: Config) -> Body:
    """Convolutions over the wave, a convolution that tells positions apart, and post- or pre-norm blocks."""
    if config.get("add_adapter") or config.get("adapter_attn_dim"):
        raise InputError("config.json: adapters inside a speech encoder are not known here", "take the plain model")
    hidden, layers = need(config, "hidden_size"), need(config, "num_hidden_layers")
    ffn, heads = need(config, "intermediate_size"), need(config, "num_attention_heads")
    channels, kernels, strides = (_numbers(config, f"conv_{part}") for part in ("dim", "kernel", "stride"))
    into = [1, *channels[:-1]]
    conv = sum(k * wide_in * wide_out for k, wide_in, wide_out in zip(kernels, into, channels, strict=True))
    conv_biases = sum(channels) if config.get("conv_bias") else 0
    normed = channels if config.get("feat_extract_norm", "group") == "layer" else channels[:1]
    projection_norm = channels[-1] if config.get("feat_proj_layer_norm", True) else 0
    kernel, groups = need(config, "num_conv_pos_embeddings"), need(config, "num_conv_pos_embedding_groups")
    masks = hidden if (config.get("mask_time_prob", 0.05) or config.get("mask_feature_prob", 0.0)) else 0
    linears = blocks(
        "encoder",
        layers,
        ("attention.q_proj", "query", hidden, hidden, True),
        ("attention.k_proj", "key", hidden, hidden, True),
        ("attention.v_proj", "value", hidden, hidden, True),
        ("attention.out_proj", "attention_output", hidden, hidden, True),
        ("feed_forward.intermediate_dense", "ffn_in", hidden, ffn, True),
        ("feed_forward.output_dense", "ffn_out", ffn, hidden, True),
    )
    return Body(
        "encoder", hidden, heads, ffn, int(config.get("vocab_size", 32)), linears,
        embeddings=masks + kernel + hidden * (hidden // groups) * kernel + hidden,
        norms=2 * sum(normed) + 2 * projection_norm + 2 * hidden * (1 + 2 * layers),
        other=conv + conv_biases + linear_parameters(channels[-1], hidden),
        other_biases=conv_biases + sum(normed) + projection_norm + hidden * (3 + 2 * layers),
        encoder_layers=layers, dropout=True,
        audio=AudioInput(
            tuple((c, k, s, 0) for c, k, s in zip(channels, kernels, strides, strict=True)),
            normed=len(normed),
            masked=len(normed) > 1,  # models with a norm on the first convolution alone were trained without a mask
        ),
        heads={**_heads(config, hidden, layers), "ctc": partial(_ctc, hidden)},
    )  # fmt: skip


@family("wav2vec2", "hubert")
def wav2vec2(config: Config) -> Body:
    """wav2vec 2.0 (Baevski et al. 2020) and HuBERT (Hsu et al. 2021)."""
    if config.get("conv_pos_batch_norm"):
        raise InputError("config.json: batch norm before the positional convolution is not known here", "take another")
    return _wave_encoder(config)


@family("wavlm")
def wavlm(config: Config) -> Body:
    """WavLM (Chen et al. 2022): gated relative positions, and an attention that transformers runs as one function.

    That function is handed the weights of the four projections, whose modules are never called.
    """
    body = _wave_encoder(config)
    heads, layers = body.num_heads, body.encoder_layers
    gates = layers * (heads + linear_parameters(body.hidden_size // heads, 8))
    buckets = int(config.get("num_buckets", 320)) * heads
    linears = tuple(replace(item, called=not item.path.startswith("attention.")) for item in body.linears)
    return replace(
        body,
        linears=linears,
        other=body.other + gates + buckets,
        other_biases=body.other_biases + 8 * layers,
    )


@family("whisper")
def whisper(config: Config) -> Body:
    """Whisper (Radford et al. 2022); its classifier is the encoder alone."""
    hidden, vocabulary, heads = need(config, "d_model"), need(config, "vocab_size"), "attention_heads"
    encoder, decoder = need(config, "encoder_layers"), need(config, "decoder_layers")
    mel, positions = need(config, "num_mel_bins"), need(config, "max_source_positions")
    written = need(config, "max_target_positions")
    below = _whisper_blocks(config, "encoder", hidden, encoder)
    front = linear_parameters(3 * mel, hidden) + linear_parameters(3 * hidden, hidden) + positions * hidden
    audio = AudioInput(
        ((hidden, 3, 1, 1), (hidden, 3, 2, 1)), WHISPER_HOP, mel, fixed_seconds=positions * 2 * WHISPER_HOP / 16_000
    )
    listening = Body(
        "encoder", hidden, need(config, f"encoder_{heads}"), need(config, "encoder_ffn_dim"), vocabulary, below,
        embeddings=0, norms=2 * hidden * (2 * encoder + 1), other=front, other_biases=hidden * (2 * encoder + 3),
        encoder_layers=encoder, activation="gelu", audio=audio, heads=_heads(config, hidden, encoder),
    )  # fmt: skip
    above = _whisper_blocks(config, "decoder", hidden, decoder)
    return replace(
        listening,
        architecture="encoder-decoder",
        linears=(*below, *above),
        embeddings=(vocabulary + written) * hidden,
        norms=listening.norms + 2 * hidden * (3 * decoder + 1),
        other_biases=listening.other_biases + hidden * (3 * decoder + 1),
        decoder_layers=decoder,
        heads={"speech_seq2seq": lambda _: Head("speech_seq2seq", vocabulary)},
        under={"audio_classification": listening},
    )


def _whisper_blocks(config: Config, stack: str, hidden: int, layers: int) -> tuple[LinearModule, ...]:
    names: dict[str, Role] = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "attention_output"}
    ffn = need(config, f"{stack}_ffn_dim")

    def attention(name: str) -> tuple[Row, ...]:
        return tuple((f"{name}.{part}", role, hidden, hidden, role != "key") for part, role in names.items())

    feed_forward: tuple[Row, ...] = (("fc1", "ffn_in", hidden, ffn, True), ("fc2", "ffn_out", ffn, hidden, True))
    if stack == "encoder":
        return blocks("encoder", layers, *attention("self_attn"), *feed_forward)
    return (
        *blocks("decoder", layers, *attention("self_attn")),
        *blocks("decoder", layers, *attention("encoder_attn"), cross=True),
        *blocks("decoder", layers, *feed_forward),
    )
