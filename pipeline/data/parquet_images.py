"""A user's parquet files of images, in the Hugging Face layout, opened and read within bounds.

Each row has a struct with an image's encoded `bytes`, and an integer `label`. Parquet is
compressed, so a small file can hold more than a machine does: how much, is asked before it is read.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError, first_line
from pipeline.storage import check_regular

ROWS, BYTES_PER_ROW = 10_000, 8
DECODED, DECODED_PER_BYTE = 64 << 20, 64
"""What any file may hold (rows, and bytes once decompressed), and more with its size.

Encoded images hardly shrink, and have 67 bytes at least: files stay far below it.
"""
BATCH_ROWS, BATCH_BYTES = 256, 1 << 30
"""At most so many rows at a time, and fewer where each could be large."""

_BROKEN = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError)
"""What Arrow's readers raise of damaged or hostile bytes."""


class ImagesFile:
    """A parquet file of images; `image_column` is the first of some names that it has.

    Raises (from the constructor):
        InputError: it is none, cannot be read, has columns of other types, or says that it holds
            more than a file of its size can.
    """

    def __init__(self, file: Path, image_columns: Sequence[str]) -> None:
        self.file = file
        try:
            size = check_regular(file).st_size
            self._parquet = pq.ParquetFile(file)
            schema, about = self._parquet.schema_arrow, self._parquet.metadata
            groups = [about.row_group(number) for number in range(about.num_row_groups)]
            self.rows = [group.num_rows for group in groups]
            self._decoded = [group.total_byte_size for group in groups]
        except _BROKEN as error:
            raise self._unreadable(first_line(error)) from error
        except MemoryError:
            raise self._unreadable("memory ran out") from None
        self._check(self.rows, ROWS + size // BYTES_PER_ROW, "rows")
        self._check(self._decoded, DECODED + DECODED_PER_BYTE * size, "bytes")
        self.image_column = self._image_column(schema, image_columns)

    def _unreadable(self, why: str) -> InputError:
        return InputError(f"{self.file}: not a readable parquet file ({why})")

    def _check(self, counts: list[int], most: int, what: str) -> None:
        if min(counts, default=0) < 0 or sum(counts) > most:
            raise InputError(
                f"{self.file}: holds {sum(counts):,} {what}; a file of its size has at most "
                f"{most:,}"
            )

    def _image_column(self, schema: pa.Schema, names: Sequence[str]) -> str:
        columns: list[str] = schema.names
        found = next((name for name in names if name in columns), None)
        if found is None or "label" not in columns:
            raise InputError(
                f"{self.file}: columns are {', '.join(columns)[:200]}; expected "
                f"{' or '.join(names)}, and label"
            )
        for name in (found, "label"):
            if columns.count(name) > 1:
                raise InputError(f"{self.file}: column {name} is there twice")
        image, label = schema.field(found).type, schema.field("label").type
        encoded = [
            field.type for field in (image if pa.types.is_struct(image) else ())
            if field.name == "bytes"
        ]  # fmt: skip
        if (
            len(encoded) != 1
            or not (pa.types.is_binary(encoded[0]) or pa.types.is_large_binary(encoded[0]))
            or not pa.types.is_integer(label)
        ):
            raise InputError(
                f"{self.file}: expected an image with `bytes` and an integer label, not "
                f"{str(image)[:200]}, {str(label)[:200]}"
            )
        return found

    def images(self, first: int = 0, last: int | None = None) -> Iterator[tuple[Any, Any]]:
        """Encoded bytes and label of each row in row groups `first` to `last` (excluded).

        Either may be None.

        Raises:
            InputError: the file is damaged; says after which row.
        """
        last = len(self.rows) if last is None else last
        number = sum(self.rows[:first])
        # A text that repeats is in the file once: one image can be as large as its row group.
        largest = max(self._decoded[first:last], default=0)
        rows = max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, largest)))
        try:
            for batch in self._parquet.iter_batches(
                rows,
                row_groups=range(first, last),
                columns=[f"{self.image_column}.bytes", "label"],
                use_threads=False,
            ):
                image, label = (batch.column(n) for n in (self.image_column, "label"))
                for each, of_it in zip(image.to_pylist(), label.to_pylist(), strict=True):
                    yield (each or {}).get("bytes"), of_it
                    number += 1
        except _BROKEN as error:
            raise self._damaged(number, first_line(error)) from error
        except MemoryError:
            raise self._damaged(number, "memory ran out") from None

    def _damaged(self, number: int, why: str) -> InputError:
        return InputError(f"{self.file}: damaged after row {number} ({why})")
