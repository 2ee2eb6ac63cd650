"""A dataset is its images and labels, whatever their order; what is stored is what is read."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from pipeline.data.catalogue.table import DATASETS
from pipeline.data.datasets import Dataset, Images, canonical_dataset
from pipeline.data.stored import (
    read_dataset,
    read_manifest,
    stored_manifests,
    verify_dataset,
    write_dataset,
)
from pipeline.errors import InputError
from pipeline.storage import Storage
from tests.pipeline.training.small_runs import digits_once

DIGITS = DATASETS["digits"].spec


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


def reordered(images: Images) -> Images:
    order = np.random.default_rng(1).permutation(len(images))
    return Images(images.pixels[order], images.labels[order])


def test_digits_are_1437_and_360_images_with_a_golden_id() -> None:
    dataset = digits_once()
    assert (len(dataset.train), len(dataset.test), dataset.id) == (1437, 360, "186de2c683d404c1")
    assert dataset.key == "digits-186de2c6"


def test_the_digits_split_is_proportional_by_class() -> None:
    sizes = np.bincount(load_digits().target)
    test = np.bincount(digits_once().test.labels)
    assert np.array_equal(test + np.bincount(digits_once().train.labels), sizes)
    assert np.abs(test - sizes * 360 / 1797).max() < 1


def test_digits_are_the_scans_doubled() -> None:
    dataset = digits_once()
    both = np.concatenate([dataset.train.pixels, dataset.test.pixels])
    assert both.shape[1:] == (16, 16, 3)
    assert np.array_equal(both, both[:, ::2, ::2].repeat(2, axis=1).repeat(2, axis=2))
    scans = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)
    assert sorted(image.tobytes() for image in both[:, ::2, ::2, 0]) == sorted(
        scan.tobytes() for scan in scans
    )


def test_the_same_images_in_another_order_are_the_same_dataset() -> None:
    dataset = digits_once()
    again = canonical_dataset(DIGITS, reordered(dataset.train), reordered(dataset.test))
    assert again.id == dataset.id
    assert np.array_equal(again.train.pixels, dataset.train.pixels)
    assert np.array_equal(again.train.labels, dataset.train.labels)


def test_equal_images_with_different_labels_have_one_order() -> None:
    pixels = np.zeros((3, 16, 16, 3), dtype=np.uint8)
    ids = {
        canonical_dataset(
            DIGITS, Images(pixels, np.array(labels, dtype=np.uint8)), digits_once().test
        ).id
        for labels in ([0, 1, 2], [2, 0, 1], [1, 2, 0])
    }
    assert len(ids) == 1


def test_a_label_a_pixel_and_the_split_are_part_of_the_id() -> None:
    train, test = digits_once().train, digits_once().test
    labels, pixels = train.labels.copy(), train.pixels.copy()
    labels[7] = (labels[7] + 1) % 10
    pixels[0, 0, 0, 0] ^= 1
    changed = (
        (train, test),
        (Images(train.pixels, labels), test),
        (Images(pixels, train.labels), test),
        (test, train),
    )
    assert len({canonical_dataset(DIGITS, *splits).id for splits in changed}) == 4


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (
            Images(np.zeros((0, 16, 16, 3), np.uint8), np.zeros(0, np.uint8)),
            "train split has no images",
        ),
        (
            Images(np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1, np.uint8)),
            r"train images are \(8, 8, 3\), not",
        ),
        (
            Images(np.zeros((3, 16, 16, 3), np.uint8), np.array([0, 10, 1], np.uint8)),
            "train image 1 has label 10",
        ),
    ],
)
def test_what_is_no_dataset_is_refused(images: Images, said: str) -> None:
    with pytest.raises(InputError, match=said):
        canonical_dataset(DIGITS, images, digits_once().test)


def test_written_and_read_back(storage: Storage) -> None:
    dataset = digits_once()
    manifest = write_dataset(storage, dataset, {"kind": "embedded"})
    for again in (read_dataset(storage, dataset.id), verify_dataset(storage, dataset.id)):
        assert (again.spec, again.id) == (dataset.spec, dataset.id)
        assert np.array_equal(again.train.pixels, dataset.train.pixels)
        assert np.array_equal(again.test.labels, dataset.test.labels)
    assert stored_manifests(storage) == [manifest]


def test_a_second_source_of_the_same_images_is_remembered_once(storage: Storage) -> None:
    dataset = digits_once()
    for kind in ("a", "b", "b"):
        write_dataset(storage, dataset, {"kind": kind})
    official = replace(dataset, spec=replace(DIGITS, name="renamed", comparable=True))
    manifest = write_dataset(storage, official, {"kind": "official"})
    assert [source["kind"] for source in manifest["sources"]] == ["a", "b", "official"]
    assert (manifest["row"]["name"], manifest["row"]["comparable"]) == ("digits", True)


@pytest.mark.parametrize(
    "damage",
    [lambda c: c[:-1], lambda c: c[:5000] + bytes([c[5000] ^ 1]) + c[5001:], lambda c: b""],
)
def test_a_damaged_file_is_not_read(storage: Storage, damage: object) -> None:
    dataset: Dataset = digits_once()
    write_dataset(storage, dataset, {})
    path = f"datasets/{dataset.id}/images.safetensors"
    storage.write(path, damage(storage.read(path)))  # type: ignore[operator]
    with pytest.raises(InputError, match=r"damaged \(checksum differs\)"):
        read_dataset(storage, dataset.id)


def test_a_dataset_that_is_not_there_says_how_to_get_it(storage: Storage) -> None:
    with pytest.raises(InputError, match="data prepare"):
        read_dataset(storage, "0123456789abcdef")


def test_images_without_a_manifest_are_not_a_dataset(storage: Storage) -> None:
    storage.write("datasets/0123456789abcdef/images.safetensors", b"half")
    assert read_manifest(storage, "0123456789abcdef") is None
    assert stored_manifests(storage) == []
