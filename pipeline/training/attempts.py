"""What an attempt at a run is made with: recorded in the history, refused where it would drift."""

from pipeline.errors import InputError
from pipeline.runs.execution import Attempt, Execution
from pipeline.runs.history import History
from pipeline.runs.provenance import drift, drift_text
from pipeline.runs.run import Run
from pipeline.training.step.process_group import ProcessGroup

GATHERED = ("hardware", "device", "gpu_driver")
"""What may differ between the nodes of one attempt."""


def record_attempt(
    run: Run,
    history: History,
    process_group: ProcessGroup,
    execution: Execution,
    attempt: Attempt,
) -> None:
    """Add this attempt to the history; every rank refuses one that would drift on any rank.

    Raises:
        InputError: something differs from the attempt before, and that is not allowed.
    """
    made_with = dict(attempt.provenance)
    # Workers may sit on different hardware: all of it is named, each kind once.
    for name in GATHERED:
        kinds = process_group.gather_text(str(made_with.get(name, "")))
        if any(kinds):
            made_with[name] = " + ".join(dict.fromkeys(kinds))

    differing = drift(history.attempts[-1], made_with) if history.attempts else {}
    # What one rank is refused for must stop all, or the others would wait for it in an exchange.
    everywhere = [text for text in process_group.gather_text(drift_text(differing)) if text]
    if everywhere and not execution.allow_drift:
        raise InputError(
            f"{run}: iteration {history.iteration:,} was made with other software or hardware "
            f"({everywhere[0]}); "
            "continue it there, or allow what may change its bytes with --allow-drift, which marks "
            "the run"
        )

    made_with |= {"from_iteration": history.iteration, "world_size": process_group.world_size}
    if execution.one_pass:
        made_with["one_pass"] = True
    if execution.compiled:
        made_with["compiled"] = True
    if everywhere:
        made_with["drift"] = everywhere[0]
    history.attempts.append(made_with)


def record_capture(history: History, captured: bool) -> None:
    """Note whether this attempt replays CUDA graphs; where there is none, nothing is noted.

    An attempt is recorded, or refused, before its iteration is captured, which takes seconds.
    """
    if captured:
        history.attempts[-1]["captured"] = True
