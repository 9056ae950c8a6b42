"""How much the selector loses against each comparison's best method, held out by table, data set and model.

    python -m peftselect.benchmarks.selector_regret

The yardstick of `peftselect predictor evaluate` on the thesis's tables, with a row for each family of tasks and each
metric, and the paired difference to always choosing LoRA with the 95 % interval of resampled tables. Everything that is
chosen (settings, widths of intervals, the weight of the rules) is chosen anew without the group that is held out.
"""

from __future__ import annotations

from collections.abc import Iterator

from peftselect.plugin_manager import host
from peftselect.predictor.assessment import HELD_OUT, STRATEGIES, Assessment, mean, p90
from peftselect.results import shipped_records
from peftselect.selector.evidence import evaluate

SHOWN = ("always_lora", "predictor", "combined")


def main() -> None:
    """Print one block a way of holding out."""
    records = shipped_records(host())
    for held_out in HELD_OUT:
        for line in report(evaluate(records, host(), held_out)):
            print(line)


def report(found: Assessment) -> Iterator[str]:
    """The lines about one way of holding out."""
    yield f"held out by {found.held_out}: {len(found.judged)} comparisons; regret in points, mean and 90th percentile"
    for name in STRATEGIES:
        lost = found.regret(name)
        yield f"  {name:<18}{mean(lost):6.2f}{p90(lost):7.2f}"
    for name in ("predictor", "combined"):
        gained, low, high = found.gain(by=name)
        yield f"  {name} loses {gained:+.2f} points less than always LoRA ({low:+.2f} to {high:+.2f})"
    inside = ", ".join(f"{level} %: {share:.2f}" for level, share in found.coverage().items())
    yield f"  rank correlation {found.spearman():.2f}; intervals hold {inside}"
    yield f"  {'by family and metric':<34}{'cells':>6}" + "".join(f"{name:>13}" for name in SHOWN)
    families = sorted({item.family for item in found.judged.values()})
    metrics = sorted({key.metric for key in found.judged})
    rows = [(name, lambda _, item, name=name: item.family == name) for name in families]
    rows += [(name, lambda key, _, name=name: key.metric == name) for name in metrics]
    for name, where in rows:
        lost = [found.regret(strategy, where) for strategy in SHOWN]
        yield f"  {name:<34}{len(lost[0]):>6}" + "".join(f"{mean(values):>13.2f}" for values in lost)


if __name__ == "__main__":
    main()
