"""How a run draws its rows: of like length together, in another order each epoch, the same again when it is resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.utils.data import Sampler

from peftselect.batching import grouped_order

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class GroupedSampler(Sampler[int]):
    """Draws by :func:`peftselect.batching.grouped_order`.

    transformers' own sampler draws from the global random generator, whose state at the start of an epoch is gone when
    a run goes on in its middle. This one follows from the seed and the epoch.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        # a large odd factor keeps neighbouring seeds from sharing orders a few epochs apart
        return iter(grouped_order(self.lengths, self.batch_size, self.seed * 1_000_003 + self.epoch))

    def set_epoch(self, epoch: int) -> None:
        """The Trainer says which epoch comes."""
        self.epoch = epoch


def row_lengths(encoded: Any) -> list[int] | None:
    """Tokens of each row of a ``datasets.Dataset`` (of its longest choice), or None where rows hold no tokens."""
    if "input_ids" not in encoded.column_names:
        return None
    return [max(map(len, ids)) if ids and isinstance(ids[0], list) else len(ids) for ids in encoded["input_ids"]]
