"""A dataset in storage is found by its name, its id or the id's first digits, if one is meant."""

from dataclasses import replace

import pytest

from pipeline.data.stored import find_stored, require_stored, stored_manifests, write_dataset
from pipeline.errors import InputError
from pipeline.storage import Storage
from tests.pipeline.training.small_runs import digits_once

ID = "186de2c683d404c1"


@pytest.mark.parametrize("name", ["digits", ID, ID[:4], ID[:8]])
def test_names_and_ids_find_it(storage: Storage, name: str) -> None:
    (manifest,) = stored_manifests(storage)
    assert find_stored(storage, name) == require_stored(storage, name) == manifest


@pytest.mark.parametrize("name", [ID[:3], "", ID[1:], "Digits", f"../{ID}", "0" * 16])
def test_nothing_else_does(storage: Storage, name: str) -> None:
    assert find_stored(storage, name) is None
    with pytest.raises(InputError, match=r"is not prepared in .* \(prepared: digits\)"):
        require_stored(storage, name)


def test_of_two_datasets_of_a_name_the_id_says_which(storage: Storage) -> None:
    other = replace(digits_once(), id="0123456789abcdef")
    write_dataset(storage, other, {})
    with pytest.raises(InputError, match=f"several datasets of that name; .*{other.id}, {ID}"):
        find_stored(storage, "digits")
    assert require_stored(storage, other.id)["id"] == other.id
    assert require_stored(storage, ID[:4])["id"] == ID
