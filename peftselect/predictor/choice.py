"""The settings are chosen by evidence: whole sources and whole data sets are held out in turn, in one inversion each.

With the inverse Q of the covariance of all observations y, what the others predict of a group g is
y_g - Q_gg^-1 (Q y)_g, with covariance Q_gg^-1 (Rasmussen and Williams 2006, section 5.4.2, for groups).
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect.predictor.kernel import CELL_VARIANCE, CLIP_POINTS, Kernel, Scale, errors, noise, shares, targets
from peftselect.predictor.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from peftselect.features import Cell, Observation

#: what is tried: shares of places in the target, and variances
RANK_SHARES = (0.0, 0.5, 1.0)
METHOD, TASK = (1.0, 4.0), (1.5, 4.0)
REGIME_AND_SOURCE = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5))
#: weights of the rules: always, and in proportion to what records leave open
RULES_WEIGHTS = ((0.0, 0.0), (0.0, 0.5), (0.0, 1.0), (0.25, 0.0), (0.5, 0.0), (0.5, 0.5), (1.0, 0.0))
#: standard deviations of doubt that are taken off what is expected
CAUTIONS = (0.0, 0.25, 0.5, 1.0, 1.5)
#: what is held out in turn to choose by
GROUPS: dict[str, Callable[[Cell], str]] = {"table": lambda cell: cell.source, "data set": lambda cell: cell.dataset}
#: by cell and method: predicted value and the variance of that expectation, in units
Predicted = dict["Cell", dict[str, tuple[float, float]]]
#: points of the rules for a method in a situation, without the rules that rest on the very table: those weighed beside
#: the records, and those that speak of what the predictor does not tell apart, which count in full
RulePoints = Callable[["Cell", str], tuple[float, float]]
LEVELS = (50, 80, 95)
#: units by which a method must look worse to be chosen e times less often
TEMPERATURE = 0.3


def candidates() -> Iterator[Settings]:
    """Every combination that is tried, of one kernel at a time."""
    for method, task, (regime, source) in itertools.product(METHOD, TASK, REGIME_AND_SOURCE):
        for share in RANK_SHARES:
            yield Settings(rank_share=share, method=method, task=task, regime=regime, source=source)


def choose(
    learned: Sequence[Observation], traits: Mapping[str, frozenset[str]], rule_points: RulePoints | None = None
) -> Settings:
    """The settings that lose least with sources and with data sets held out (both count alike), the weight of the rules
    and the caution that then lose least, and the widths of intervals which then hold as often as they say."""
    parts = Kernel(Settings(), traits).parts(pairs(learned), pairs(learned))
    best: tuple[float, Settings] = (float("inf"), Settings())
    inverse, last = None, None
    for settings in candidates():
        kernel = replace(settings, rank_share=0.0)
        if kernel != last:
            inverse, last = inverse_of(learned, traits, settings, parts), kernel
        lost = [expected_regret(learned, left_out(learned, settings, inverse, group)) for group in GROUPS.values()]
        if sum(lost) < best[0]:
            best = (sum(lost), settings)
    chosen = with_widths(learned, traits, best[1], parts)
    if rule_points is None:
        return chosen
    inverse = inverse_of(learned, traits, chosen, parts)
    return with_utility(learned, chosen, Kernel(chosen, traits).prior, inverse, rule_points)


def with_utility(
    learned: Sequence[Observation], settings: Settings, prior: float, inverse: Any, rule_points: RulePoints
) -> Settings:
    """The settings with the weights of the rules and the caution that lose least together; ``prior`` is the variance
    before any record."""
    scale = Scale(learned)
    found = [left_out(learned, settings, inverse, group) for group in GROUPS.values()]

    def lost(tried: tuple[tuple[float, float], float]) -> float:
        (always, left_open), caution = tried

        def points(item: Observation, variance: float) -> float:
            weighed, full = rule_points(item.cell, item.method)
            told = (always + left_open * min(1.0, variance / prior)) * weighed + full
            return told / scale.points(item.cell) - caution * math.sqrt(variance)

        return sum(expected_regret(learned, predicted, points) for predicted in found)

    (always, left_open), caution = min(itertools.product(RULES_WEIGHTS, CAUTIONS), key=lost)
    return replace(settings, rules_weight=always, rules_open=left_open, caution=caution)


def inverse_of(
    learned: Sequence[Observation], traits: Mapping[str, frozenset[str]], settings: Settings, parts: Any
) -> Any:
    """The inverse of the observations' covariance."""
    import numpy as np

    return np.linalg.inv(Kernel(settings, traits).mix(parts) + np.diag(noise(learned, settings.noise)))


