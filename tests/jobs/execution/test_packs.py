"""Which runs train beside which, and who is found to blame where a pack fails."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from jobs.execution.experiment_timing import RunsAtOnce, time_at_once
from jobs.execution.packs import PackedRun, next_groups, packs_of
from jobs.requests import requested_runs
from jobs.requests.requested_runs import check_runs_per_gpu, shared_out
from pipeline.errors import InputError, StorageLostError
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.runs.execution import Execution
from pipeline.runs.lease import Lease
from pipeline.runs.run import Run
from pipeline.storage import Storage
from tests.pipeline.training.small_runs import small_run

ONE_GPU = Execution(use_gpu=True)


def seeds(name: str, count: int) -> list[Run]:
    """Runs of a row of the paper."""
    return [Run(EXPERIMENTS[name], "d" * 64, "cifar10-dddddddd", seed) for seed in range(count)]


def sizes(packs: list[list[Run]]) -> list[int]:
    return [len(pack) for pack in packs]


def test_packs_are_as_large_as_asked_for_and_leave_no_place_idle() -> None:
    runs = seeds("resnet56", 5) + seeds("resnet44", 5)
    packs = packs_of(runs, ONE_GPU, 1, lambda _: 8)
    assert sizes(packs) == [5, 5]
    assert [run for pack in packs for run in pack] == runs
    # ResNet-20 would leave after a third of ResNet-56's time.
    assert sizes(packs_of(runs[:5] + seeds("resnet20", 5), ONE_GPU, 1, lambda _: 8)) == [5, 5]
    # But where one pack holds everything, two that take turns would end later.
    few = [seeds(name, 1)[0] for name in ("resnet56", "plain56", "resnet20", "plain20")]
    assert packs_of(few, ONE_GPU, 1, lambda _: 4) == [few]
    assert sizes(packs_of(few, ONE_GPU, 1, lambda _: 3)) == [2, 2]
    assert sizes(packs_of(few, ONE_GPU, 2, lambda _: 4)) == [2, 2]
    # Four GPUs: four packs rather than one that is full.
    assert sizes(packs_of(runs, ONE_GPU, 4, lambda _: 8)) == [2, 3, 3, 2]
    assert sizes(packs_of(runs, ONE_GPU, 16, lambda _: 8)) == [1] * 10


def test_a_network_that_fills_a_gpu_trains_alone_and_large_ones_in_small_packs() -> None:
    runs = seeds("resnet18", 2) + seeds("resnet1202", 5) + seeds("resnet20", 4)
    packs = packs_of(runs, ONE_GPU, 1, lambda experiment: 2 if experiment.depth == 1202 else 8)
    assert sizes(packs) == [1, 1, 2, 1, 2, 4]
    assert all(len({run.experiment for run in pack}) == 1 for pack in packs)


def test_runs_of_different_datasets_never_share_a_pack() -> None:
    here = seeds("resnet20", 2)
    there = [replace(run, dataset_id="e" * 64) for run in here]
    packs = packs_of([here[0], there[0], here[1], there[1]], ONE_GPU, 1, lambda _: 8)
    assert packs == [here, there]


def test_runs_that_want_other_kernels_never_share_a_process() -> None:
    runs = seeds("resnet20", 4)
    runs[1] = replace(runs[1], experiment=replace(runs[1].experiment, precision="tf32"))
    runs[3] = replace(runs[3], experiment=replace(runs[3].experiment, precision="bf16"))
    assert packs_of(runs, ONE_GPU, 1, lambda _: 8) == [[runs[0], runs[2], runs[3]], [runs[1]]]


@pytest.fixture
def members(storage: Storage) -> Iterator[list[PackedRun]]:
    with ExitStack() as leases:
        runs = [small_run(n) for n in range(4)]
        yield [PackedRun(run, leases.enter_context(Lease(storage, run)), 1, 0) for run in runs]


def failed_together(storage: Storage, members: list[PackedRun], *saved: int) -> None:
    """The whole group fails after these have saved another checkpoint."""
    for number, member in enumerate(members):
        if number in saved:
            member.reached -= 1  # what is stored is newer than what was seen
        member.judge(storage, None, RuntimeError("its worker died"), alone=len(members) == 1)


def test_a_pack_is_started_again_and_in_halves_if_it_fails_again_without_progress(
    storage: Storage, members: list[PackedRun]
) -> None:
    failed_together(storage, members, 0, 1, 3)
    assert next_groups(members, all_failed=True) == [members]
    failed_together(storage, members)
    assert next_groups(members, all_failed=True) == [members[:2], members[2:]]
    # Their failures are counted anew; whatever has ended meanwhile is started no more.
    failed_together(storage, members[:2])
    assert next_groups(members[:2], all_failed=True) == [members[:2]]
    members[0].outcome = {"status": "finished"}
    assert next_groups(members[:2], all_failed=True) == [[members[1]]]


def test_a_pack_that_keeps_failing_with_progress_is_started_in_halves_too(
    storage: Storage, members: list[PackedRun]
) -> None:
    for _ in range(2):
        failed_together(storage, members, 0, 1, 2, 3)
        assert next_groups(members, all_failed=True) == [members]
    failed_together(storage, members, 0, 1, 2, 3)
    assert next_groups(members, all_failed=True) == [members[:2], members[2:]]


def test_those_that_failed_while_others_went_on_are_a_pack_of_their_own(
    storage: Storage, members: list[PackedRun]
) -> None:
    no_memory = {"status": "failed", "reason": "OutOfMemoryError: no memory is left"}
    preempted = {"status": "preempted"}
    for member, answer in zip(members, [preempted, no_memory, no_memory, no_memory], strict=True):
        member.judge(storage, answer, None, alone=False)
    assert next_groups(members, all_failed=False) == [members[:1], members[1:]]
    for member in members[1:]:
        member.judge(storage, no_memory, None, alone=False)
    # Nobody went on: in halves.
    assert next_groups(members[1:], all_failed=False) == [members[1:3], members[3:]]
    for member in members:
        member.outcome = {"status": "finished"}
    assert next_groups(members, all_failed=False) == []


def test_only_its_own_failures_are_held_against_a_run(
    storage: Storage, members: list[PackedRun]
) -> None:
    member, error = members[0], RuntimeError("it broke")
    for _ in range(30):
        member.judge(storage, None, error, alone=False)
    assert member.outcome is None and member.failures == 0
    for _ in range(3):
        assert member.outcome is None
        member.judge(storage, None, error, alone=True)
    assert member.outcome is error
    # With progress ten restarts are the most.
    member = members[1]
    for _ in range(11):
        assert member.outcome is None
        member.reached = -1
        member.judge(storage, None, error, alone=True)
    assert member.outcome is error


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ({"status": "refused", "reason": "not yours"}, InputError, "not yours"),
        ({"status": "lost", "reason": "storage is away"}, StorageLostError, "storage is away"),
        ({"status": "finished"}, RuntimeError, "without writing result.json"),
    ],
)
def test_what_a_worker_answers_is_what_the_driver_says(
    storage: Storage, answer: dict[str, Any], kind: type[Exception], words: str
) -> None:
    member = PackedRun(small_run(), Lease(storage, small_run()), 1, 0)
    member.judge(storage, answer, None, alone=False)
    assert isinstance(member.outcome, kind) and words in str(member.outcome)


def test_a_run_that_another_command_has_taken_over_goes_on_there(storage: Storage) -> None:
    run = small_run()
    with Lease(storage, run) as lease:
        storage.write(f"{run.folder}/lease.json", b'{"holder": "another"}')
        member = PackedRun(run, lease, 1, 0)
        member.judge(storage, {"status": "failed", "reason": "LostRunError"}, None, alone=False)
        assert "another command has taken it over" in str(member.outcome)
        assert isinstance(member.outcome, InputError)


def test_as_many_runs_at_once_as_make_the_gpu_faster_and_fit_into_it() -> None:
    # What one H200 made of ResNet-20 (docs/benchmarks.md).
    rates = {1: 38_696.0, 2: 60_410.0, 4: 86_163.0, 8: 101_077.0, 16: 102_824.0}
    found = RunsAtOnce(rates, bytes_each=10**9, bytes_free=100 * 10**9)
    assert found.best == 8
    assert found.fitting(1, 0) == 8
    # 0.8 of 100 GB for networks of 20 GB and 1 GB of images.
    assert found.fitting(20, 10**9) == 3
    assert found.fitting(1000, 0) == 1


def test_trying_runs_at_once_is_the_same_on_a_cpu() -> None:
    experiment = small_run().experiment
    found = time_at_once(experiment, 8, Execution(), most=2)
    assert list(found.rates) == [1, 2] and all(rate > 0 for rate in found.rates.values())
    assert list(time_at_once(experiment, 8, Execution(), most=1).rates) == [1]


def test_on_gpus_a_grid_finds_out_how_many_runs_fill_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = []

    def probe(*asked: Any) -> RunsAtOnce:
        tried.append(asked)
        rates = {1: 10_000.0, 2: 19_000.0, 4: 30_000.0, 8: 31_000.0}
        return RunsAtOnce(rates, bytes_each=10**9, bytes_free=80 * 10**9)

    monkeypatch.setattr(requested_runs, "probe_runs_at_once", probe)
    runs = seeds("resnet1202", 2) + seeds("resnet20", 6)
    manifest = {"row": {"side": 32}, "train_images": 50_000, "test_images": 10_000}
    # 1,202 layers take 60 times the memory of 20, more than there is.
    assert sizes(shared_out(runs, ONE_GPU, 1, None, manifest)) == [1, 1, 3, 3]
    assert tried == [(EXPERIMENTS["resnet20"], 32, ONE_GPU, 8)]
    said = capsys.readouterr().out
    assert said == (
        "trying how many runs of resnet20 fill a GPU; --runs-per-gpu says it\n"
        "images/s of resnet20 by the number of runs at once on a GPU: "
        "1: 10,000, 2: 19,000, 4: 30,000, 8: 31,000\n"
    )


def test_a_run_that_the_others_would_wait_for_is_not_packed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rates = {1: 39_000.0, 2: 60_000.0, 4: 86_000.0, 8: 101_000.0}
    found = RunsAtOnce(rates, bytes_each=10**6, bytes_free=10**12)
    monkeypatch.setattr(requested_runs, "probe_runs_at_once", lambda *_: found)
    manifest = {"row": {"side": 32}, "train_images": 50_000, "test_images": 10_000}
    # Table 6 on eight GPUs: one ResNet-1202 takes longer than an eighth of all the work.
    runs = seeds("resnet1202", 5) + seeds("resnet110", 16) + seeds("resnet20", 16)
    assert sizes(shared_out(runs, ONE_GPU, 8, None, manifest)) == [1] * 5 + 2 * [4, 4, 4, 4]
    # On one GPU nobody waits for anybody, and five seeds are a pack although a power of two is not.
    assert sizes(shared_out(runs, ONE_GPU, 1, None, manifest)) == [5, 8, 8, 8, 8]


@pytest.mark.parametrize(
    ("execution", "places"),
    [
        (Execution(), 1),
        (replace(ONE_GPU, gpus=0.25), 1),
        (replace(ONE_GPU, workers=2), 1),
        (replace(ONE_GPU, most_workers=2), 1),
        (ONE_GPU, 4),
        (replace(ONE_GPU, compiled=True), 1),
    ],
)
def test_nothing_is_tried_where_runs_cannot_share_a_gpu(execution: Execution, places: int) -> None:
    runs = seeds("resnet20", 4)
    assert sizes(shared_out(runs, execution, places, None, {"row": {"side": 32}})) == [1] * 4


def test_packs_of_runs_that_cannot_share_a_gpu_are_refused() -> None:
    with pytest.raises(InputError, match="--runs-per-gpu 4: runs with --workers 2 take whole"):
        check_runs_per_gpu(4, 2, 1.0, False)
    with pytest.raises(InputError, match=r"--runs-per-gpu 4: with --gpus 0.25 several processes"):
        check_runs_per_gpu(4, 1, 0.25, False)
    with pytest.raises(InputError, match="--runs-per-gpu 4: runs with --compile are trained one"):
        check_runs_per_gpu(4, 1, 1.0, True)
    check_runs_per_gpu(4, 1, 1.0, False)
    check_runs_per_gpu(None, 2, 0.25, True)


def test_a_gpu_that_cannot_be_tried_trains_one_run_at_a_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def probe(*_: Any) -> RunsAtOnce:
        raise TimeoutError("no GPU was ready within 600 s")

    monkeypatch.setattr(requested_runs, "probe_runs_at_once", probe)
    manifest = {"row": {"side": 32}, "train_images": 50_000, "test_images": 10_000}
    assert sizes(shared_out(seeds("resnet20", 3), ONE_GPU, 1, None, manifest)) == [1, 1, 1]
    assert "could not be tried (no GPU was ready within 600 s)" in capsys.readouterr().err
