"""BERT and its kin: BERT, RoBERTa, XLM-RoBERTa, ELECTRA, DistilBERT, ALBERT."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from peftselect.shape import HeadKind
from peftselect.shapes.body import Body, Config, Head, blocks, family, linear_parameters, need


def _one_layer(kind: HeadKind, hidden: int, pooler: int, pooler_bias: int, module: str, labels: int) -> Head:
    width = {"question_answering": 2, "multiple_choice": 1}.get(kind, labels)
    size = linear_parameters(hidden, width)
    return Head(kind, width, size, (module,), frozen=pooler, frozen_biases=pooler_bias, pooler=bool(pooler))


def _two_layers(hidden: int, modules: tuple[str, ...], kind: HeadKind, labels: int) -> Head:
    width = 1 if kind == "multiple_choice" else labels
    return Head(kind, width, linear_parameters(hidden, hidden) + linear_parameters(hidden, width), modules)


def _plain_heads(hidden: int, *, pooler: bool) -> dict[str, Callable[[int], Head]]:
    """Heads of one layer each; classification and multiple choice read a frozen pooler where there is one."""
    pooled = (linear_parameters(hidden, hidden), hidden) if pooler else (0, 0)
    return {
        "sequence_classification": partial(_one_layer, "sequence_classification", hidden, *pooled, "classifier"),
        "multiple_choice": partial(_one_layer, "multiple_choice", hidden, *pooled, "classifier"),
        "token_classification": partial(_one_layer, "token_classification", hidden, 0, 0, "classifier"),
        "question_answering": partial(_one_layer, "question_answering", hidden, 0, 0, "qa_outputs"),
        "feature_extraction": lambda _: Head("feature_extraction", hidden, frozen=pooled[0], frozen_biases=pooled[1]),
    }


def _masked(hidden: int, wide: int, vocabulary: int) -> dict[str, Callable[[int], Head]]:
    """The head of masked language models: a layer, a norm, and a bias for each word beside the tied embeddings."""
    size, biases = linear_parameters(hidden, wide) + 2 * wide + vocabulary, 2 * wide + vocabulary
    return {"masked_lm": lambda _: Head("masked_lm", vocabulary, frozen=size, frozen_biases=biases)}


def _bert_body(config: Config, heads: dict[str, Callable[[int], Head]], *, offset: int = 0) -> Body:
    hidden, layers = need(config, "hidden_size"), need(config, "num_hidden_layers")
    ffn, vocabulary = need(config, "intermediate_size"), need(config, "vocab_size")
    wide = config.get("embedding_size") or hidden
    positions = need(config, "max_position_embeddings")
    rows = vocabulary + positions + int(config.get("type_vocab_size", 2))
    linears = blocks(
        "encoder",
        layers,
        ("attention.self.query", "query", hidden, hidden, True),
        ("attention.self.key", "key", hidden, hidden, True),
        ("attention.self.value", "value", hidden, hidden, True),
        ("attention.output.dense", "attention_output", hidden, hidden, True),
        ("intermediate.dense", "ffn_in", hidden, ffn, True),
        ("output.dense", "ffn_out", ffn, hidden, True),
    )
    projection = linear_parameters(wide, hidden) if wide != hidden else 0
    return Body(
        "encoder", hidden, need(config, "num_attention_heads"), ffn, vocabulary, linears,
        embeddings=rows * wide, norms=2 * wide + layers * 4 * hidden, encoder_layers=layers,
        other=projection, other_biases=wide + layers * 2 * hidden + (hidden if projection else 0),
        embedding_size=wide, max_positions=positions - offset, dropout=True, heads=heads,
    )  # fmt: skip


@family("bert")
def bert(config: Config) -> Body:
    """BERT (Devlin et al. 2019)."""
    hidden = need(config, "hidden_size")
    heads = _plain_heads(hidden, pooler=True) | _masked(hidden, hidden, need(config, "vocab_size"))
    return _bert_body(config, heads)


@family("roberta", "xlm-roberta", "camembert")
def roberta(config: Config) -> Body:
    """RoBERTa: classification reads the first token through a layer of the head; two positions are taken by padding."""
    hidden = need(config, "hidden_size")
    heads = _plain_heads(hidden, pooler=True) | _masked(hidden, hidden, need(config, "vocab_size"))
    heads["sequence_classification"] = partial(_two_layers, hidden, ("classifier",), "sequence_classification")
    return _bert_body(config, heads, offset=int(config.get("pad_token_id", 1)) + 1)


@family("electra")
def electra(config: Config) -> Body:
    """ELECTRA: no pooler in the body; narrower embeddings in the small model."""
    hidden = need(config, "hidden_size")
    heads = _plain_heads(hidden, pooler=False)
    heads["sequence_classification"] = partial(_two_layers, hidden, ("classifier",), "sequence_classification")
    heads["multiple_choice"] = partial(_two_layers, hidden, ("sequence_summary", "classifier"), "multiple_choice")
    return _bert_body(config, heads)


@family("distilbert")
def distilbert(config: Config) -> Body:
    """DistilBERT: classification has a layer before the classifier, new and so trained with it."""
    hidden, layers = need(config, "dim", "hidden_size"), need(config, "n_layers", "num_hidden_layers")
    ffn, vocabulary = need(config, "hidden_dim"), need(config, "vocab_size")
    positions = need(config, "max_position_embeddings")
    linears = blocks(
        "encoder",
        layers,
        ("attention.q_lin", "query", hidden, hidden, True),
        ("attention.k_lin", "key", hidden, hidden, True),
        ("attention.v_lin", "value", hidden, hidden, True),
        ("attention.out_lin", "attention_output", hidden, hidden, True),
        ("ffn.lin1", "ffn_in", hidden, ffn, True),
        ("ffn.lin2", "ffn_out", ffn, hidden, True),
    )
    heads = _plain_heads(hidden, pooler=False) | _masked(hidden, hidden, vocabulary)
    for kind in ("sequence_classification", "multiple_choice"):
        heads[kind] = partial(_two_layers, hidden, ("pre_classifier", "classifier"), kind)
    return Body(
        "encoder", hidden, need(config, "n_heads", "num_attention_heads"), ffn, vocabulary, linears,
        embeddings=(vocabulary + positions) * hidden, norms=2 * hidden + layers * 4 * hidden, encoder_layers=layers,
        other_biases=hidden + layers * 2 * hidden, max_positions=positions, dropout=True,
        heads=heads,
    )  # fmt: skip


@family("albert")
def albert(config: Config) -> Body:
    """ALBERT: the layers of a group share their parameters."""
    hidden, wide = need(config, "hidden_size"), need(config, "embedding_size")
    layers, groups = need(config, "num_hidden_layers"), int(config.get("num_hidden_groups", 1))
    inner = int(config.get("inner_group_num", 1))
    ffn, vocabulary = need(config, "intermediate_size"), need(config, "vocab_size")
    positions, copies = need(config, "max_position_embeddings"), groups * inner
    linears = blocks(
        "encoder",
        copies,
        ("attention.query", "query", hidden, hidden, True),
        ("attention.key", "key", hidden, hidden, True),
        ("attention.value", "value", hidden, hidden, True),
        ("attention.dense", "attention_output", hidden, hidden, True),
        ("ffn", "ffn_in", hidden, ffn, True),
        ("ffn_output", "ffn_out", ffn, hidden, True),
        applications=layers * inner,
    )
    heads = _plain_heads(hidden, pooler=True) | _masked(hidden, wide, vocabulary)
    return Body(
        "encoder", hidden, need(config, "num_attention_heads"), ffn, vocabulary, linears,
        embeddings=(vocabulary + positions + int(config.get("type_vocab_size", 2))) * wide,
        norms=2 * wide + copies * 4 * hidden, encoder_layers=layers, other=wide * hidden + hidden,
        other_biases=wide + copies * 2 * hidden + hidden, embedding_size=wide, max_positions=positions,
        activation="gelu_new", heads=heads,
    )  # fmt: skip
