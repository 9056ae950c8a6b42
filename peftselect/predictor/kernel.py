"""Which comparisons speak for one another: covariances between (situation, method) pairs, and targets in points."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from peftselect.features import Cell, Observation
    from peftselect.predictor.settings import Settings

Pair = "tuple[Cell, str]"
#: distances beyond this many points count as this many: a collapsed run says "bad", not how bad
CLIP_POINTS = 12.0
#: a comparison's level is its own affair: so much variance that nothing is learned from it
CELL_VARIANCE = 100.0
#: the targets' standard deviation in the units of the settings
UNIT = 3.0
#: mean distance from the median in units (of a normal variable, 0.8 standard deviations)
MEAN_DISTANCE = 0.8 * UNIT
#: the parts of a situation that two pairs may have in common
PARTS = ("task", "family", "regime", "source", "kind", "cell")
#: comparisons which those of a task or a family must outweigh
PRIOR_SPREADS = 3.0


def situation(cell: Cell) -> dict[str, Hashable]:
    """The parts of a situation that covariances look at."""
    return {
        "task": cell.task,
        "family": cell.family,
        "regime": cell.regime,
        "source": cell.source,
        "kind": (cell.task, cell.model_type),
        "cell": cell,
    }


class Side:
    """Pairs on one side of a covariance: their situations and methods as numbers, counted once."""

    def __init__(self, of: Sequence[tuple[Cell, str]]) -> None:
        import numpy as np

        self.situations = [situation(cell) for cell, _ in of]
        self.methods = sorted({method for _, method in of})
        places = {name: index for index, name in enumerate(self.methods)}
        self.method_at = np.array([places[method] for _, method in of], dtype=int)
        self.places: dict[str, dict[Hashable, int]] = {}
        self.codes: dict[str, Any] = {}
        for name in PARTS:
            known: dict[Hashable, int] = {}
            self.codes[name] = np.array([known.setdefault(item[name], len(known)) for item in self.situations])
            self.places[name] = known

    def codes_in(self, other: Side, name: str) -> Any:
        """The numbers that ``other`` has for this side's situations, -1 for those that it has not."""
        import numpy as np

        if other is self:
            return self.codes[name]
        return np.array([other.places[name].get(item[name], -1) for item in self.situations])


class Kernel:
    """Covariances between pairs; ``traits`` are the structural traits of each method by name."""

    def __init__(self, settings: Settings, traits: Mapping[str, frozenset[str]]) -> None:
        self.settings = settings
        self.traits = traits

    def parts(
        self, left: Sequence[tuple[Cell, str]] | Side, right: Sequence[tuple[Cell, str]] | Side
    ) -> dict[str, Any]:
        """Boolean and similarity matrices (len(left), len(right)), from which :meth:`mix` makes covariances."""
        import numpy as np

        same = left is right
        left = left if isinstance(left, Side) else Side(left)
        right = left if same else right if isinstance(right, Side) else Side(right)
        found: dict[str, Any] = {
            name: left.codes_in(right, name)[:, None] == right.codes[name][None, :] for name in PARTS
        }
        theirs = {name: index for index, name in enumerate(right.methods)}
        renamed = np.array([theirs.get(name, -1) for name in left.methods], dtype=int)
        found["method"] = renamed[left.method_at][:, None] == right.method_at[None, :]
        like = self.likeness(left.methods, right.methods)
        found["structure"] = like[np.ix_(left.method_at, right.method_at)]
        return found

    def likeness(self, ones: Sequence[str], others: Sequence[str]) -> Any:
        """Share of the structural traits that methods have in common, (len(ones), len(others)): Jaccard; 1 for a method
        and itself, 0 where nothing is known of one."""
        import numpy as np

        every = sorted({*ones, *others})
        known = sorted({trait for name in every for trait in self.traits.get(name, ())})
        places = {trait: index for index, trait in enumerate(known)}
        has = np.zeros((len(every), len(places)))
        for row, name in enumerate(every):
            has[row, [places[trait] for trait in self.traits.get(name, ())]] = 1.0
        row_of = {name: index for index, name in enumerate(every)}
        left, right = ([row_of[name] for name in names] for names in (ones, others))
        common = has[left] @ has[right].T
        either = has[left].sum(1)[:, None] + has[right].sum(1)[None, :] - common
        found = common / np.maximum(either, 1.0)
        found[np.array(left)[:, None] == np.array(right)[None, :]] = 1.0
        return found

    def mix(self, parts: Mapping[str, Any], *, source: bool = True, cell: bool = True) -> Any:
        """The covariance of the parts, with or without what a source and a comparison have to themselves."""
        use = self.settings
        own = use.method + use.task * parts["task"] + use.regime * parts["regime"] + use.kind * parts["kind"]
        if source:
            own = own + use.source * parts["source"]
        shared = use.structure + use.structure_family * parts["family"]
        total = own * parts["method"] + shared * parts["structure"]
        return total + CELL_VARIANCE * parts["cell"] if cell else total

    @property
    def prior(self) -> float:
        """Variance of what a method is worth in a situation before any record."""
        use = self.settings
        return use.method + use.task + use.regime + use.kind + use.structure + use.structure_family


