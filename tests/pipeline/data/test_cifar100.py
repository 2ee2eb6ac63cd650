"""CIFAR-100 from tiny archives in its two official layouts: fine labels alone, never comparable."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from jobs.requests.dry_run import dataset_summary
from pipeline.data import preparation
from pipeline.data.catalogue import cifar10, cifar_archives
from pipeline.data.catalogue.cifar100 import ARCHIVES, CIFAR100
from pipeline.data.datasets import Images, canonical_dataset
from pipeline.data.download import md5_of
from pipeline.data.preparation import prepare, resolve_dataset
from pipeline.data.progress import silent
from pipeline.data.stored import read_dataset
from pipeline.errors import InputError
from pipeline.storage import Storage
from tests.conftest import Cli
from tests.pipeline.data import test_cifar10_binary as of_cifar10
from tests.pipeline.data.test_cifar10_binary import archive
from tests.pipeline.data.test_cifar10_python import Evil

RNG = np.random.default_rng(1)
PIXELS = RNG.integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
FINE = np.array([0, 99, 50, 10, 11, 98, 97, 3, 42], dtype=np.uint8)
COARSE = FINE % 20
SPLITS = {"train": slice(0, 6), "test": slice(6, 9)}
EXPECTED = canonical_dataset(
    CIFAR100.spec, *(Images(PIXELS[part], FINE[part]) for part in SPLITS.values())
)


def planes() -> np.ndarray:
    return PIXELS.transpose(0, 3, 1, 2).reshape(len(PIXELS), -1)


def binary(fine: np.ndarray = FINE) -> bytes:
    """Records of a coarse label, a fine one and 3,072 values."""
    records = np.concatenate([COARSE[:, None], fine[:, None], planes()], axis=1).astype(np.uint8)
    files = {f"{name}.bin": records[part].tobytes() for name, part in SPLITS.items()}
    return archive(files | {"fine_label_names.txt": b"apple\n"})


def pickled(**changes: object) -> bytes:
    contents: dict[str, object] = {
        name: {
            b"data": planes()[part],
            b"coarse_labels": COARSE[part].tolist(),
            b"fine_labels": FINE[part].tolist(),
        }
        for name, part in SPLITS.items()
    }
    contents |= changes
    return archive({name: pickle.dumps(content, protocol=3) for name, content in contents.items()})


@pytest.fixture(params=["cifar-100-binary.tar.gz", "cifar-100-python.tar.gz"])
def official(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A small archive in an official layout, taken for the official one."""
    path = tmp_path / "site" / request.param
    path.parent.mkdir()
    path.write_bytes(binary() if "binary" in request.param else pickled())
    monkeypatch.setitem(ARCHIVES.checksums, request.param, md5_of(path))
    return path


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "storage"))


def test_the_official_checksums() -> None:
    assert ARCHIVES.checksums == {
        "cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8",
        "cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85",
    }


def test_both_layouts_are_the_same_images_with_their_fine_labels(official: Path) -> None:
    dataset = ARCHIVES.read(official)
    assert dataset.id == EXPECTED.id
    assert sorted(dataset.train.labels.tolist()) == sorted(FINE[:6].tolist())
    assert dataset.key.startswith("cifar100-") and not dataset.spec.comparable


def test_it_is_prepared_by_path_and_found_by_name(official: Path, storage: Storage) -> None:
    manifest = prepare(storage, "cifar100", official, False, silent)
    assert (manifest["id"], manifest["row"]["classes"]) == (EXPECTED.id, 100)
    assert not manifest["row"]["comparable"]
    assert resolve_dataset(storage, "cifar100", silent) == manifest
    assert resolve_dataset(storage, str(official), silent) == manifest
    assert np.array_equal(read_dataset(storage, EXPECTED.id).test.labels, EXPECTED.test.labels)
    found = dataset_summary(storage, "cifar100")
    assert (found.id, found.train_images, found.test_images) == (EXPECTED.id, 6, 3)


def test_an_archive_of_another_name_is_known_by_its_checksum(
    official: Path, storage: Storage
) -> None:
    renamed = official.rename(official.with_name("data.tgz"))
    assert resolve_dataset(storage, str(renamed), silent)["row"]["name"] == "cifar100"


