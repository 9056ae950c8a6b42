"""The question put to a traced training step, and its answer.

This module is light; torch and the models are loaded by the process that traces (``peftselect.memory.worker``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peftselect.method import Recipe


@dataclass(frozen=True)
class Loop:
    """How the loop around the step behaves; the defaults are those of ``run``.

    ``keeps_outputs``: it holds on to the outputs, a key/value cache among them. ``empties_cache``: it empties the
    allocator's cache before the longest batch. ``reserves_weights``: the weights were loaded straight onto the card,
    for which transformers reserves their room in one piece. ``first_length``: tokens of the step before the longest.
    ``toggles_adapter``: the adapter is switched off and on again before the first step, which makes peft mark all of it
    as trainable. ``accumulates``: the longest batch is not the first micro-batch of its step, so that gradients wait
    beside it.
    """

    keeps_outputs: bool = False
    empties_cache: bool = False
    reserves_weights: bool = False
    first_length: int = 16
    accumulates: bool = False
    toggles_adapter: bool = False


#: the loop of ``run``
RUN_LOOP = Loop()


@dataclass(frozen=True)
class TraceRequest:
    """What to trace: a model by configuration, under a head, with a method and a recipe.

    ``new_pooler``: the checkpoint lacks the pooler that the head reads. ``padded``: batches carry padding, so that an
    attention mask is built and kept. ``peft_config``: an ``adapter_config.json`` as a mapping, which then stands in
    the place of ``method`` and ``values``; its adapter is trained as peft makes it. ``layers``: how many layers of the
    (encoder, decoder) are built; all where None. ``fast``: trace a few layers and extend, instead of all.
    """

    config: Mapping[str, Any]
    head: str
    num_labels: int
    new_pooler: bool
    method: str
    values: Mapping[str, Any]
    recipe: Recipe
    padded: bool = True
    peft_config: Mapping[str, Any] | None = None
    layers: tuple[int, int] | None = None
    loop: Loop = RUN_LOOP
    fast: bool = False

    def to_json(self) -> dict[str, Any]:
        """The request as the worker reads it."""
        return {**asdict(self), "config": dict(self.config), "values": dict(self.values)}


@dataclass(frozen=True)
class TracedMemory:
    """What a traced step came to, in bytes on one device, without the CUDA context.

    ``smallest_capacity_bytes`` is the least that the caching allocator survives with: what a card must have to spare.
    ``breakdown`` says what was held at the peak, by kind, before the allocator's rounding. ``adapter_bytes`` is the
    size of the safetensors file that saves what was trained.
    """

    peak_allocated_bytes: int
    peak_reserved_bytes: int
    smallest_capacity_bytes: int
    breakdown: Mapping[str, int]
    trainable_parameters: int
    total_parameters: int
    adapter_bytes: int
    seconds: float
    fast: bool = False


class NotTracedError(Exception):
    """The step could not be traced; the message says why in one line."""
