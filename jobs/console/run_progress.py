"""What a person sees while runs go on: one live table, or plain lines where there is no terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from time import monotonic, time
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pipeline.errors import InputError
from pipeline.recipe.experiments import Experiment
from pipeline.recipe.metrics import TEST_ERR
from pipeline.recipe.overrides import title
from pipeline.runs.checkpoint import newest_history
from pipeline.runs.run import Run, read_heartbeat, read_result
from pipeline.storage import Storage

console = Console()
LOOK_SECONDS = 2.0
LINE_SECONDS = 20.0


@dataclass(frozen=True)
class RunProgress:
    """What a run's folder says: `state` is waiting, running, finished or diverged; `left` seconds
    to go, if known.
    """

    run: Run
    state: str
    iteration: int
    rate: float
    test_err: float | None

    @property
    def left(self) -> float | None:
        if self.state != "running" or self.rate <= 0:
            return None
        experiment = self.run.experiment
        return (experiment.iterations - self.iteration) * experiment.global_batch_size / self.rate


def look(storage: Storage, run: Run, since_ms: int) -> RunProgress:
    """A run as its folder shows it; heartbeats from before `since_ms` are an earlier attempt's."""
    result = read_result(storage, run)
    if result is not None:
        return RunProgress(
            run, result["status"], result["iterations"], 0.0, result.get("final", {}).get(TEST_ERR)
        )
    beat, history = read_heartbeat(storage, run), newest_history(storage, run)
    error = history.last().get(TEST_ERR) if history else None
    iteration = history.iteration if history else 0
    if beat is None or beat["time_ms"] < since_ms:
        return RunProgress(run, "waiting", iteration, 0.0, error)
    return RunProgress(
        run, "running", max(iteration, beat["iteration"]), beat["images_per_second"], error
    )


def follow(
    title: str,
    storage: Storage,
    runs: list[Run],
    max_concurrent_runs: int,
    job: Callable[[], Any],
    interrupted: Callable[[], None] = lambda: None,
) -> Any:
    """Run `job` in the background and show how its runs go until it ends; returns or raises what it
    does.

    `max_concurrent_runs` is how many runs go at once, for the estimate of the time left. Ctrl-C
    reaches the caller at once, after `interrupted` was called.
    """
    outcome: dict[str, Any] = {}

    def body() -> None:
        try:
            outcome["value"] = job()
        except BaseException as error:
            outcome["error"] = error

    since, thread = int(1000 * time()), Thread(target=body, daemon=True)
    thread.start()
    try:
        if console.is_terminal:
            _live(title, storage, runs, max_concurrent_runs, since, thread)
        else:
            _lines(title, storage, runs, max_concurrent_runs, since, thread)
    except KeyboardInterrupt:
        interrupted()
        raise
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]


def _live(
    title: str,
    storage: Storage,
    runs: list[Run],
    max_concurrent_runs: int,
    since: int,
    thread: Thread,
) -> None:
    with Live(console=console, refresh_per_second=2, transient=False) as live:
        while thread.is_alive():
            live.update(_table(title, _sights(storage, runs, since), max_concurrent_runs))
            thread.join(LOOK_SECONDS)
        live.update(_table(title, _sights(storage, runs, since), max_concurrent_runs))


def _lines(
    title: str,
    storage: Storage,
    runs: list[Run],
    max_concurrent_runs: int,
    since: int,
    thread: Thread,
) -> None:
    spoken = -LINE_SECONDS
    known: dict[Run, str] = {}
    while thread.is_alive():
        thread.join(LOOK_SECONDS)
        sights = _sights(storage, runs, since)
        for sight in sights:
            before = known.get(sight.run)
            known[sight.run] = sight.state
            if before not in (None, sight.state) and sight.state in ("finished", "diverged"):
                print(
                    f"{sight.run}: {sight.state}, {_percent(sight.test_err)} test error", flush=True
                )
        if monotonic() - spoken >= LINE_SECONDS and thread.is_alive():
            spoken = monotonic()
            print(f"{title}: {_summary(sights, max_concurrent_runs)}", flush=True)