@pytest.mark.parametrize("official", ["cifar-100-binary.tar.gz"], indirect=True)
def test_it_is_downloaded_once(
    official: Path, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(cifar_archives, "SITE", official.parent.as_uri())
    with pytest.raises(InputError, match="cifar100 comes by official archive: --from cifar-100"):
        prepare(storage, "cifar100", None, False, silent)
    assert prepare(storage, "cifar100", None, True, silent)["id"] == EXPECTED.id
    official.unlink()
    assert prepare(storage, "cifar100", None, False, silent)["id"] == EXPECTED.id


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("official", ["cifar-100-binary.tar.gz"], indirect=True)
def test_of_two_archives_in_a_folder_the_one_that_is_named_is_read(
    official: Path, name: str, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = official.with_name("cifar-10-binary.tar.gz")
    other.write_bytes(archive(of_cifar10.members()))
    monkeypatch.setitem(cifar10.ARCHIVES.checksums, other.name, md5_of(other))
    assert prepare(storage, name, official.parent, False, silent)["row"]["name"] == name


def test_of_two_archives_in_a_folder_the_one_named_next_is_read_too(
    official: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the folder has not changed since says nothing of the dataset that was not read."""
    other = official.parent / "cifar-10-binary.tar.gz"
    other.write_bytes(of_cifar10.archive(of_cifar10.members()))
    monkeypatch.setitem(cifar10.ARCHIVES.checksums, other.name, md5_of(other))
    first = prepare(storage, "cifar10", official.parent, False, silent)
    second = prepare(storage, "cifar100", official.parent, False, silent)
    assert (first["row"]["name"], second["row"]["name"]) == ("cifar10", "cifar100")
    assert prepare(storage, "cifar100", official.parent, False, silent)["id"] == second["id"]


def test_a_folder_with_another_dataset_than_the_named_one_is_refused(
    official: Path, storage: Storage
) -> None:
    with pytest.raises(InputError, match=r"--from .*: holds cifar100, not cifar10$"):
        prepare(storage, "cifar10", official.parent, False, silent)
    assert storage.names("datasets") == []


def test_a_fine_label_above_99_is_refused() -> None:
    fine = FINE.copy()
    fine[1] = 100
    with pytest.raises(InputError, match="cifar100: train image 1 has label 100"):
        ARCHIVES.binary_members(binary(fine), "here")


def test_cifar10s_members_are_not_it() -> None:
    with pytest.raises(InputError, match=r"holds no train\.bin; this is not the CIFAR-100 archive"):
        ARCHIVES.binary_members(archive(of_cifar10.members()), "here")


def test_a_pickle_without_fine_labels_or_with_more_than_arrays_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"test is not a batch of images \(b'fine_labels'"):
        ARCHIVES.python_members(pickled(test={b"data": planes()[6:], b"labels": [1, 2, 3]}), "here")
    touched = tmp_path / "touched"
    with pytest.raises(InputError, match=r"its pickle names .*\.system"):
        ARCHIVES.python_members(pickled(train=Evil(os.system, f"touch {touched}")), "here")
    assert not touched.exists()


def test_a_truncated_archive_is_told_its_own_checksums(
    cli: Cli, tmp_path: Path, storage: Storage
) -> None:
    path = tmp_path / "cifar-100-python.tar.gz"
    path.write_bytes(pickled()[:-10])
    done = cli("data", "prepare", "cifar100", "--from", path, "--storage", storage.uri)
    assert done.returncode == 2
    assert "eb9058c3a382ffc7106e4002c42a8d85 (cifar-100-python.tar.gz)" in done.stderr


def test_commands_know_it_before_it_is_prepared(cli: Cli, storage: Storage) -> None:
    listed = cli("data", "list", "--json", "--storage", storage.uri)
    assert "cifar100" in [row["name"] for row in json.loads(listed.stdout)]
    dry = cli("train", "resnet20", "--data", "cifar100", "--dry-run", "--storage", storage.uri)
    assert "cifar100, not prepared" in dry.stdout
    refused = cli("train", "resnet20", "--data", "cifar100", "--storage", storage.uri)
    assert refused.returncode == 2 and "data prepare cifar100 --download" in refused.stderr
