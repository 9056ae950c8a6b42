"""What rules a method out before or after it is priced, each with a sentence and the cheapest way round."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftselect.selector.answer import Excluded, FailedConstraint
from peftselect.words import article

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from peftselect.method import Method
    from peftselect.problem import Problem

_MUSTS = {
    "merge": ("mergeable", "cannot be merged into the base weights"),
    "multi-adapter": ("multi_adapter", "cannot hold several adapters on one base model"),
}


def cannot_serve(problem: Problem, method: Method) -> list[FailedConstraint]:
    """Head and architecture: while one of these fails nothing else can be asked of the method."""
    failed = []
    head, architecture = problem.shape.head.kind, problem.shape.architecture
    if head not in method.heads:
        able = ", ".join(sorted(method.heads))
        failed.append(FailedConstraint("head", f"it does not serve {article(_words(head))} head (only {_words(able)})"))
    if architecture not in method.architectures:
        able = ", ".join(sorted(method.architectures))
        failed.append(FailedConstraint("architecture", f"it does not work on {architecture} models (only {able})"))
    return failed


def unmet_needs(
    problem: Problem, method: Method, values: Mapping[str, Any], twin: str | None
) -> list[FailedConstraint]:
    """What the method cannot do on this model, and which hard needs it does not meet."""
    failed = []
    if why := method.unsupported(problem.shape, values):
        failed.append(FailedConstraint("unsupported", why.rstrip(".")))
    must = problem.priorities.must
    for need, (attribute, sentence) in _MUSTS.items():
        if need in must and not getattr(method, attribute):
            failed.append(FailedConstraint(need, f"it {sentence}"))  # type: ignore[arg-type]
    quantized = "quantized-base" in must or problem.quantization in ("int8", "nf4")
    if quantized and "merge" in must and method.mergeable:
        failed.append(FailedConstraint("merge", "merged into a quantised base it loses to rounding what it has learnt"))
    if quantized and method.quantized_base == "no":
        failed.append(FailedConstraint("quantized-base", "it does not work on a quantised base model"))
    elif quantized and twin:
        failed.append(FailedConstraint("quantized-base", f"on a quantised base it is {twin}, offered under that name"))
    elif problem.quantization == "none" and method.quantized_base == "required":
        failed.append(FailedConstraint("quantized-base", "it needs a quantised base model, which you ruled out"))
    return failed


def unjudged(method: Method) -> Excluded:
    """What is said of a method that nothing is known about here."""
    why = "neither the thesis nor a record says how it compares"
    return Excluded(method.name, "evidence", why, f"--method {method.name}")


def twin_on_quantized_base(method: Method, methods: Iterable[Method]) -> str | None:
    """Name of the method that is this one on a quantised base, if one is registered (QLoRA for LoRA)."""
    for other in methods:
        if other.records_like == method.name and other.quantized_base == "required":
            return other.name
    return None


def cheapest_change(constraint: str, method: Method, problem: Problem) -> str | None:
    """What the user would have to give up for a need that is not about memory or time; None where nothing helps."""
    if constraint in _MUSTS:
        return f"drop --must {constraint}"
    if constraint == "quantized-base":
        if problem.quantization == "none":
            return "leave out --quantization none"
        return None if method.quantized_base != "no" else "hold the base in bf16: drop the need for a quantised base"
    if constraint == "architecture":
        return f"take a base model of this kind: {', '.join(sorted(method.architectures))}"
    return None


def exclude(method: Method, failed: Sequence[FailedConstraint], changes: Mapping[str, str | None]) -> Excluded:
    """The first failed constraint with its cheapest change, the others beside it."""
    first, *others = failed
    return Excluded(method.name, first.constraint, first.because, changes.get(first.constraint), tuple(others))


def _words(name: str) -> str:
    return name.replace("_", " ")
