"""What a run notes at its looks, every 25 iterations, and that older histories can be continued."""

from json import dumps, loads

import torch

from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.metrics import WINDOW
from pipeline.recipe.schedule import CONVERGING_RULE, KEPT_LOOKS, converging_from
from pipeline.runs.history import History
from pipeline.training.measuring.measurements import check_window

EXPERIMENT = EXPERIMENTS["resnet110-nowarmup"]
LEARNING, GUESSING = 2_700, 2_880
"""Wrong predictions among the 3,200 images of a look."""


def looked(history: History, *wrong_counts: int) -> History:
    """The history after looks with these wrong predictions each."""
    for wrong in wrong_counts:
        history.iteration += WINDOW
        window = torch.zeros(WINDOW, 2)
        window[0, 1] = wrong
        check_window(EXPERIMENT, history, window, 10)
    return history


def test_looks_are_recorded_and_give_what_was_found_again() -> None:
    counts = [GUESSING] * 5 + [LEARNING] * 3 + [GUESSING] + [LEARNING] * 6
    history = looked(History(), *counts)
    assert history.wrong_counts == counts
    assert history.converging_from == 250 == converging_from(EXPERIMENT, counts, 10)
    # A lapse afterwards changes nothing.
    assert looked(history, *[GUESSING] * 9).converging_from == 250


def test_looks_are_recorded_until_the_run_converges_and_400_in_any_case() -> None:
    assert len(looked(History(), *[LEARNING] * (KEPT_LOOKS + 50)).wrong_counts) == 400
    late = [GUESSING] * (KEPT_LOOKS + 50) + [LEARNING] * 10
    history = looked(History(), *late)
    assert history.wrong_counts == late[: KEPT_LOOKS + 54]
    assert history.converging_from == converging_from(EXPERIMENT, late, 10) == 25 * 451


def test_a_resume_between_two_looks_changes_nothing() -> None:
    whole = looked(History(), GUESSING, *[LEARNING] * 4)
    half = looked(History(), GUESSING, LEARNING, LEARNING)
    assert looked(History.from_json(half.to_json()), LEARNING, LEARNING) == whole
    assert whole.converging_from == 50


def test_what_is_being_saved_does_not_change_under_the_thread_that_writes_it() -> None:
    history = looked(History(), GUESSING)
    being_saved = history.wrong_counts
    looked(history, LEARNING)
    assert being_saved == [GUESSING]


def test_a_history_of_the_first_rule_is_continued_under_it_and_says_so() -> None:
    state = loads(History(iteration=25, converging_from=25).to_json())
    for added in ("converging_rule", "wrong_counts"):
        del state[added]
    history = History.from_json(dumps(state).encode())
    looked(history, *[LEARNING] * 5)
    assert (history.converging_rule, history.converging_from) == (1, 25)
    assert history.wrong_counts == [] and CONVERGING_RULE == 2
