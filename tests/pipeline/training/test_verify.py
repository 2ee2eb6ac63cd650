"""What `verify` sees: files, history, provenance, and the first byte that differs when a part is
trained again.
"""

import pickle
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from json import dumps, loads
from pathlib import Path

import pytest
from safetensors.torch import load, save

from pipeline.errors import InputError
from pipeline.recipe.metrics import CONVOLUTION_VARIANCE
from pipeline.recipe.schedule import expected_points
from pipeline.runs.checkpoint import folder, read_checkpoint
from pipeline.runs.execution import Attempt, Execution
from pipeline.runs.history import History
from pipeline.runs.run import check_run, start_run
from pipeline.storage import Storage
from pipeline.training.loop import train
from pipeline.training.step.process_group import single_process
from pipeline.training.verify import Segment, examine, first_difference
from tests.pipeline.training.small_runs import digits_once, small_run
from tests.pipeline.training.test_damage import Mark

RUN = small_run()
RARELY = Execution(checkpoint_seconds=1e9)
HERE = Attempt(provenance={"hardware": "one CPU", "commit": "a" * 40})


@pytest.fixture
def finished(storage: Storage) -> Storage:
    """The digits and a finished run of three attempts; checkpoints at 15, 20, 23, 27 and 30."""
    start_run(storage, RUN, 1)
    for until in (20, 27, None):
        train(RUN, digits_once(), storage, single_process(), replace(RARELY, until=until), HERE)
    return storage


def wrong(storage: Storage) -> dict[str, str]:
    return {finding.what: finding.found for finding in examine(storage, RUN) if not finding.good}


def change(
    storage: Storage, iteration: int, name: str, edit: Callable[[bytes], bytes], hide: bool = True
) -> None:
    """Change a file of a checkpoint, and its manifest with it so that nobody can tell by the
    checksum.
    """
    place = folder(RUN, iteration)
    content = edit(storage.read(f"{place}/{name}"))
    storage.write(f"{place}/{name}", content)
    if hide:
        manifest = loads(storage.read(f"{place}/manifest.json"))
        manifest["files"][name] = {
            "size": len(content),
            "checksum": blake2b(content, digest_size=32).hexdigest(),
        }
        storage.write(f"{place}/manifest.json", dumps(manifest).encode())


def nudged(content: bytes) -> bytes:
    tensors = load(content)
    tensors["head.weight" if "head.weight" in tensors else max(tensors)].view(-1)[0] += 1e-6
    size = int.from_bytes(content[:8], "little")
    return save(tensors, metadata=loads(content[8 : 8 + size])["__metadata__"])


def test_a_sound_run_is_found_sound(finished: Storage) -> None:
    found = list(examine(finished, RUN))
    assert [finding.what for finding in found] == [
        "identity",
        "dataset",
        "checkpoints",
        "history",
        "provenance",
    ]
    assert all(finding.good for finding in found)
    assert "15, 20, 23, 27, 30" in found[2].found and "result.json agrees" in found[3].found
    assert found[4].found == "3 attempts on one CPU (aaaaaaaaaaaa)"


def test_what_a_run_measures_is_what_its_row_asks_for(finished: Storage) -> None:
    checkpoint = read_checkpoint(finished, RUN, 30)
    assert checkpoint is not None
    points = History.from_json(checkpoint.files["history.json"]).points
    assert {(p.metric, p.iteration) for p in points} == expected_points(RUN.experiment)
    assert (
        len(points) == 5 * 6 + 3 * 2
    )  # at 10, 15, 20, 23 and 30; clean training errors at three of them
    held = small_run(holdout=100, iterations=6, lr_drops=(3, 5), eval_every=2)
    history = train(
        held, digits_once(), Storage(f"{finished.uri}-held"), single_process(), RARELY, HERE
    )["final"]
    assert set(history) == {metric for metric, _ in expected_points(held.experiment)}


