"""Whole runs on photographs: learnt, exact whatever dies and however many workers, and complete."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.data.photo_shards import Photos, open_photos
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.recipe.metrics import SPEEDS, TEST_ERR, TRAIN_CLEAN_ERR
from pipeline.recipe.schedule import expected_points
from pipeline.runs.checkpoint import newest_checkpoint, newest_history
from pipeline.runs.execution import Attempt, Execution
from pipeline.runs.run import Run, read_result, start_run
from pipeline.storage import Storage
from pipeline.training.feeding.feeds import training_feed
from pipeline.training.loop import train
from pipeline.training.step.networks import GroupBatchNorm2d, build_network
from pipeline.training.step.process_group import single_process
from pipeline.training.step.train_state import TrainState
from pipeline.training.verify import examine
from tests.pipeline.data.photographs import as_parquet, ingested, pictures
from tests.pipeline.training.several_workers import trained_by
from tests.pipeline.training.test_loop import DyingStorage, Killed

CPU = torch.device("cpu")
TINY = replace(EXPERIMENTS["resnet18"], crop=32, scale=(32, 40), test_side=36, test_sides=(32, 40),
               bn_group=4, global_batch_size=8, statistics_images=16,
               iterations=6, lr_drops=(3, 5), eval_every=3)  # fmt: skip


def photographs_in(storage: Storage, place: Path) -> Photos:
    return open_photos(storage, ingested(storage, as_parquet(place / "p", pictures()))["id"], None)


def run_on(photos: Photos, **changes: object) -> Run:
    return Run(replace(TINY, **changes), photos.id, photos.key, seed=0)


def state(storage: Storage, run: Run) -> tuple[bytes, bytes, list[tuple[str, int, float]]]:
    end, history = newest_checkpoint(storage, run), newest_history(storage, run)
    assert end is not None and history is not None
    measured = [(p.metric, p.iteration, p.value) for p in history.points if p.metric not in SPEEDS]
    return end.files["weights.safetensors"], end.files["momentum.safetensors"], measured


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Storage, Photos]:
    place = tmp_path_factory.mktemp("whole")
    storage = Storage(str(place / "storage"))
    photos = photographs_in(storage, place)
    start_run(storage, run_on(photos), 1)
    train(run_on(photos), photos, storage, single_process(), attempt=Attempt(decoders=2))
    return storage, photos


def test_a_run_measures_all_that_its_row_asks_for(whole: tuple[Storage, Photos]) -> None:
    storage, photos = whole
    run, history = run_on(photos), newest_history(storage, run_on(photos))
    assert history is not None
    assert {(p.metric, p.iteration) for p in history.points} == expected_points(run.experiment)
    assert {
        "test_center_crop/top1_err",
        "test_ten_crop/top5_err",
        "test_multi_scale/top1_err",
    } < set(history.last())
    result = read_result(storage, run)
    assert result is not None and result["final"][TEST_ERR] <= 100
    findings = list(examine(storage, run))
    assert [finding.what for finding in findings if not finding.good] == []
    assert len(findings) == 5


@pytest.mark.parametrize(
    "dies_writing", ["00000002/momentum", "00000006/manifest.json", "result.json"]
)
def test_killed_and_continued_it_is_the_same(
    whole: tuple[Storage, Photos], tmp_path: Path, dies_writing: str
) -> None:
    photos, place = whole[1], str(tmp_path / "storage")
    run = run_on(photos)
    with pytest.raises(Killed):
        train(
            run,
            photos,
            DyingStorage(place, dies_writing),
            single_process(),
            Execution(checkpoint_seconds=0),
        )
    train(run, photos, Storage(place), single_process(), attempt=Attempt(decoders=3))
    assert state(Storage(place), run) == state(whole[0], run)


def test_two_workers_end_with_the_bytes_of_one(
    whole: tuple[Storage, Photos], tmp_path: Path
) -> None:
    storage = Storage(str(tmp_path))
    photos = photographs_in(storage, tmp_path)
    run = run_on(photos)
    shares = trained_by(2, tmp_path, run)
    assert [len(seen) for seen in shares] == [24, 24]
    assert state(storage, run) == state(whole[0], run)


def test_a_handful_of_photographs_is_learnt_by_heart(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "storage"))
    photos = photographs_in(storage, tmp_path)
    changes = dict(
        augmentation="none",
        iterations=100,
        lr_drops=(70, 85),
        eval_every=100,
        lr=0.02,
        protocols=(),
    )
    result = train(
        run_on(photos, **changes), photos, storage, single_process(), attempt=Attempt(decoders=2)
    )
    assert result["final"][TRAIN_CLEAN_ERR] == 0


def test_averaged_statistics_are_plain_means_over_all_groups(whole: tuple[Storage, Photos]) -> None:
    photos = whole[1]
    run = run_on(photos)
    feed = training_feed(run, photos, single_process(), threads=2)
    found = []
    for one_pass in (False, True):
        train_state = TrainState(run.experiment, build_network(run.experiment, 0), CPU, one_pass)
        train_state.average_statistics((feed.batch(i) for i in range(2)), single_process())
        norms = [
            module
            for module in train_state.network.modules()
            if isinstance(module, GroupBatchNorm2d)
        ]
        found.append(norms[0].running_mean.clone()), found.append(norms[0].running_var.clone())
    network = build_network(run.experiment, 0)
    with torch.no_grad():
        groups = [
            network.conv1(feed.batch(i)[0][start : start + 4]) for i in range(2) for start in (0, 4)
        ]
    means = torch.stack([group.mean((0, 2, 3)) for group in groups]).mean(0)
    variances = torch.stack([group.transpose(0, 1).flatten(1).var(1) for group in groups]).mean(
        0
    )  # unbiased
    feed.close()
    for mean, variance in (found[:2], found[2:]):
        assert torch.allclose(mean, means, atol=1e-6) and torch.allclose(
            variance, variances, rtol=1e-4
        )


def test_more_images_for_the_statistics_than_were_trained_on(
    whole: tuple[Storage, Photos], tmp_path: Path
) -> None:
    photos = whole[1]
    run = run_on(
        photos,
        iterations=2,
        lr_drops=(1,),
        eval_every=1,
        statistics_images=8 * 20,
        protocols=("center_crop",),
    )
    assert train(run, photos, Storage(str(tmp_path)), single_process())["status"] == "finished"


def test_the_final_weights_hold_the_averaged_statistics(
    whole: tuple[Storage, Photos], tmp_path: Path
) -> None:
    storage, photos = whole
    running = run_on(photos, statistics_images=0, protocols=())
    train(running, photos, storage, single_process())
    averaged, plain = state(storage, run_on(photos)), state(storage, running)
    assert (
        averaged[0] != plain[0] and averaged[1] == plain[1]
    )  # other statistics after the same steps
    along = [point for point in averaged[2] if not point[0].startswith("test_")]
    assert along == plain[2]  # Figure 4's points come from the running ones
