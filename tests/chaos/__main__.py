"""`make chaos`: a seeded campaign of kills on a real cluster of two nodes, each judged against a
run nobody disturbed.

Every kill has a run of its own (one seed of one row), which is killed at a random time while it
trains. The table is written to PLACE after each kill; a campaign that was interrupted goes on where
it was when its command is given again.
"""

import argparse
import csv
import json
import random
import signal
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event, Thread

import torch

from pipeline.data.catalogue.digits import digits
from pipeline.data.datasets import Dataset
from pipeline.data.stored import write_dataset
from pipeline.recipe.overrides import experiment_named
from pipeline.runs.checkpoint import newest_history, newest_iteration
from pipeline.runs.execution import Execution
from pipeline.runs.provenance import source_digest
from pipeline.runs.run import Run, read_heartbeat, read_result
from pipeline.storage import Storage
from pipeline.training.loop import train
from pipeline.training.step.process_group import single_process
from tests.chaos import mount
from tests.chaos.judge import Verdict, judge
from tests.chaos.kills import GO_ON, KINDS, MOUNTED, NotSurvivedError, Scene, Server
from tests.chaos.nodes import Namespaces, Nodes, Plain, namespaces_possible

SETTINGS = ["depth=8", "eval_every=20"]
ITERATIONS = 600
PORT = 5077
PATIENCE_SECONDS = 400.0
TRIES = 3
"""How often a blow that came too late is repeated, each time at half the share of the run."""


@dataclass(frozen=True)
class Row:
    """One kill in the table: `killed_at` and `continued_from` are iterations, `recovery_s` until
    training was past them.
    """

    kill: int
    kind: str
    killed_at: int
    continued_from: str
    recovery_s: float
    survived: bool
    lost: int
    doubled: int
    equal: bool
    remark: str = ""

    @property
    def good(self) -> bool:
        """Whether it left no trace."""
        return Verdict(self.survived, self.lost, self.doubled, self.equal).good