def targets(learned: Sequence[Observation], rank_share: float) -> Any:
    """What is learned, in units.

    A mixture of a method's clipped distance from its comparison's best and of its place in it, both brought to one
    scale. Places keep a single data set with large differences from deciding everything; distances tell a tie from a
    defeat.
    """
    import numpy as np

    cells: dict[Cell, list[float]] = {}
    for item in learned:
        cells.setdefault(item.cell, []).append(item.difference)
    distance = np.array([max(item.difference - max(cells[item.cell]), -CLIP_POINTS) for item in learned])
    place = np.array(
        [-sum(other > item.difference for other in cells[item.cell]) / len(cells[item.cell]) for item in learned]
    )
    points = float(distance.std()) or 1.0
    mixed = (1 - rank_share) * distance / points + rank_share * place / (float(place.std()) or 1.0)
    deviation = float(mixed.std()) or 1.0
    return UNIT * mixed / deviation


class Scale:
    """How many points one unit is in a situation: methods lie closer together on some tasks than on others.

    The spread of a comparison is the mean distance of its methods from its median, clipped. A situation's is the mean
    of the logarithms over comparisons of its task, shrunk towards those of its family, and these towards all.
    """

    def __init__(self, learned: Sequence[Observation]) -> None:
        cells: dict[Cell, list[float]] = {}
        for item in learned:
            cells.setdefault(item.cell, []).append(max(min(abs(item.difference), CLIP_POINTS), 0.05))
        spreads = {cell: math.log(sum(values) / len(values)) for cell, values in cells.items()}
        self._all = sum(spreads.values()) / max(len(spreads), 1)
        self._sums: dict[tuple[str, str], tuple[float, int]] = {}
        for cell, spread in spreads.items():
            for key in {("family", cell.family), ("task", cell.task)}:
                total, count = self._sums.get(key, (0.0, 0))
                self._sums[key] = (total + spread, count + 1)

    def points(self, cell: Cell) -> float:
        """Points of one unit."""
        found = self._all
        for key in (("family", cell.family), ("task", cell.task)):
            total, count = self._sums.get(key, (0.0, 0))
            found = (total + PRIOR_SPREADS * found) / (count + PRIOR_SPREADS)
        return math.exp(found) / MEAN_DISTANCE


def noise(learned: Sequence[Observation], variance: float) -> Any:
    """Noise by observation, in units: ``variance`` of any comparison, and the error that is known of this one. Several
    metrics of the same runs are one piece of evidence, not several."""
    import numpy as np

    share = shares(item.cell for item in learned)
    return (variance + errors(learned)) / np.array([share[item.cell] for item in learned])


def errors(learned: Sequence[Observation]) -> Any:
    """The variance of each value that is known of, in units: few test rows, runs that scatter."""
    import numpy as np

    scale = Scale(learned)
    return np.array([item.error / scale.points(item.cell) ** 2 for item in learned])


def shares(cells: Iterable[Cell]) -> dict[Cell, float]:
    """What each comparison counts, where several metrics of the same runs together count once."""
    distinct = list(dict.fromkeys(cells))
    metrics = Counter(map(data_set, distinct))
    return {cell: 1.0 / metrics[data_set(cell)] for cell in distinct}


def data_set(cell: Cell) -> tuple[str, ...]:
    """What the metrics of the same runs have in common."""
    return (cell.source, cell.model, cell.task, cell.dataset, cell.regime)
