"""What the attention of a block keeps, and how the implementations in transformers differ in it.

Fused attention (PyTorch's scaled dot-product attention over a padded batch) keeps queries, keys, values, its output,
and each layer's own copy of the mask as a bias; grouped keys and values are repeated for each query head before it.
Architectures that transformers runs without it keep the scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peftselect.memory.regime import Regime
    from peftselect.shape import ModelShape


@dataclass(frozen=True)
class Habits:
    """What an implementation does that its configuration does not say.

    ``eager``: scores are computed and kept; ``softcap``: capped by tanh before the softmax; ``float_scores``: from
    float32 queries and keys. ``views``: values are a view of the fused projection, which keeps it whole beside the
    rotated queries and keys. ``head_norms``: RMS norms on the heads of queries and keys. ``float_norms``: weights of
    norms are applied in float32. ``parallel``: the norms before attention and feed-forward part read one tensor.
    ``gated``: scores are computed and kept under relative positions which a gate of each layer weighs (WavLM).
    ``copies``: queries are laid out head by head, so that the output is copied before the layer that reads it.
    """

    eager: bool = False
    softcap: bool = False
    float_scores: bool = False
    views: bool = False
    head_norms: bool = False
    float_norms: bool = False
    parallel: bool = False
    gated: bool = False
    copies: bool = False


#: architectures that differ; tests/test_kept_activations.py holds every architecture against the real modules
HABITS: dict[str, Habits] = {
    "bloom": Habits(eager=True),
    "gpt_neo": Habits(eager=True, float_scores=True),
    "gptj": Habits(eager=True, float_scores=True),
    "gpt_neox": Habits(views=True, parallel=True),
    "phi3": Habits(views=True),
    "qwen3": Habits(head_norms=True),
    "gemma": Habits(float_norms=True),
    "gemma2": Habits(eager=True, softcap=True, float_norms=True),
    "wavlm": Habits(gated=True),
    "whisper": Habits(copies=True),
    "gemma3_text": Habits(head_norms=True, float_norms=True),
}


def habits(shape: ModelShape) -> Habits:
    """How the blocks of this model are written."""
    return HABITS.get(shape.model_type, Habits())


def attention_bytes(
    shape: ModelShape,
    regime: Regime,
    batch: int,
    queries: int,
    keys: int,
    *,
    trained: bool,
    masked: bool = True,
    biased_rows: int = 0,
) -> float:
    """Bytes kept by one attention of ``queries`` x ``keys`` positions a row.

    ``masked``: the batch is padded. ``biased_rows`` is the number of rows for which a bias of its own is built for each
    head (T5's relative positions); 0 where there is none.
    """
    own, width = habits(shape), shape.num_heads * shape.head_dim
    if own.gated:
        return _gated(shape, regime, batch, queries, trained=trained)
    one_head = shape.num_kv_heads == 1  # broadcast to the query heads, not repeated
    of_queries, of_keys = batch * queries * width, batch * keys * (shape.head_dim if one_head else width)
    kept = float(regime.attention * (of_queries + 2 * of_keys))
    if own.views and shape.num_kv_heads == shape.num_heads:
        kept += 2 * of_queries * regime.attention
    if own.eager:
        kept += _scores(shape, regime, batch * shape.num_heads * queries * keys)
        if own.float_scores and regime.attention == 2 and not regime.autocast:
            kept += 2 * (of_queries + of_keys)
    else:
        kept += of_queries * regime.attention + 4 * batch * shape.num_heads * queries
        rows = biased_rows * shape.num_heads if biased_rows else batch * masked
        kept += rows * queries * keys * regime.attention
    if own.head_norms:
        normed = batch * queries * (width + shape.kv_size)
        scaled = (4 if own.float_norms else regime.attention) if trained else 0
        kept += normed * (4 + scaled)
    if trained and (own.eager or own.copies):
        kept += of_queries * regime.attention  # the heads side by side again, for the output projection
    return kept


def _gated(shape: ModelShape, regime: Regime, batch: int, length: int, *, trained: bool) -> float:
    """WavLM: queries, keys, values, the softmax (and what dropout left of it), and the gates of each head.

    Trained, every projection reads a copy of its own, the gate's among them, and so does the last.
    """
    width, pairs = shape.hidden_size, batch * shape.num_heads * length * length
    dropped = bool(dict(shape.config).get("attention_dropout"))
    a_position = 3 * width + 4 * shape.num_heads + ((4 * width + shape.num_heads) if trained else 0)
    scores = 4 if regime.autocast else regime.attention  # autocast takes the softmax in float32
    return regime.attention * batch * length * a_position + pairs * (scores * (1 + dropped) + dropped)


def shared_bytes(shape: ModelShape, regime: Regime, batch: int, length: int) -> int:
    """What every layer's attention reads and one tensor holds: the relative positions of WavLM."""
    return regime.attention * batch * shape.num_heads * length * length if habits(shape).gated else 0


def _scores(shape: ModelShape, regime: Regime, pairs: int) -> float:
    """The softmax in float32, its copy in the width of the values, and the capped scores."""
    half = regime.attention == 2
    return pairs * (4.0 + (2 if half else 0) + (regime.attention if habits(shape).softcap else 0))
