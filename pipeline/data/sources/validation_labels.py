"""The class of each of ILSVRC-2012's validation images, which lie in one folder without classes.

Two lists say it: the development kit's ground truth, and Kaggle's `LOC_val_solution.csv`.
"""

import csv
import gzip
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import numpy as np

from pipeline.data.sources.tar_archives import tar_files
from pipeline.errors import InputError, first_line
from pipeline.storage import check_regular, regular_file

DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"
META = "data/meta.mat"
SOLUTION = "LOC_val_solution.csv"
LIST_BYTES = 64 << 20
"""Of a file that is read here, at the most; each has less than three million."""


def validation_labels(places: Iterable[Path]) -> tuple[Path, dict[str, str]] | None:
    """The first list that lies in one of the places, and the WordNet id of each image by its name.

    Names are without their suffix. Places are looked through in their order.

    Raises:
        InputError: it is damaged.
    """
    for place in places:
        if (solution := place / SOLUTION).is_file():
            return solution, read_solution(solution)
        for devkit in (place / DEVKIT.removesuffix(".tar.gz"), place / DEVKIT):
            if devkit.exists():
                wnids, truth = read_devkit(devkit)
                return devkit, {
                    f"ILSVRC2012_val_{at:08d}": wnids[number] for at, number in enumerate(truth, 1)
                }
    return None


def read_solution(file: Path) -> dict[str, str]:
    """The WordNet id of each image of Kaggle's list.

    A line is `ImageId,PredictionString`; the latter has a class and four numbers for each object.

    Raises:
        InputError: it is another table.
    """
    labels: dict[str, str] = {}
    try:
        _check_size(file.name, check_regular(file).st_size)
        with file.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.reader(lines)
            header = next(rows, [])
            if header != ["ImageId", "PredictionString"]:
                raise ValueError(f"its columns are {', '.join(header) or 'none'}")
            for row in rows:
                image, objects = row
                classes = set(objects.split()[::5])
                if len(classes) != 1 or image in labels:
                    raise ValueError(f"line {rows.line_num} has not one class of one image")
                (labels[image],) = classes
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            f"{file}: not Kaggle's list of ImageId and PredictionString ({first_line(error)}); "
            "fetch it again"
        ) from error
    return labels


def read_devkit(devkit: Path) -> tuple[dict[int, str], list[int]]:
    """The WordNet id of each ILSVRC class number, and the class numbers of the validation images.

    The development kit is the archive, or the folder that comes out of it.

    Raises:
        InputError: it is not the development kit of tasks 1 and 2.
    """
    # Slow to import, and only the tar files have a devkit.
    from scipy.io import loadmat

    if not devkit.is_dir():
        check_regular(devkit)
    try:
        files = _unpacked(devkit) if devkit.is_dir() else _packed(devkit)
        absent = sorted({TRUTH, META} - files.keys())
        if absent:
            raise ValueError(f"holds no {absent[0]}")
        found = loadmat(BytesIO(files[META]), squeeze_me=True, variable_names=["synsets"])
        if "synsets" not in found:
            raise ValueError(f"{META} holds no synsets")
        synsets = np.atleast_1d(found["synsets"])
        # Synsets with children are not classes: they only hold the 1,000 leaves together.
        leaves = [synset for synset in synsets if int(synset[4]) == 0]
        wnids = {int(synset[0]): str(synset[1]) for synset in leaves}
        truth = [int(line) for line in files[TRUTH].split()]
        unknown = sorted(set(truth) - set(wnids))
    # Everything is caught, because foreign files of MATLAB make scipy's reader raise anything.
    except Exception as error:
        raise InputError(
            f"{devkit}: not ILSVRC-2012's development kit ({type(error).__name__}: "
            f"{first_line(error)}); fetch it again"
        ) from error
    if unknown:
        raise InputError(f"{devkit}: validation labels out of range, such as {unknown[0]}")
    return wnids, truth


def _packed(devkit: Path) -> dict[str, bytes]:
    files = {}
    with gzip.open(devkit) as unpacked:
        for member in tar_files(unpacked, compressed=True):
            for name in (TRUTH, META):
                if member.name.endswith(name):
                    _check_size(name, member.size)
                    files[name] = unpacked.read(member.size)
    return files


def _unpacked(devkit: Path) -> dict[str, bytes]:
    there = {name: devkit / name for name in (TRUTH, META) if (devkit / name).is_file()}
    for name, file in there.items():
        _check_size(name, file.stat().st_size)
    return {name: regular_file(file, LIST_BYTES) for name, file in there.items()}


def _check_size(name: str, size: int) -> None:
    if size > LIST_BYTES:
        raise ValueError(f"{name} has {size:,} bytes")