def without_a_point(content: bytes) -> bytes:
    history = History.from_json(content)
    return replace(history, points=history.points[1:]).to_json()


def with_a_point_twice(content: bytes) -> bytes:
    history = History.from_json(content)
    return replace(history, points=[*history.points, history.points[-1]]).to_json()


def with_a_better_end(content: bytes) -> bytes:
    history = History.from_json(content)
    last = [replace(p, value=0.0) if p.iteration == 30 else p for p in history.points]
    return replace(history, points=last).to_json()


@pytest.mark.parametrize(
    ("name", "edit", "what", "says"),
    [
        ("history.json", without_a_point, "history", "1 points are missing"),
        ("history.json", with_a_point_twice, "history", "1 points are doubled"),
        (
            "history.json",
            with_a_better_end,
            "history",
            "final in result.json is not what the last checkpoint holds",
        ),
        ("history.json", lambda content: b"[]", "checkpoints", "history.json cannot be read"),
        (
            "weights.safetensors",
            lambda content: content[:-4],
            "checkpoints",
            "not a safetensors file",
        ),
    ],
)
def test_a_change_that_the_manifest_hides_is_seen(
    finished: Storage, name: str, edit: Callable[[bytes], bytes], what: str, says: str
) -> None:
    change(finished, 30, name, edit)
    assert says in wrong(finished)[what]


def test_damage_is_named(finished: Storage) -> None:
    change(finished, 27, "momentum.safetensors", lambda content: content[:-1], hide=False)
    finished.delete(folder(RUN, 15))
    for path in Path(finished.path(f"datasets/{RUN.dataset_id}")).iterdir():
        if path.name != "manifest.json":
            path.write_bytes(path.read_bytes()[:-1])
    found = wrong(finished)
    assert found["checkpoints"] == "27: a file is not what its manifest says; 15: is missing"
    assert "damaged (checksum differs)" in found["dataset"]
    assert Segment.of(finished, RUN, None) == Segment(23, 30)
    assert Segment.of(finished, RUN, 20) == Segment(20, 30)
    with pytest.raises(InputError, match=r"--from 27: no checkpoint .* there are 0, 20, 23"):
        Segment.of(finished, RUN, 27)


def test_a_pickle_in_a_checkpoint_is_named_and_not_loaded(
    finished: Storage, tmp_path: Path
) -> None:
    for name in ("weights.safetensors", "momentum.safetensors", "history.json"):
        change(finished, 30, name, lambda content: pickle.dumps(Mark(tmp_path / "mark")))
        assert "checkpoints" in wrong(finished)
    assert not (tmp_path / "mark").exists()


def test_attempts_that_differ_without_leave_are_named(storage: Storage) -> None:
    run = small_run(iterations=30)
    start_run(storage, run, 1)
    train(
        run, digits_once(), storage, single_process(), RARELY, replace(HERE, preempted=lambda: True)
    )
    there = Attempt(provenance={"hardware": "another CPU", "commit": "a" * 40})
    train(run, digits_once(), storage, single_process(), replace(RARELY, allow_drift=True), there)
    (provenance,) = (finding for finding in examine(storage, run) if finding.what == "provenance")
    assert (
        provenance.good
        and "drift was allowed (hardware: one CPU then, another CPU now)" in provenance.found
    )

    def in_silence(content: bytes) -> bytes:
        history = History.from_json(content)
        history.attempts[-1].pop("drift")
        return history.to_json()

    change(storage, 30, "history.json", in_silence)
    assert "which nobody allowed" in wrong(storage)["provenance"]


def again(finished: Storage, tmp_path: Path, start: int | None) -> tuple[Segment, Storage]:
    segment, storage = Segment.of(finished, RUN, start), Storage(str(tmp_path / "again"))
    segment.prepare(finished, RUN, storage)
    assert check_run(storage, RUN) is not None
    train(RUN, digits_once(), storage, single_process(), replace(RARELY, until=segment.end), HERE)
    return segment, storage


