"""A few images in the parquet layout, for `data prepare`."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.pipeline.data.photographs import photograph


def write_images(folder: Path) -> None:
    """Twenty images of 32x32 pixels for training, and twenty for testing."""
    folder.mkdir(parents=True)
    kind = pa.struct([("bytes", pa.binary())])
    for split, first in (("train", 0), ("test", 50)):
        numbers = range(first, first + 20)
        content = [{"bytes": photograph(number, (32, 32), form="PNG")} for number in numbers]
        table = {"img": pa.array(content, kind), "label": [number % 10 for number in numbers]}
        pq.write_table(pa.table(table), folder / f"{split}.parquet")
