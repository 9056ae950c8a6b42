"""How much the first predictor loses against each comparison's best method, held out by table, data set and model.

    python -m peftselect.benchmarks.selector_regret

Learns from the shipped records. Losses are points (fractions times 100), averaged over the comparisons of at least
four methods; always choosing LoRA and choosing at random stand beside it. Coverage is the share of true distances
inside the 80 % interval. The predictor's shrinkage was chosen on the same tables, so these figures flatter it a little.
"""

from __future__ import annotations

from collections.abc import Callable

from peftselect.features import Cell, observations
from peftselect.plugin_manager import host
from peftselect.predictor import held_out, regret
from peftselect.results import shipped_records

GROUPS: dict[str, Callable[[Cell], str]] = {
    "table": lambda cell: cell.source,
    "data set": lambda cell: cell.dataset,
    "model": lambda cell: cell.model,
}


def main() -> None:
    """Print one line a way of holding out."""
    learned = observations(shipped_records(host()))
    print(f"{len({item.cell for item in learned})} comparisons, {len(learned)} methods in them")
    print(f"{'held out by':<12}{'predictor':>10}{'LoRA':>8}{'random':>8}{'coverage of 80 %':>18}")
    for name, group in GROUPS.items():
        lost = regret(learned, group)
        pairs = [item for methods in held_out(learned, group).values() for item in methods.values()]
        inside = sum(abs(truth - predicted) <= half for predicted, half, truth in pairs) / len(pairs)
        figures = f"{lost['predictor']:>10.2f}{lost['always_lora']:>8.2f}{lost['random']:>8.2f}{inside:>18.2f}"
        print(f"{name:<12}{figures}")


if __name__ == "__main__":
    main()