def _sights(storage: Storage, runs: list[Run], since: int) -> list[RunProgress]:
    sights = []
    for run in runs:
        try:
            sights.append(look(storage, run, since))
        except (
            OSError,
            ValueError,
            KeyError,
            InputError,
        ):  # a file being replaced, or one the run itself will refuse
            sights.append(RunProgress(run, "waiting", 0, 0.0, None))
    return sights


def _table(title: str, sights: list[RunProgress], max_concurrent_runs: int) -> Table:
    table = Table(
        title=f"{title}: {_summary(sights, max_concurrent_runs)}",
        title_justify="left",
        title_style="bold",
    )
    for name, side in (
        ("experiment", "left"),
        ("seed", "right"),
        ("state", "left"),
        ("iteration", "right"),
    ):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    for name in ("images/s", "test error", "left"):
        table.add_column(name, justify="right")
    for sight in sights:
        experiment = sight.run.experiment
        rate = f"{sight.rate:,.0f}" if sight.rate else ""
        place = f"{sight.iteration:,}/{experiment.iterations:,}"
        left = duration(sight.left)
        table.add_row(
            _named(sights, experiment),
            str(sight.run.seed),
            sight.state,
            place,
            rate,
            _percent(sight.test_err),
            left,
        )
    return table


def _named(sights: list[RunProgress], experiment: Experiment) -> str:
    """The row's name, with its changes where the table has several rows of that name."""
    alike = {
        sight.run.experiment for sight in sights if sight.run.experiment.name == experiment.name
    }
    return title(experiment) if len(alike) > 1 else experiment.name


def _summary(sights: list[RunProgress], max_concurrent_runs: int) -> str:
    done = sum(sight.state in ("finished", "diverged") for sight in sights)
    running = sum(sight.state == "running" for sight in sights)
    words = f"{done} of {len(sights)} finished, {running} running"
    if len(sights) == 1 and running:
        experiment = sights[0].run.experiment
        error = sights[0].test_err
        words = f"iteration {sights[0].iteration:,} of {experiment.iterations:,}, {sights[0].rate:,.0f} images/s"
        words += f", {_percent(error)} test error" if error is not None else ""
    left = _time_left(sights, max_concurrent_runs)
    return words + (f", about {duration(left)} left" if left is not None else "")


def _time_left(sights: list[RunProgress], max_concurrent_runs: int) -> float | None:
    """Seconds until all are done: multiply-adds to go, at the rate the running ones show, over the
    max_concurrent_runs.
    """
    from pipeline.recipe.layers import layout

    def cost(sight: RunProgress) -> float:
        experiment = sight.run.experiment
        return (
            layout(experiment).multiply_adds
            * experiment.global_batch_size
            * (experiment.iterations - sight.iteration)
        )

    speeds = [
        layout(s.run.experiment).multiply_adds * s.rate
        for s in sights
        if s.state == "running" and s.rate
    ]
    if not speeds:
        return None
    to_go = sum(cost(sight) for sight in sights if sight.state in ("running", "waiting"))
    each = sum(speeds) / len(speeds)
    longest = max((sight.left or 0.0) for sight in sights)
    return max(longest, to_go / (each * max(max_concurrent_runs, 1)))


def _percent(error: float | None) -> str:
    return "" if error is None else f"{error:.2f} %"


def duration(seconds: float | None) -> str:
    """Hours and minutes, or minutes and seconds; empty where it is not known."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {rest:02}s"


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar for something counted, as a function of (done, all); a line now and then off a
    terminal.
    """
    if not console.is_terminal:
        last = [monotonic()]

        def line(done: int, total: int) -> None:
            if monotonic() - last[0] >= 5:
                last[0] = monotonic()
                print(f"{what}: {done:,} of {total:,}", flush=True)

        yield line
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)
