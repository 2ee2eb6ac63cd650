"""Pictures that a user names, and the network that is to look at them."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from jobs.execution.evaluate import Model
from jobs.requests.exports import FinishedRuns, means_of
from jobs.requests.options import manifest_named
from jobs.requests.requested_runs import check_suits
from jobs.requests.stored_runs import (
    foreign_model,
    read_exported_file,
    stored_run_named,
    weights_file,
)
from pipeline.data.photo_decoding import UndecodableError, decode, opened
from pipeline.data.photo_shards import holds_photographs
from pipeline.errors import InputError
from pipeline.recipe.layers import Padding
from pipeline.storage import Storage, regular_file

# These load torch, which a picture that cannot be read need not wait for.
if TYPE_CHECKING:
    from pipeline.training.feeding.preprocessing import Preprocessing
    from pipeline.training.measuring.predictions import Predictor

MOST_PICTURE = 1 << 30
"""Bytes of a file; its pixels have a bound of their own."""


def check_pictures(pictures: Iterable[Path]) -> None:
    """Look at every picture's header, without decoding it.

    Raises:
        InputError: names the first that is none.
    """
    for picture in pictures:
        _refusing(picture, opened)


def read_picture(picture: Path) -> Image.Image:
    """A picture in RGB, as those of datasets are converted.

    Raises:
        InputError: it cannot be read or decoded; says why.
    """
    return _refusing(picture, decode)


def _refusing(picture: Path, read: Callable[[bytes], Image.Image]) -> Image.Image:
    try:
        return read(regular_file(picture, MOST_PICTURE))
    except UndecodableError as error:
        raise InputError(f"{picture}: is no picture that can be decoded ({error})") from error
    except OSError as error:
        raise InputError(f"{picture}: cannot be read ({error.strerror or error})") from error


def predictor_named(
    storage: Storage,
    which: str,
    experiment: str | None,
    settings: list[str],
    padding: Padding | None,
    data: str,
) -> "Predictor":
    """The network that is meant: a stored run's, an export's, or that of a weights file.

    The first two know how pictures are prepared and what their classes are called. Of the third
    `data` says it; without, a row that takes no mean of its training images can do.

    Raises:
        InputError: there is none, or something about it is not known.
    """
    from pipeline.training.measuring.predictions import Predictor

    file, told = weights_file(which), experiment is not None or bool(settings)
    if file is not None:
        exported = None if told else read_exported_file(file, which)
    else:
        exported = FinishedRuns(storage).exported(stored_run_named(storage, which, None))
    if exported is None:
        assert file is not None
        model = foreign_model(file, which, experiment, settings, padding)
        prepared, names = _of_foreign(storage, model, data)
        return Predictor(model.experiment, model.weights, which, prepared, names)
    if told or data or padding:
        raise InputError(
            f"{which}: says itself what it is, and how pictures are prepared; leave --as, --set, "
            "--padding and --data out"
        )
    row = exported.run.experiment
    prepared, names = exported.preprocessing, exported.class_names
    return Predictor(row, exported.weights, which, prepared, names)


def _of_foreign(
    storage: Storage, model: Model, data: str
) -> tuple["Preprocessing", tuple[str, ...]]:
    """How pictures are prepared for weights made elsewhere, and what their classes are called."""
    from pipeline.training.exported_weights import imagenet_names, named_classes, numbers
    from pipeline.training.feeding.preprocessing import Preprocessing
    from pipeline.training.step.weights import read_tensors

    row = model.experiment
    if data:
        manifest = manifest_named(storage, data)
        check_suits(row, manifest["row"]["name"], holds_photographs(manifest))
        dataset = means_of(storage, manifest["id"])
        return Preprocessing.of(row, dataset), named_classes(manifest)
    try:
        prepared = Preprocessing.without_dataset(row, row.crop if row.family == "imagenet" else 32)
    except ValueError as error:
        raise InputError(
            f"{model.name}: {error}; name them by --data, or say --set normalisation=torchvision, "
            "as most weights of others expect"
        ) from error
    classes = len(read_tensors(model.weights, model.name)[0]["fc.weight"])
    if row.family == "imagenet" and classes == len(imagenet_names()):
        note, names = "its classes are taken for ImageNet's in their usual order", imagenet_names()
    else:
        note, names = "its classes have no names here", numbers(classes)
    print(f"note: {model.name}: {note}; --data names their dataset", file=sys.stderr)
    return prepared, names