def main() -> int:
    """Run the campaign; 0 if every kill was survived without a trace."""
    options = _options()
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # cleaning up behind us, as after Ctrl-C
    place = options.place.resolve()
    place.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    why_not = "asked for" if options.no_namespaces else namespaces_possible()
    if why_not and options.require_namespaces:
        print(f"error: no network namespaces here: {why_not}", file=sys.stderr)
        return 2
    nodes: Nodes = Plain(place) if why_not else Namespaces(place)
    form = (
        f"two raylets on 127.0.0.1 ({why_not})"
        if why_not
        else "two network namespaces with their own addresses"
    )
    print(f"campaign {options.seed} of {options.kills} kills on {form}, in {place}", flush=True)
    kinds = _kinds(options, nodes)
    if mounted := {*MOUNTED} & {*kinds}:
        mount.mount(place / "store")
    rows = _read(place)
    if problem := _another_campaign(place, options, rows):
        print(f"error: {problem}; name another --place or delete it", file=sys.stderr)
        return 2
    server = Server(place, nodes.host, PORT)
    try:
        server.start()
        nodes.start("a", "b")
        for number in range(len(rows), len(kinds)):
            row = _one(number, kinds[number], options.seed, place, nodes, server)
            rows.append(row)
            _write(place, rows, form, options.seed)
            print(
                f"{number + 1}/{len(kinds)} {'good' if row.good else 'BAD '} {_text(row)}",
                flush=True,
            )
    finally:
        nodes.close()
        server.kill()
        if mounted:
            mount.unmount(place / "store")
    bad = [row for row in rows if not row.good]
    print(
        f"\n{(place / 'chaos.md').read_text()}\n{len(rows) - len(bad)} of {len(rows)} kills left "
        "no trace"
    )
    return 1 if bad else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument(
        "--seed", type=int, default=0, help="decides the kinds' order and the moments"
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--kinds", default=",".join(KINDS), help="of " + ", ".join(KINDS))
    parser.add_argument("--place", type=Path, default=Path("results/chaos"))
    parser.add_argument(
        "--require-namespaces",
        action="store_true",
        help="fail where nodes cannot have own addresses",
    )
    parser.add_argument(
        "--no-namespaces", action="store_true", help="two raylets on loopback in any case"
    )
    return parser.parse_args()


def _another_campaign(place: Path, options: argparse.Namespace, rows: list[Row]) -> str:
    """Why the table that lies in the place is not this campaign's, or is complete already; empty if
    it may go on.
    """
    about = {
        "seed": options.seed,
        "kinds": options.kinds,
        "kills": options.kills,
        "source": source_digest(),
    }
    file = place / "campaign.json"
    if not rows:
        file.write_text(json.dumps(about))
        return ""
    before = json.loads(file.read_text()) if file.exists() else {}
    if before != about:
        return f"{place} holds another campaign, or one of other code ({before})"
    return f"{place} holds this campaign, which is complete" if len(rows) >= options.kills else ""


def _kinds(options: argparse.Namespace, nodes: Nodes) -> list[str]:
    """Every kind as often as every other, in an order of the seed's."""
    known = [name for name in options.kinds.split(",") if nodes.links or name != "link"]
    if (why_not := mount.mountable()) and (left_out := [name for name in known if name in MOUNTED]):
        print(f"without {', '.join(left_out)}: a file system of its own {why_not}", flush=True)
        known = [name for name in known if name not in MOUNTED]
    dice, kinds = random.Random(options.seed), list[str]()
    while known and len(kinds) < options.kills:
        kinds += dice.sample(known, len(known))
    return kinds[: options.kills]


def _one(number: int, kind: str, seed: int, place: Path, nodes: Nodes, server: Server) -> Row:
    """One kill that hit a run in training: a fast machine may end a run before the blow is felt."""
    for repetition in range(TRIES):
        row, hit = _strike(number, kind, seed, repetition, place, nodes, server)
        if hit:
            return row
        print(f"{_text(row)}: the run was over too soon; again, earlier", flush=True)
    return replace(row, survived=False)  # no proof of anything


def _strike(
    number: int,
    kind: str,
    seed: int,
    repetition: int,
    place: Path,
    nodes: Nodes,
    server: Server,
) -> tuple[Row, bool]:
    """Train, kill at a random time, see it recover and end, and judge; and whether it was hit."""
    dice = random.Random(f"{seed} {number}")
    storage, reference = Storage(str(place / "store")), Storage(str(place / "reference"))
    dataset = digits()
    run = Run(
        experiment_named("resnet20", SETTINGS, ITERATIONS),
        dataset.id,
        dataset.key,
        1000 * seed + 100 * repetition + number,
    )
    for each in (storage, reference):
        write_dataset(each, dataset, {"kind": "embedded"})
    storage.delete(run.folder)  # of a campaign that was interrupted at this kill
    _undisturbed(reference, run, dataset)
    words = ["resnet20", "--data", "digits", "--iterations", str(ITERATIONS)]
    words += [word for setting in SETTINGS for word in ("--set", setting)]
    progress = Progress(storage, run)
    scene = Scene(nodes, server, run, place / "store", words, dice, lambda: progress.reached)
    with progress:
        scene.give_command("1:2" if kind == "elastic" else "2")
        share, delay = dice.uniform(0.05, 0.75) / 2**repetition, dice.uniform(0, 1)
        progress.wait_past(int(share * ITERATIONS) - 1, scene)
        time.sleep(delay)
        scene.strike()
        undone = ""
        try:
            remark = KINDS[kind](scene) or ""
        except NotSurvivedError as error:
            remark = undone = str(error)
        killed, killed_at = scene.struck
        progress.wait_past(killed_at, scene)
        assert scene.command is not None
        with suppress(Exception):
            scene.command.wait(PATIENCE_SECONDS)
        ended = scene.command.poll()
    if ended is None:
        scene.kill_command()
    if len(nodes.running) < 2:
        nodes.start("b")
    verdict = _judged(storage, reference, run, server, ended)
    verdict = replace(verdict, survived=verdict.survived and not undone)
    history = newest_history(storage, run)
    starts = [int(attempt["from_iteration"]) for attempt in history.attempts[1:]] if history else []
    # A run that had no more to do was not hit, nor one that nothing made start anew.
    hit = killed_at < ITERATIONS and (bool(starts) or kind in GO_ON or ended != 0)
    recovery = progress.first_past(max([killed_at, *starts])) - killed
    continued = ", ".join(map(str, starts)) or "went on"
    row = Row(
        number + 1, kind, killed_at, continued, round(recovery, 1), **asdict(verdict), remark=remark
    )
    return row, hit


def _judged(
    storage: Storage, reference: Storage, run: Run, server: Server, ended: int | None
) -> Verdict:
    """The verdict, once the server answers."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return judge(storage, reference, run, server.uri, ended)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def _undisturbed(reference: Storage, run: Run, dataset: Dataset) -> None:
    """The run in this process alone: no Ray, no kills, one worker."""
    if read_result(reference, run) is None:
        train(run, dataset, reference, single_process(), Execution(checkpoint_seconds=1e9))


class Progress:
    """How far a run is, looked at several times a second."""

    def __init__(self, storage: Storage, run: Run) -> None:
        self._storage, self._run = storage, run
        self._end = Event()
        self._thread = Thread(target=self._look, daemon=True)
        self._seen: list[tuple[float, int]] = [(time.monotonic(), 0)]

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    @property
    def reached(self) -> int:
        """The furthest iteration that was seen."""
        return self._seen[-1][1]

    def first_past(self, iteration: int) -> float:
        """When the run was first seen past an iteration."""
        return next((moment for moment, reached in self._seen if reached > iteration), float("inf"))

    def wait_past(self, iteration: int, scene: Scene) -> None:
        """Wait until the run is past an iteration, but not for ever."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.reached <= iteration and time.monotonic() < deadline:
            if scene.command is not None and scene.command.poll() not in (None, 0):
                break  # it failed, which the verdict will say
            time.sleep(0.05)

    def _look(self) -> None:
        while not self._end.wait(0.1):
            with suppress(OSError):
                beat = read_heartbeat(self._storage, self._run)
                reached = max(
                    newest_iteration(self._storage, self._run), beat["iteration"] if beat else 0
                )
                if reached > self.reached:
                    self._seen.append((time.monotonic(), reached))


def _text(row: Row) -> str:
    return (
        f"{row.kind}: killed at {row.killed_at}, continued from {row.continued_from}, "
        f"{row.recovery_s:.1f} s; "
        f"{row.lost} lost, {row.doubled} doubled, {'equal' if row.equal else 'NOT EQUAL'}"
    )


def _read(place: Path) -> list[Row]:
    """What an interrupted campaign has done already."""
    file = place / "chaos.csv"
    if not file.exists():
        return []
    with file.open() as lines:
        return [
            Row(
                int(line["kill"]), line["kind"], int(line["killed_at"]), line["continued_from"],
                float(line["recovery_s"]), line["survived"] == "True", int(line["lost"]),
                int(line["doubled"]),
                line["equal"] == "True", line["remark"],
            )
            for line in csv.DictReader(lines)
        ]  # fmt: skip


def _write(place: Path, rows: list[Row], form: str, seed: int) -> None:
    """The table as CSV and as Markdown."""
    with (place / "chaos.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(rows[0])))
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    lines = [
        f"Campaign {seed}, {form}:",
        "",
        "| # | killed | at iteration | continued from | seconds to recover | survived | lost | "
        "doubled | bytes |",
    ]
    lines.append("|--:|---|--:|--:|--:|---|--:|--:|---|")
    for row in rows:
        lines.append(
            f"| {row.kill} | {row.kind}{f' ({row.remark})' if row.remark else ''} | "
            f"{row.killed_at} | {row.continued_from} | {row.recovery_s:.1f} | "
            f"{'yes' if row.survived else 'NO'} | {row.lost} | {row.doubled} | "
            f"{'equal' if row.equal else 'NOT EQUAL'} |"
        )
    (place / "chaos.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
