"""How much the selector loses against each comparison's best method, held out by table, data set, model and method.

    python -m peftselect.benchmarks.selector_regret [WAY ...] [--without WORDS]

What `peftselect predictor evaluate --held-out WAY` prints, for every way, with a row for each metric as well. All that
is chosen (settings, widths of intervals, the weight of the rules, the caution) is chosen anew without what is held out.
``--without "suite minilm"`` leaves out the records whose source has these words: what they are worth.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from peftselect.plugin_manager import host
from peftselect.predictor.assessment import WAYS, Assessment, p90
from peftselect.predictor.judging import STRATEGIES, mean
from peftselect.results import shipped_records
from peftselect.selector.evidence import evaluate

SHOWN = ("always_lora", "predictor", "combined")


def main() -> None:
    """Print one block a way of holding out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("ways", nargs="*", metavar="WAY", help=f"any of: {', '.join(WAYS)}")
    parser.add_argument("--without", metavar="WORDS", help="leave out the records whose source has these words")
    asked = parser.parse_args()
    if unknown := set(asked.ways) - set(WAYS):
        parser.error(f"not a way of holding out: {', '.join(sorted(unknown))}")
    left_out = asked.without
    records = [item for item in shipped_records(host()) if not left_out or left_out not in item.source]
    for held_out in asked.ways or WAYS:
        for line in report(evaluate(records, host(), held_out)):
            print(line, flush=True)


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
    yield f"  rank correlation {found.spearman():.2f}; intervals hold {inside}; width {found.width():.1f} points"
    yield f"  {'by family and metric':<34}{'cells':>6}" + "".join(f"{name:>13}" for name in SHOWN)
    for part in found.parts():
        yield _row(f"{part.of}: {part.name}", part.cells, [part.regret[name] for name in SHOWN])
    for metric in sorted({key.metric for key in found.judged}):
        lost_by = [found.regret(way, lambda key, _, metric=metric: key.metric == metric) for way in SHOWN]
        yield _row(metric, len(lost_by[0]), [mean(values) for values in lost_by])


def _row(name: str, cells: int, values: list[float]) -> str:
    return f"  {name:<34}{cells:>6}" + "".join(f"{value:>13.2f}" for value in values)


if __name__ == "__main__":
    main()
