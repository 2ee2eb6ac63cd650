"""Every row of the catalogue is whole, and what commands derive from it is right."""

from dataclasses import asdict, replace

import pytest

from jobs.grids.sweeps import CIFAR_TRAINING_IMAGES
from jobs.requests.dry_run import dataset_summary
from pipeline.data.catalogue.known_dataset import KnownDataset
from pipeline.data.catalogue.table import DATASETS
from pipeline.data.preparation import check_dataset_name
from pipeline.data.stored import class_names
from pipeline.errors import InputError
from pipeline.storage import Storage
from tests.pipeline.training.small_runs import digits_once


def test_the_sizes_that_are_known_before_anything_is_read() -> None:
    sizes = {
        name: (known.train_images, known.test_images, known.spec.classes)
        for name, known in DATASETS.items()
    }
    assert sizes == {
        "digits": (1_437, 360, 10),
        "cifar10": (50_000, 10_000, 10),
        "cifar100": (50_000, 10_000, 100),
        "fashion-mnist": (60_000, 10_000, 10),
        "imagenet": (1_281_167, 50_000, 1000),
    }
    assert CIFAR_TRAINING_IMAGES == 50_000


@pytest.mark.parametrize("name", DATASETS)
def test_classes_are_named_all_or_none(name: str) -> None:
    known = DATASETS[name]
    # ImageNet's are in whatever brings it: folders of WordNet ids, or the words of a parquet file.
    assert len(set(known.class_names)) == (0 if name == "imagenet" else known.spec.classes)
    assert class_names({"row": asdict(known.spec)}) == known.class_names
    # A copy has them once it is proved to hold the same.
    assert class_names({"row": asdict(replace(known.spec, name="mine"))}) == (
        known.class_names if name == "cifar10" else ()
    )
    fewer = replace(known.spec, classes=known.spec.classes + 1)
    assert class_names({"row": asdict(fewer)}) == ()


def test_only_the_papers_own_data_is_comparable_by_its_archive() -> None:
    assert [name for name, known in DATASETS.items() if known.spec.comparable] == ["cifar10"]


@pytest.mark.parametrize("known", DATASETS.values(), ids=DATASETS)
def test_one_way_leads_to_its_images(known: KnownDataset) -> None:
    ways = (known.embedded is not None, known.read is not None, known.photographs)
    assert sum(ways) == 1
    assert (known.find is None) == (known.read is None)
    assert known.download is None or known.read is not None
    assert "\n" not in known.spec.arrives


@pytest.mark.parametrize("name", DATASETS)
def test_a_summary_before_it_is_prepared(name: str, tmp_path: object) -> None:
    known, found = DATASETS[name], dataset_summary(Storage(str(tmp_path)), name)
    assert (found.train_images, found.test_images) == (known.train_images, known.test_images)
    assert (found.side, found.photographs) == (known.spec.side, name == "imagenet")
    assert found.id == (digits_once().id if name == "digits" else "")


def test_files_of_anyone_are_taken_to_be_of_cifar10s_size(tmp_path: object) -> None:
    found = dataset_summary(Storage(f"{tmp_path}/storage"), str(tmp_path))
    assert (found.train_images, found.side, found.photographs) == (50_000, 32, None)


def test_a_name_of_nothing_is_refused_with_the_nearest(tmp_path: object) -> None:
    storage = Storage(str(tmp_path))
    for check in (check_dataset_name, dataset_summary):
        with pytest.raises(InputError, match=r"no dataset and no path .* did you mean cifar10"):
            check(storage, "cifar1O")  # type: ignore[operator]
