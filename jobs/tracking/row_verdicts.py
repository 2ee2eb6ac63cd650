"""What MLflow's parents say of the paper: its number as a metric, the verdict, and a description.

Judged by the report's own tables, over all runs of the store.
"""

from collections.abc import Sequence
from hashlib import blake2b
from math import isfinite

from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow.entities import RunTag

from analysis.measured.frames import Frames, each
from analysis.measured.mlflow_export import NoRunsError, read_frames
from analysis.measured.tags import HIDDEN
from analysis.studies.studies import Study, split_studies
from analysis.tables.row_results import RowResult, row_results
from jobs.tracking.described_runs import NOTE, fact_name, parent_key, tags_of
from jobs.tracking.parents import log_finals
from jobs.tracking.store import experiment_id
from jobs.tracking.views import VERDICT
from pipeline.recipe.metrics import METRICS

OUR_NOTE = HIDDEN + "note"
"""Tag of a parent: the checksum of the description that we wrote, to tell it from a person's."""
NOT_COMPARED = "not compared"
"""What stands for a verdict where data or recipe are not the paper's."""


def judge_parents(client: MlflowClient, frames: Frames | None = None) -> None:
    """Say at each parent what the paper has and what the verdict is, by what the store has now.

    `frames` are those of the store, if they were read already.

    Raises:
        InputError: the store cannot be read.
    """
    try:
        frames = frames or read_frames(client.tracking_uri, curves=False)
    except NoRunsError:
        return
    parents = _parents(client)
    # A run may be of two studies; what is compared with the paper comes first.
    for study in split_studies(frames):
        results = row_results(study)
        for row in each(study.runs.drop_duplicates("experiment")):
            parent = parents.pop(parent_key(row.fingerprint, row.dataset_id), None)
            if parent is not None:
                of_row = [result for result in results if result.experiment == row.experiment]
                _say(client, parent, study, row.iterations, of_row)


def _parents(client: MlflowClient) -> dict[str, MlflowRun]:
    """The parents of a store that are shown, by their keys."""
    found: dict[str, MlflowRun] = {}
    token: str | None = None
    while True:
        page = client.search_runs(
            [experiment_id(client)], "tags.kind = 'experiment'", page_token=token
        )
        found |= {tags_of(parent).get("parent_key", ""): parent for parent in page}
        token = page.token
        if not token:
            return found


def _say(
    client: MlflowClient,
    parent: MlflowRun,
    study: Study,
    iterations: int,
    results: Sequence[RowResult],
) -> None:
    run_id, tags = parent.info.run_id, parent.data.tags
    # A column of numbers that are of other data would be read as a comparison.
    compared = [result for result in results if result.verdict]
    numbers = {fact_name(one.experiment, one.metric, "paper"): one.paper for one in compared}
    log_finals(
        client, run_id, {name: number for name, number in numbers.items() if isfinite(number)}
    )
    verdict = ", ".join(dict.fromkeys(result.verdict for result in compared)) or NOT_COMPARED
    if tags.get(VERDICT) != verdict:
        client.set_tag(run_id, VERDICT, verdict)
    text = description(study, iterations, results)
    there, ours = tags.get(NOTE), tags.get(OUR_NOTE)
    if there == text or (there is not None and _checksum(there) != ours):  # a person's
        return
    client.log_batch(run_id, tags=[RunTag(OUR_NOTE, _checksum(text)), RunTag(NOTE, text)])


def description(study: Study, iterations: int, results: Sequence[RowResult]) -> str:
    """What a parent says in words, in Markdown: a paragraph for each number of the paper."""
    said = [_paragraph(study, iterations, result) for result in results]
    if not said:
        said = ["The paper prints no number of this row."]
    return "\n\n".join(said)


def _paragraph(study: Study, iterations: int, result: RowResult) -> str:
    about = METRICS[result.metric].meaning.partition(":")[0]
    measured = f"{result.mean:.2f} ± {result.std:.2f} %" if result.n > 1 else f"{result.mean:.2f} %"
    seeds = f"{result.n} finished seed{'s' * (result.n > 1)}"
    sentences = [
        f"**{measured}** {about}, after {iterations:,} iterations ({seeds})."
        if result.n
        else "No seed has finished yet."
    ]
    if result.printed:
        sentences.append(f"The paper has **{result.printed} %** ({result.table}).")
    if result.verdict:
        return " ".join([*sentences, f"Verdict: **{result.verdict}** ({result.why})."])
    return " ".join([*sentences, f"That is not compared: {study.why_not_comparable}."])


def _checksum(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()
