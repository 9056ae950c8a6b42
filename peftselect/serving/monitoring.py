"""Whether what comes in now is still what a run was scored on, and whether it still answers as well.

Reference is what the run left behind: the rows it was scored on, and what it predicted there. Inputs are compared by
length (Kolmogorov-Smirnov) and by words (a classifier told to tell old from new; Lopez-Paz and Oquab 2017), predicted
labels by a chi-squared test, scores by bootstrap.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from peftselect.columns import choose_columns
from peftselect.data import raw_rows, read_rows
from peftselect.errors import DataError
from peftselect.serving.comparing import Run, read_run
from peftselect.serving.inputs import make_rows
from peftselect.serving.intervals import LEVEL, Bootstrap

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from peftselect.serving.saved import Saved
    from peftselect.task import Row

Verdict = Literal["fine", "look", "retrain"]
#: chance that a test calls out though nothing has changed, shared among the tests
SIGNIFICANCE = 0.01
#: smallest change that matters, however sure it is: of the two distributions' distance, of telling right (0.5 is luck)
LEAST_DISTANCE, LEAST_TOLD = 0.1, 0.6
#: rows of each side that are compared, and the fewest that say anything
MOST_ROWS, FEWEST_ROWS = 2000, 20
FOLDS = 5


@dataclass(frozen=True)
class Check:
    """One comparison of now with then: what, how far apart, how likely by chance (None: not a test), and a sentence."""

    name: str
    distance: float
    p_value: float | None
    changed: bool
    text: str


@dataclass(frozen=True)
class Monitored:
    """What was found: "fine", "look" (other inputs or answers than then) or "retrain" (worse answers than then)."""

    verdict: Verdict
    because: str
    rows: int
    checks: tuple[Check, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"schema": 1, **asdict(self), "checks": [asdict(check) for check in self.checks]}


def monitor(saved: Saved, data: str | Path, columns: Mapping[str, str]) -> Monitored:
    """Hold the rows of ``data`` against the run of ``saved``; where they have answers the model is loaded and scored.

    DataError where there are too few rows to say anything.
    """
    run = read_run(saved.folder)
    raw = _asked_of(saved.name, [document for _, document in raw_rows(data, "test")])
    if min(len(raw), len(run.lines)) < FEWEST_ROWS:
        few = f"{data} holds {len(raw)} rows, the run was scored on {len(run.lines)}"
        raise DataError(f"{few}: too few to compare", f"{FEWEST_ROWS} of each say something")
    labelled = _has_answers(run, raw[0], columns)
    if labelled:
        rows = read_rows(data, run.task, columns, split="test", labels=saved.labels)
    else:
        rows = make_rows(((f"{data}:{at}", item) for at, item in enumerate(raw, 1)), run.task, columns, str(data))
    then = [" ".join(line["input"]) for line in run.lines]
    now = [" ".join(run.task.input_texts(row)) for row in rows]
    checks = [_lengths(then, now), _words(then, now)]
    predicted = [item["prediction"] for item in raw if "prediction" in item]
    if labelled:
        predicted, score = _score(run, saved, rows)
        checks.append(score)
    if labels := _label_shares(run, predicted):
        checks.append(labels)
    return _verdict(checks, len(rows))


def _asked_of(name: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of one adapter, where a server's log holds questions to several."""
    several = len({row.get("adapter") for row in rows}) > 1
    return [row for row in rows if row.get("adapter") == name] if several else rows


def _verdict(checks: Sequence[Check], rows: int) -> Monitored:
    changed = [check for check in checks if check.changed]
    worse = [check for check in changed if check.name == "score"]
    if worse:
        return Monitored("retrain", worse[0].text, rows, tuple(checks))
    if changed:
        return Monitored("look", "; ".join(check.text for check in changed), rows, tuple(checks))
    return Monitored("fine", "nothing has changed beyond chance", rows, tuple(checks))


def _has_answers(run: Run, first: Mapping[str, Any], columns: Mapping[str, str]) -> bool:
    try:
        choose_columns("the data", run.task, list(first), columns)
    except DataError:
        return False
    return any(column.is_answer and column.required for column in run.task.columns)


def _lengths(then: Sequence[str], now: Sequence[str]) -> Check:
    from scipy.stats import ks_2samp

    old, new = ([len(text) for text in texts] for texts in (then, now))
    found = ks_2samp(old, new)
    changed = found.pvalue < SIGNIFICANCE / 2 and found.statistic >= LEAST_DISTANCE
    text = f"inputs have {np.median(new):,.0f} characters in the median, then {np.median(old):,.0f}"
    return Check("length", float(found.statistic), float(found.pvalue), bool(changed), text)


def _words(then: Sequence[str], now: Sequence[str]) -> Check:
    """How well a linear classifier tells new inputs from old ones; 0.5 is luck."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline

    number = min(len(then), len(now), MOST_ROWS)
    draw = np.random.default_rng(0)
    texts = [str(text) for side in (then, now) for text in draw.permutation(np.array(side, dtype=object))[:number]]
    sides = np.repeat([0, 1], number)
    model = make_pipeline(TfidfVectorizer(token_pattern=r"\S+"), LogisticRegression(max_iter=200))
    told = float((cross_val_predict(model, texts, sides, cv=FOLDS) == sides).mean())
    # under no change the share told right is normal around a half, with variance 1/(4n)
    p_value = 0.5 * math.erfc((told - 0.5) * math.sqrt(4 * len(texts)) / math.sqrt(2))
    changed = p_value < SIGNIFICANCE / 2 and told >= LEAST_TOLD
    text = f"{told:.0%} of the inputs are told from those of then by their words (50 % is luck)"
    return Check("words", told, p_value, changed, text)


def _label_shares(run: Run, predicted: Sequence[Any]) -> Check | None:
    """Shares of the predicted labels, where predictions are labels."""
    if run.task.family != "classification" or len(predicted) < FEWEST_ROWS or not isinstance(predicted[0], str):
        return None
    from scipy.stats import chi2_contingency

    old, new = Counter(line["prediction"] for line in run.lines), Counter(predicted)
    names = sorted({*old, *new})
    shares = [(name, old[name] / old.total(), new[name] / new.total()) for name in names]
    name, before, after = max(shares, key=lambda item: abs(item[2] - item[1]))
    distance = sum(abs(after - before) for _, before, after in shares) / 2
    table = [[side[name] for name in names] for side in (old, new)]
    p_value = float(chi2_contingency(table)[1]) if len(names) > 1 else 1.0
    changed = p_value < SIGNIFICANCE and distance >= LEAST_DISTANCE
    return Check("predictions", distance, p_value, changed, f"{name} is predicted for {after:.0%}, then {before:.0%}")


def _score(run: Run, saved: Saved, rows: Sequence[Row]) -> tuple[list[Any], Check]:
    """The score now against the score then: worse where all of the difference's interval is on the bad side."""
    from peftselect.serving.loaded import load

    metric, sign = run.task.metric, 1 if run.task.higher_is_better else -1
    predictions = load(saved).evaluate(rows).predictions
    now, then = Bootstrap(run.task, rows, [predictions], seed=1), run.bootstrap()
    fresh, old = now.drawn(0, metric), then.drawn(0, metric)
    number = min(len(fresh), len(old))
    differences = sign * (fresh[:number] - old[:number])
    high = float(np.quantile(differences, (1 + LEVEL) / 2))
    change = now.scores[0][metric] - then.scores[0][metric]
    text = f"{metric} is {now.scores[0][metric]:.4f}, then {then.scores[0][metric]:.4f}"
    return predictions, Check("score", change, None, high < 0, text)
