"""A grid as a user asked for it: trained, looked at, trained on until it is decided, reported."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from threading import Event
from typing import TYPE_CHECKING, Any

from analysis.measured.tags import ALONE, ASKED, IN_SWEEP, INTERIM
from jobs.console.console import console, failed
from jobs.console.following import follow
from jobs.console.progress_log import announce
from jobs.console.termination import TerminatedError
from jobs.console.watch import row_name
from jobs.grids.grids import shows_early
from jobs.grids.sweeps import Sweep
from jobs.requests.options import Device
from jobs.requests.requested_runs import placement_words, resolve_resources, runs_of, shared_out
from jobs.tracking.best_effort import (
    complete_published,
    on_interrupt,
    warn_if_unpublished,
    warn_on_tracking_error,
)
from pipeline.errors import InputError
from pipeline.recipe.experiments import Experiment
from pipeline.recipe.metrics import TEST_ERR
from pipeline.runs.execution import Execution
from pipeline.runs.run import SIGNALLED, Run, read_result
from pipeline.storage import Storage

if TYPE_CHECKING:
    from analysis.measured.frames import Frames


@dataclass(frozen=True)
class GridRequest:
    """A grid as it was asked for, and where and how it is carried out."""

    names: list[str]
    experiments: list[Experiment]
    swept: list[Sweep]
    manifest: dict[str, Any]
    storage: Storage
    execution: Execution
    device: Device
    threads: int | None
    address: str | None
    until_decided: bool
    runs_per_gpu: int | None

    def carry_out(self, looks: tuple[int, ...], planned: Callable[[list[Run]], str]) -> None:
        """Train, look, train more seeds while something is open; then report, and exit accordingly.

        `planned` says of the runs that were left what they were thought to take, or nothing.
        """
        for seeds in looks:
            runs, left, reasons = self.train(seeds)
            still_open = self.still_open(runs) if seeds < looks[-1] else []
            if not still_open:
                # A plan was about one number of seeds, so it says nothing of a grid that looks in
                # between.
                self.conclude(runs, reasons, partial(planned, left) if len(looks) == 1 else str)
                break
            print(f"undecided with {seeds} seeds: {'; '.join(still_open)}", flush=True)

    def train(self, seeds: int) -> tuple[list[Run], list[Run], dict[Run, str]]:
        """Train what is left of the first `seeds` seeds of each row.

        Returns all the runs, those that had something left to do, and which failed and why.
        """
        from jobs.execution.tune import unfinished

        workers = self.execution.workers
        runs = runs_of(self.storage, self.experiments, self.manifest, range(seeds), workers)
        left = unfinished(self.storage, runs, quick_first=shows_early(self.names))
        finished = len(runs) - len(left)
        what = f"{len(runs)} runs on {runs[0].dataset_key}"
        print(f"{what}, {finished} finished before, in {self.storage.uri}", flush=True)
        # MLflow gets what ended while its server was away before anything new is trained, so that
        # a command whose runs are all finished brings it up to date too.
        tags = self._tags(runs)
        complete_published(self.execution.tracking, self.storage, tags)
        self._publish_sweeps()
        return runs, left, self._train(left, tags) if left else {}

    def _train(self, left: list[Run], tags: dict[Run, dict[str, str]]) -> dict[Run, str]:
        """Train the runs that are left on the cluster; how each ended that did not finish."""
        from jobs.execution.cluster import ask_to_stop, connected, head_memory, where
        from jobs.execution.tune import GridOutcome, max_concurrent_runs, run_grid

        announce("starting Ray")
        with connected(self.address, trains=True):
            execution, nodes = resolve_resources(
                self.execution,
                self.device,
                self.threads,
                runs=len(left),
                experiments=self.experiments,
            )
            at_once = min(len(left), max_concurrent_runs(nodes, execution, head_memory()))
            packs = shared_out(left, execution, at_once, self.runs_per_gpu, self.manifest)
            together = sum(map(len, packs[:at_once]))
            runs = f"{together} runs" if together > 1 else "one run"
            announce(f"{runs} at once, each {placement_words(execution, self.threads)}")

            def job() -> list[GridOutcome]:
                outcomes = run_grid(packs, execution, at_once, tags)
                if any(outcome.status == SIGNALLED for outcome in outcomes):
                    raise TerminatedError("a signal to a worker")
                return outcomes

            outcomes = follow(
                " ".join(self.names),
                self.storage,
                list(tags),
                together,
                job,
                # The drivers are Tune's trials in other processes: nobody here waits for the event.
                on_interrupt(execution.tracking, self.storage, left, Event()),
                ask_to_stop,
                where(),
            )
        warn_if_unpublished([outcome.published for outcome in outcomes], execution.tracking)
        return {
            outcome.run: f"{outcome.status}: {outcome.reason}"
            for outcome in outcomes
            if outcome.status != "finished"
        }

    def still_open(self, runs: list[Run]) -> list[str]:
        """The cells and claims about the runs that more seeds could decide, in a few words each."""
        from analysis.measured.frames import FINISHED
        from analysis.measured.mlflow_export import export
        from analysis.report.undecided import undecided

        tracking = self.execution.tracking
        complete_published(tracking, self.storage, self._tags(runs))
        try:
            frames = export(tracking, (self.storage.local or Path("results")) / "export")
        except InputError as error:
            return [f"not known: {error}"]
        # This look is about this grid; other runs of the storage have no say in it.
        frames = frames.of({run.key for run in runs}, [])
        # The look is at all finished runs or at none: which ones a server happens to have must not
        # decide whether training goes on.
        finished = {
            run.key for run, result in self._results(runs) if result["status"] == "finished"
        }
        missing = len(finished - set(frames.runs.loc[frames.runs.status == FINISHED, "run_id"]))
        if missing:
            return [f"not known: {missing} finished runs are not in MLflow yet"]
        return undecided(frames)

    def conclude(self, runs: list[Run], reasons: dict[Run, str], note: Callable[[], str]) -> None:
        """Say which runs did not finish and why, report on the others, and exit accordingly.

        The last lines are the results, and where to see more; of a grid that is whole `note` comes
        before them.
        """
        from jobs.tracking.storage_report import ReportPart, report_on

        diverged = {
            run: result["reason"] for run, result in self._results(runs) if "reason" in result
        }
        unfinished = {run: reason for run, reason in reasons.items() if run not in diverged}
        for run, reason in unfinished.items():
            print(f"{run} {reason}", file=sys.stderr)
        for run, reason in diverged.items():
            print(f"{run} diverged: {reason}", file=sys.stderr)

        lost = [run for run in diverged if not run.experiment.may_diverge]

        def say_result(measured: "Frames | None" = None) -> None:
            if not unfinished and not lost and (words := note()):
                print(words)
            for line in [*self.result_lines(runs), *_claim_lines(measured)]:
                print(line)

        # A report on what did finish, even where the command fails: it took hours.
        unreported = None
        if len(unfinished) + len(diverged) < len(runs):
            self._publish_sweeps()  # where the server was away before
            sweep_ids = [sweep.id(self.manifest["id"]) for sweep in self.swept]
            part = ReportPart("-".join(self.names)[:80], runs, sweep_ids)
            try:
                report_on(self.execution.tracking, self.storage, part=part, say_first=say_result)
            except InputError as error:  # such as a bundle that contradicts what was trained
                unreported = error
                say_result()
                print(f"warning: there is no report ({error})", file=sys.stderr)

        if unfinished:
            count = f"{len(unfinished)} of {len(runs)}"
            raise failed(f"{count} runs did not finish; give the same command again")
        if lost:
            count = f"{len(diverged)} of {len(runs)}"
            raise failed(f"{count} runs diverged, which trying again would repeat")
        if unreported is not None:
            raise unreported

    def result_lines(self, runs: list[Run]) -> list[str]:
        """Each row's final test errors in percent: mean, standard deviation, and how many seeds."""
        from analysis.tables.table_text import mean_std_n

        errors: dict[str, list[float]] = {}
        rows = {run.experiment for run in runs}
        for run, result in self._results(runs):
            error = result.get("final", {}).get(TEST_ERR)
            if result["status"] == "finished" and error is not None:
                errors.setdefault(row_name(run.experiment, rows), []).append(error)
        width = max(map(len, errors), default=0)
        lines = [f"result: test error (%) on {self.manifest['row']['name']}, mean ± std (seeds)"]
        for name, of in errors.items():
            std = stdev(of) if len(of) > 1 else 0.0
            lines.append(f"  {name:<{width}}  {mean_std_n(mean(of), std, len(of))}")
        return lines

    def _results(self, runs: list[Run]) -> Iterator[tuple[Run, dict[str, Any]]]:
        """The runs that have ended, with their results."""
        for run in runs:
            result = read_result(self.storage, run)
            if result is not None:
                yield run, result

    def _tags(self, runs: list[Run]) -> dict[Run, dict[str, str]]:
        """What MLflow is told of each run: which grids asked for it, how, and with which looks."""
        # A run that a sweep alone asks for is tagged as such, and no table of the paper counts it.
        changed = {fingerprint for sweep in self.swept for fingerprint in sweep.changed}
        asking = {f"grid.{name}": "yes" for name in self.names}
        if self.until_decided:
            asking[INTERIM] = "yes"
        return {
            run: asking | {ASKED: IN_SWEEP if run.experiment.fingerprint in changed else ALONE}
            for run in runs
        }

    def _publish_sweeps(self) -> None:
        from jobs.tracking.other_publications import publish_sweep

        dataset_id, dataset = self.manifest["id"], self.manifest["row"]["name"]
        tracking = self.execution.tracking
        for sweep in self.swept:
            publish = partial(publish_sweep, tracking, self.storage, sweep, dataset_id, dataset)
            warn_on_tracking_error(publish, tracking)


def _claim_lines(measured: "Frames | None") -> list[str]:
    """What runs say of the paper's claims, study by study."""
    if measured is None:
        return []
    from analysis.report.verdict_summary import claim_lines
    from analysis.studies.studies import split_studies
    from analysis.verdicts.claims import judge_claims

    lines = []
    for study in split_studies(measured):
        if of_study := claim_lines(judge_claims(study), console.width):
            lines += [f"claims of the paper, by these runs on {study.title}:", *of_study]
    return lines
