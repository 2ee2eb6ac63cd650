"""A pickle in the place of a dataset's images is refused in a line and never loaded, even with a
manifest that fits.
"""

import pickle
from hashlib import blake2b
from json import dumps, loads
from pathlib import Path

import pytest

from pipeline.data.staging import staged_dataset
from pipeline.data.stored import images_path, read_dataset, verify_dataset
from pipeline.errors import InputError
from pipeline.storage import Storage
from tests.pipeline.training.small_runs import digits_once
from tests.pipeline.training.test_damage import Mark


def test_a_pickle_where_images_are_expected_is_never_loaded(
    storage: Storage, tmp_path: Path
) -> None:
    mark, dataset_id = tmp_path / "mark", digits_once().id
    content = pickle.dumps(Mark(mark))
    storage.write(images_path(dataset_id), content)
    path = f"datasets/{dataset_id}/manifest.json"
    honest = loads(storage.read(path))
    for manifest in (
        honest,
        honest | {"size": len(content), "checksum": blake2b(content).hexdigest()},
    ):
        storage.write(path, dumps(manifest).encode())
        for read in (
            read_dataset,
            verify_dataset,
            lambda s, i: staged_dataset(s, i, tmp_path / "cache"),
        ):
            with pytest.raises(InputError, match=r"damaged|not images of ours") as error:
                read(storage, dataset_id)
            assert "\n" not in str(error.value)
    assert not mark.exists()
