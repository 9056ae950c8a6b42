"""The way into a run: the output folder first, torch after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftselect.training.interrupts import listening
from peftselect.training.output import staging
from peftselect.training.unfinished import saving, write_order

if TYPE_CHECKING:
    from peftselect.training.job import RunResult
    from peftselect.training.plan import RunPlan
    from peftselect.training.progress import Observer


def start(plan: RunPlan, observer: Observer | None = None) -> RunResult:
    """Run ``plan``: its output folder appears whole at the end, or not at all.

    The folder is tried before the libraries are loaded, so that one which cannot be written costs no waiting. Ctrl-C
    and SIGTERM while training save what a later sitting goes on from; then Interrupted is raised.
    """
    from peftselect.training.progress import Silent, hush

    told = observer or Silent()
    with listening() as stopper, staging(plan.output, plan.overwrite, resumed=plan.resumed) as work:
        told.stage("loading torch, transformers and peft")
        with saving(work):
            write_order(work, plan.order, plan.chosen.candidate, plan.splits, recommended=plan.recommended)
        hush()
        from peftselect.training.job import train

        return train(plan, work, told, stopper)
