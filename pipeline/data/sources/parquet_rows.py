"""Parquet files of a user's, opened and read within bounds.

Parquet is compressed, so a small file can hold more than a machine does: how much, is asked before
it is read.
"""

from collections.abc import Iterator
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


class ParquetRows:
    """A parquet file: its `schema`, and the rows of each of its row `groups`.

    Raises (from the constructor):
        InputError: it is none, cannot be read, or says that it holds more than a file of its size
            can.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            size = check_regular(file).st_size
            self._parquet = pq.ParquetFile(file)
            self.schema, about = self._parquet.schema_arrow, self._parquet.metadata
            groups = [about.row_group(number) for number in range(about.num_row_groups)]
            self.groups = [group.num_rows for group in groups]
            self._decoded = [group.total_byte_size for group in groups]
        except _BROKEN as error:
            raise self._unreadable(first_line(error)) from error
        except MemoryError:
            raise self._unreadable("memory ran out") from None
        self._check(self.groups, ROWS + size // BYTES_PER_ROW, "rows")
        self._check(self._decoded, DECODED + DECODED_PER_BYTE * size, "bytes")

    def _unreadable(self, why: str) -> InputError:
        return InputError(f"{self.file}: not a readable parquet file ({why})")

    def _check(self, counts: list[int], most: int, what: str) -> None:
        if min(counts, default=0) < 0 or sum(counts) > most:
            raise InputError(
                f"{self.file}: holds {sum(counts):,} {what}; a file of its size has at most "
                f"{most:,}"
            )

    def read(
        self, columns: list[str], first: int = 0, last: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Each row's cells by column, in row groups `first` to `last` (excluded).

        Raises:
            InputError: the file is damaged; says after which row.
        """
        last = len(self.groups) if last is None else last
        number = sum(self.groups[:first])
        # A text that repeats is in the file once: one image can be as large as its row group.
        largest = max(self._decoded[first:last], default=0)
        rows = max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, largest)))
        try:
            for batch in self._parquet.iter_batches(
                rows, row_groups=range(first, last), columns=columns, use_threads=False
            ):
                for record in batch.to_pylist():
                    yield record
                    number += 1
        except _BROKEN as error:
            raise self._damaged(number, first_line(error)) from error
        except MemoryError:
            raise self._damaged(number, "memory ran out") from None

    def _damaged(self, number: int, why: str) -> InputError:
        return InputError(f"{self.file}: damaged after row {number} ({why})")
