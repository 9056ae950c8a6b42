"""The way into a run: the output folder first, torch after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftselect.training.output import staging

if TYPE_CHECKING:
    from peftselect.training.job import RunResult
    from peftselect.training.plan import RunPlan
    from peftselect.training.progress import Observer


def start(plan: RunPlan, observer: Observer | None = None) -> RunResult:
    """Run ``plan``: its output folder appears whole at the end, or not at all.

    The folder is tried before the libraries are loaded, so that one which cannot be written costs no waiting.
    """
    from peftselect.training.progress import Silent, hush

    told = observer or Silent()
    with staging(plan.output, plan.overwrite) as draft:
        told.stage("loading torch, transformers and peft")
        hush()
        from peftselect.training.job import train

        return train(plan, draft, told)