@pytest.mark.parametrize("start", [0, 15, None])
def test_trained_again_it_is_the_same(finished: Storage, tmp_path: Path, start: int | None) -> None:
    segment, storage = again(finished, tmp_path, start)
    assert segment.compared(finished, RUN) == {0: [15, 23, 30], 15: [23, 30], None: [30]}[start]
    for iteration in segment.compared(finished, RUN):
        stored, made = (
            read_checkpoint(finished, RUN, iteration),
            read_checkpoint(storage, RUN, iteration),
        )
        assert stored is not None and made is not None and first_difference(stored, made) == ""


def as_an_earlier_version(content: bytes) -> bytes:
    """A history without what is recorded since: the looks, their rule, one of the signals."""
    state = loads(content)
    del state["converging_rule"], state["wrong_counts"]
    state["layers"] = [v for v in state["layers"] if v["quantity"] != CONVOLUTION_VARIANCE]
    return dumps(state | {"converging_from": 25}).encode()


def test_a_run_of_an_earlier_version_is_the_same_but_for_what_is_measured_since(
    finished: Storage, tmp_path: Path
) -> None:
    change(finished, 30, "history.json", as_an_earlier_version)
    _, storage = again(finished, tmp_path, 23)
    stored, made = read_checkpoint(finished, RUN, 30), read_checkpoint(storage, RUN, 30)
    assert stored is not None and made is not None and first_difference(stored, made) == ""

    def weaker(content: bytes) -> bytes:
        state = loads(content)
        state["layers"][-1]["values"][0] *= 2
        return dumps(state).encode()

    change(finished, 30, "history.json", weaker)
    stored = read_checkpoint(finished, RUN, 30)
    assert stored is not None and first_difference(stored, made) == "layers of the history"


def test_a_part_of_an_unfinished_run_is_trained_again_up_to_its_newest_checkpoint(
    storage: Storage, tmp_path: Path
) -> None:
    run = small_run(iterations=60, lr_drops=(40, 50))
    start_run(storage, run, 1)
    for until in (20, 27):
        assert train(
            run, digits_once(), storage, single_process(), replace(RARELY, until=until), HERE
        ) == {"status": "stopped"}
    segment, copy = Segment.of(storage, run, 0), Storage(str(tmp_path / "again"))
    segment.prepare(storage, run, copy)
    train(run, digits_once(), copy, single_process(), replace(RARELY, until=segment.end), HERE)
    stored, made = read_checkpoint(storage, run, 27), read_checkpoint(copy, run, 27)
    assert segment == Segment(0, 27) and stored is not None and made is not None
    assert first_difference(stored, made) == ""


def test_a_weight_that_was_changed_with_its_manifest_is_found_by_training_again(
    finished: Storage, tmp_path: Path
) -> None:
    change(finished, 30, "weights.safetensors", nudged)
    assert wrong(finished) == {}
    _, storage = again(finished, tmp_path, None)
    stored, made = read_checkpoint(finished, RUN, 30), read_checkpoint(storage, RUN, 30)
    assert stored is not None and made is not None
    assert "weights.safetensors: " in first_difference(stored, made)
    assert "1 of " in first_difference(stored, made) and "by up to" in first_difference(
        stored, made
    )


def test_a_run_that_died_between_its_last_checkpoint_and_its_result_is_sound(
    finished: Storage,
) -> None:
    finished.delete(f"{RUN.folder}/result.json")
    result = train(RUN, digits_once(), finished, single_process(), RARELY, HERE)
    assert [attempt["from_iteration"] for attempt in result["attempts"]] == [0, 20, 27, 30]
    assert wrong(finished) == {}


def test_a_damaged_result_is_a_finding(finished: Storage) -> None:
    finished.write(f"{RUN.folder}/result.json", b"{")
    assert "not a file of ours" in wrong(finished)["identity"]