def with_widths(
    learned: Sequence[Observation], traits: Mapping[str, frozenset[str]], settings: Settings, parts: Any
) -> Settings:
    """The settings with widths that hold on what is held out, sources and data sets counting alike, and the metrics of
    the same runs as one.

    Distances are clipped as the targets are: short runs that collapse would widen every interval. What chance makes of
    a comparison's own test rows is taken into account, so that small test sets do not widen the intervals of all.
    """
    import numpy as np

    inverse = inverse_of(learned, traits, settings, parts)
    scale = Scale(learned)
    share, alone = shares(item.cell for item in learned), settings.noise + settings.source + errors(learned)
    ratios: list[tuple[float, float]] = []
    for group in GROUPS.values():
        found = differences(left_out(learned, settings, inverse, group), scale)
        for item, scatter in zip(learned, alone.tolist(), strict=True):
            if item.method in found.get(item.cell, {}):
                mean, variance = found[item.cell][item.method]
                deviation = math.sqrt(variance + scatter * scale.points(item.cell) ** 2)
                distance = abs(max(-CLIP_POINTS, min(item.difference, CLIP_POINTS)) - mean)
                ratios.append((distance / deviation, share[item.cell]))
    if not ratios:
        return settings
    away, weights = zip(*ratios, strict=True)
    found_widths = np.quantile(away, np.array(LEVELS) / 100, weights=weights, method="inverted_cdf").round(3).tolist()
    return replace(settings, **{f"width_{level}": width for level, width in zip(LEVELS, found_widths, strict=True)})


def pairs(learned: Sequence[Observation]) -> list[tuple[Cell, str]]:
    """The (situation, method) pair of each observation."""
    return [(item.cell, item.method) for item in learned]


def left_out(
    learned: Sequence[Observation], settings: Settings, inverse: Any, group: Callable[[Cell], str]
) -> Predicted:
    """What is predicted of each group of comparisons from all the others, and the variance of that expectation as
    :meth:`Predictor.estimate` gives it; methods that the others do not have are left out."""
    import numpy as np

    target = targets(learned, settings.rank_share)
    alone = noise(learned, settings.noise) + settings.source + CELL_VARIANCE
    weighted = inverse @ target
    members: dict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(learned):
        members[group(item.cell)].append(index)
    everywhere = Counter(item.method for item in learned)
    found: Predicted = defaultdict(dict)
    for indices in members.values():
        block = np.linalg.inv(inverse[np.ix_(indices, indices)])
        mean = target[indices] - block @ weighted[indices]
        here = Counter(learned[index].method for index in indices)
        for place, index in enumerate(indices):
            item = learned[index]
            if everywhere[item.method] > here[item.method]:
                variance = max(float(block[place, place] - alone[index]), 1e-9)
                found[item.cell][item.method] = (float(mean[place]), variance)
    return found


def differences(predicted: Predicted, scale: Scale) -> dict[Cell, dict[str, tuple[float, float]]]:
    """Distances from the median method of each comparison, and the variances of these expectations, in points."""
    from peftselect.features import median

    found = {}
    for cell, methods in predicted.items():
        middle, points = median([mean for mean, _ in methods.values()]), scale.points(cell)
        found[cell] = {
            name: (points * (mean - middle), points**2 * variance) for name, (mean, variance) in methods.items()
        }
    return found


def expected_regret(
    learned: Sequence[Observation],
    predicted: Predicted,
    rules: Callable[[Observation, float], float] | None = None,
) -> float:
    """Mean loss in points against each comparison's best method; metrics of the same runs count as one comparison.

    Each method is chosen with a probability that falls with its distance from the one that looks best: two that look
    alike count alike, so that chance decides less which settings win. ``rules`` adds units to what is predicted of an
    observation with a variance.
    """
    import numpy as np

    truth: dict[Cell, dict[str, Observation]] = defaultdict(dict)
    for item in learned:
        truth[item.cell][item.method] = item
    share = shares(truth)
    total = 0.0
    for cell, items in truth.items():
        known = predicted.get(cell) or dict.fromkeys(items, (0.0, 0.0))
        looks = np.array([mean + (rules(items[name], var) if rules else 0.0) for name, (mean, var) in known.items()])
        chance = np.exp((looks - looks.max()) / TEMPERATURE)
        gained = chance @ np.array([items[name].difference for name in known]) / chance.sum()
        total += share[cell] * (max(item.difference for item in items.values()) - float(gained))
    return total / (sum(share.values()) or 1.0)
