"""A few small photographs in each layout that is read: drawn, so that tests need no file of
anybody's.
"""

import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy.io import savemat

from pipeline.data.photo_ingest import Reading, finish, ingest_part
from pipeline.data.photo_sources import list_source
from pipeline.storage import Storage

WNIDS = ("n01440764", "n01443537", "n01484850")
SIZES = ((90, 70), (64, 101), (300, 260), (75, 75))


def photograph(number: int, size: tuple[int, int], mode: str = "RGB", form: str = "JPEG") -> bytes:
    """A smooth random picture, encoded."""
    coarse = np.random.default_rng(number).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)
    sink = BytesIO()
    image.save(sink, form, **({"quality": 90} if form == "JPEG" else {}))
    return sink.getvalue()


def pictures(each: int = 4, classes: int = len(WNIDS)) -> dict[str, list[tuple[str, int, bytes]]]:
    """Name, label and bytes of each image of both splits; among them a grey one and one in CMYK."""
    modes = {1: "L", 2: "CMYK"}
    train = [
        (
            f"{WNIDS[label % len(WNIDS)]}_{n}.JPEG",
            label,
            photograph(10 * label + n, SIZES[n % 4], modes.get(n, "RGB")),
        )
        for label in range(classes)
        for n in range(each)
    ]
    test = [
        (f"ILSVRC2012_val_{n + 1:08d}.JPEG", n % classes, photograph(500 + n, SIZES[n % 4]))
        for n in range(2 * classes)
    ]
    return {"train": train, "test": test}


def as_parquet(
    folder: Path, images: dict[str, list[tuple[str, int, bytes]]], row_group: int = 5
) -> Path:
    """The Hugging Face layout."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, prefix in (("train", "train"), ("test", "validation")):
        rows = [
            {"image": {"bytes": content, "path": name}, "label": label}
            for name, label, content in images[split]
        ]
        pq.write_table(
            pa.Table.from_pylist(rows[::-1]),
            folder / f"{prefix}-0.parquet",
            row_group_size=row_group,
        )
    return folder


def as_folders(folder: Path, images: dict[str, list[tuple[str, int, bytes]]]) -> Path:
    """A folder per class."""
    for split, name in (("train", "train"), ("test", "val")):
        for file, label, content in images[split]:
            target = folder / name / WNIDS[label] / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    return folder


def tar_bytes(files: dict[str, bytes], mode: str = "w") -> bytes:
    sink = BytesIO()
    with tarfile.open(fileobj=sink, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, BytesIO(content))
    return sink.getvalue()


def as_tars(folder: Path, images: dict[str, list[tuple[str, int, bytes]]]) -> Path:
    """ILSVRC-2012's three archives; its class numbers are in another order than the names."""
    folder.mkdir(parents=True, exist_ok=True)
    of_class: dict[str, dict[str, bytes]] = {}
    for name, label, content in images["train"]:
        of_class.setdefault(f"{WNIDS[label]}.tar", {})[name] = content
    (folder / "ILSVRC2012_img_train.tar").write_bytes(
        tar_bytes({n: tar_bytes(f) for n, f in of_class.items()})
    )
    (folder / "ILSVRC2012_img_val.tar").write_bytes(
        tar_bytes({name: content for name, _, content in images["test"]})
    )
    numbers = {label: len(WNIDS) - label for label in range(len(WNIDS))}
    kind = [
        ("ILSVRC2012_ID", "O"),
        ("WNID", "O"),
        ("words", "O"),
        ("gloss", "O"),
        ("num_children", "O"),
    ]
    synsets = [(numbers[label], wnid, wnid, "", 0) for label, wnid in enumerate(WNIDS)] + [
        (9, "n0", "entity", "", 3)
    ]
    meta = BytesIO()
    savemat(meta, {"synsets": np.array(synsets, dtype=kind)})
    truth = "".join(f"{numbers[label]}\n" for _, label, _ in images["test"])
    files = {
        "d/data/meta.mat": meta.getvalue(),
        "d/data/ILSVRC2012_validation_ground_truth.txt": truth.encode(),
    }
    (folder / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(tar_bytes(files, "w:gz"))
    return folder


def ingested(
    storage: Storage, path: Path, reading: Reading | None = None, name: str = "photos"
) -> dict:
    """A source read part by part in this process; its manifest."""
    reading = reading or Reading()
    listing = list_source(path)
    key = reading.key(listing, str(path))
    for number, part in enumerate(listing.parts):
        ingest_part(storage, key, number, part, listing.classes, reading)
    return finish(
        storage,
        name,
        key,
        listing,
        reading,
        {"kind": listing.layout, "path": str(path)},
        official=False,
    )
