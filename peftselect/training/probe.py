"""A probe, settled before torch is loaded: which candidates are tried briefly, for how long, and what came of it."""

from __future__ import annotations

import contextlib
import math
import statistics
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from peftselect.errors import InputError, UnsupportedError
from peftselect.features import method_traits
from peftselect.method import Recipe
from peftselect.question import under
from peftselect.selector.command import run_command
from peftselect.training.halving import Budget, Outcome, alive, each, outcome_of, parse_budget
from peftselect.training.stage_plan import check_stages

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from peftselect.selector import RankedCandidate
    from peftselect.training.plan import RunPlan

#: times the proposed learning rate that are tried, where methods compete and where one is given
RATES, RATES_ALONE = (1.0, 3.0), (1.0, 3.0, 1 / 3)
#: the most methods that compete
MOST_METHODS = 3
#: methods whose structures differ in less than this many traits are siblings: the first speaks for both
FEWEST_DIFFERENCES = 3
#: a candidate's least part of the first round; in fewer steps chance decides (benchmarks/README.md), and a smaller
#: budget has fewer candidates
LEAST_STEPS, LEAST_SECONDS = 16, 30.0


@dataclass(frozen=True)
class Probe:
    """The candidates (``arms``, in the order of the recommendation) and the budget."""

    budget: Budget
    arms: tuple[RankedCandidate, ...]
    outcome: Outcome = field(default_factory=Outcome)

    @property
    def rounds(self) -> int:
        """How often the field is halved."""
        return len(alive(len(self.arms)))

    def to_json(self, *, higher_is_better: bool = True) -> dict[str, Any]:
        """What records and ``--json`` say of it."""
        done = self.outcome
        spent = done.steps
        found: dict[str, Any] = {
            "budget": self.budget.text,
            "candidates": [_named(item) for item in self.arms],
            "higher_is_better": higher_is_better,
        }
        if not done.finished:
            return {**found, "rounds_planned": [list(pair) for pair in self.planned_steps()]}
        return {
            **found,
            "rounds": [
                [{**_named(self.arms[item.arm]), **asdict(item), "seconds": round(item.seconds, 3)} for item in row]
                for row in done.rounds
            ],
            "winner": None if done.winner is None else _named(self.arms[done.winner]),
            "steps": sum(spent.values()),
            "extra_steps": sum(step for arm, step in spent.items() if arm != done.winner),
            "seconds": round(done.seconds, 3),
        }  # fmt: skip

    def planned_steps(self) -> Iterator[tuple[int, int | None]]:
        """(candidates, optimizer steps that each takes) of every round; None where seconds decide."""
        numbers = alive(len(self.arms))
        for number in numbers:
            yield number, None if self.budget.steps is None else each(self.budget.steps, len(numbers), number)


def plan_probe(plan: RunPlan, text: str) -> Probe:
    """The candidates of a run and their budget; an error where there is nothing to choose from."""
    budget = parse_budget(text)
    if plan.chosen.candidate.method.kind == "baseline":
        raise UnsupportedError(f"{plan.chosen.candidate.method.title} trains nothing", "leave out --probe")
    if any(item.place == "before" for item in plan.stages):
        raise UnsupportedError(
            "--probe does not go with --before: each candidate would change the base anew",
            "probe without it, then give --method and --set learning_rate",
        )
    arms: list[RankedCandidate] = []
    for arms in _fields(plan):  # the smallest stays where the budget is too small for any
        if _is_enough(budget, len(arms)):
            break
    if len(arms) < 2:
        raise InputError("--probe has nothing to choose from", "leave out --method or --set learning_rate")
    return Probe(budget, tuple(arms))


def _fields(plan: RunPlan) -> Iterator[list[RankedCandidate]]:
    """Who may compete, the largest field first: methods at several rates, then methods as they are proposed."""
    ranked = _different(plan)
    if len(ranked) == 1:
        arms = list(_at_rates(plan, ranked[0], RATES_ALONE))
        yield arms
        yield arms[:2]
        return
    for rates in (RATES, RATES[:1]):
        for methods in range(len(ranked), 1, -1):
            yield [arm for item in ranked[:methods] for arm in _at_rates(plan, item, rates)]


def _different(plan: RunPlan) -> list[RankedCandidate]:
    """The best methods that are no siblings of one another and can be run with the stages that were asked for."""
    found = [plan.chosen]
    for item in plan.runners_up if plan.recommended else ():
        traits = method_traits(item.candidate.method)
        if any(len(traits ^ method_traits(one.candidate.method)) < FEWEST_DIFFERENCES for one in found):
            continue
        with contextlib.suppress(UnsupportedError):
            check_stages(plan.stages, under(plan.problem, item.candidate.method).shape, item.candidate)
            found.append(item)
        if len(found) == MOST_METHODS:
            break
    return found


def _is_enough(budget: Budget, number: int) -> bool:
    """Whether each candidate's part of the first round says something."""
    rounds = max(len(alive(number)), 1)
    if budget.steps is not None:
        return budget.steps // rounds // number >= LEAST_STEPS
    return (budget.seconds or 0.0) / rounds / number >= LEAST_SECONDS


def _at_rates(plan: RunPlan, item: RankedCandidate, rates: Sequence[float]) -> Iterator[RankedCandidate]:
    candidate, problem = item.candidate, under(plan.problem, item.candidate.method)
    shape = problem.shape
    rate = candidate.recipe.learning_rate
    setting = next(one for one in candidate.method.hyperparameters(shape) if one.name == "learning_rate")
    fixed = candidate.set_by.get("learning_rate") == "you"
    for times in (1.0,) if fixed else rates:
        if times == 1.0:
            yield item
            continue
        other = float(f"{rate * times:.3g}")
        try:
            setting.parse(other)
        except InputError:
            continue
        changed = replace(
            candidate,
            values={**candidate.values, "learning_rate": other},
            recipe=replace(candidate.recipe, learning_rate=other),
            set_by={**candidate.set_by, "learning_rate": "the probe"},
        )
        command = run_command(problem, changed, plan.order.train, plan.order.columns)
        yield replace(item, candidate=changed, command=command)


def with_candidate(plan: RunPlan, arm: RankedCandidate) -> RunPlan:
    """The plan with this candidate, which may want another head."""
    return replace(plan, chosen=arm, problem=under(plan.problem, arm.candidate.method))


def loss_compares(plan: RunPlan, arm: RankedCandidate) -> bool:
    """Whether an arm has the plan's head: another's loss (words in place of labels) is no measure of this one's."""
    return under(plan.problem, arm.candidate.method).shape.head == plan.problem.shape.head


def title(arm: RankedCandidate) -> str:
    """An arm in words."""
    return f"{arm.candidate.method.title} at {arm.candidate.recipe.learning_rate:.3g}"


def verdict(settled: Probe) -> str:
    """One sentence on what came of a probe."""
    done = settled.outcome
    spent = f"{sum(done.steps.values()):,} steps, {done.seconds:,.0f} s"
    if done.winner is None:
        return f"probe ({spent}): none of {len(settled.arms)} candidates could be trained"
    chosen, step = title(settled.arms[done.winner]), done.steps[done.winner]
    return f"probe ({spent}): of {len(settled.arms)} candidates {chosen} goes on from its step {step:,}"


def price(plan: RunPlan) -> tuple[int | None, float | None]:
    """(optimizer steps, predicted seconds) of the whole probe, its loading and scoring left out; None if unknown."""
    assert plan.probe is not None  # asked for
    budget = plan.probe.budget
    if budget.steps is None:
        return None, budget.seconds
    steps = sum(number * (one or 0) for number, one in plan.probe.planned_steps())
    step_seconds = []
    for arm in plan.probe.arms:
        recipe = arm.candidate.recipe
        batch = recipe.micro_batch_size * recipe.gradient_accumulation_steps
        whole = recipe.num_train_epochs * math.ceil(len(plan.splits.train) / batch)
        if arm.train_seconds is None:
            return steps, None
        step_seconds.append(arm.train_seconds.value / whole)
    return steps, steps * statistics.fmean(step_seconds)


def _named(arm: RankedCandidate) -> dict[str, Any]:
    return {"method": arm.method, "learning_rate": arm.candidate.recipe.learning_rate}


def state(probe: Probe) -> dict[str, Any]:
    """What a later sitting needs: the arms' candidates and what came of them."""
    arms = [
        {
            "method": item.method,
            "values": dict(item.candidate.values),
            "recipe": asdict(item.candidate.recipe),
            "set_by": dict(item.candidate.set_by),
        }
        for item in probe.arms
    ]
    return {"budget": asdict(probe.budget), "arms": arms, "outcome": asdict(probe.outcome)}


def restored(document: Mapping[str, Any], ranked: Mapping[str, RankedCandidate]) -> Probe:
    """The probe of :func:`state`; ``ranked`` has the candidates that the same question gives now, by method."""
    arms = []
    for known in document["arms"]:
        item = ranked[known["method"]]
        values = {name: tuple(one) if isinstance(one, list) else one for name, one in known["values"].items()}
        candidate = replace(item.candidate, values=values, recipe=Recipe(**known["recipe"]), set_by=known["set_by"])
        arms.append(replace(item, candidate=candidate))
    return Probe(Budget(**document["budget"]), tuple(arms), outcome_of(document["outcome"]))
