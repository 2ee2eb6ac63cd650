"""Frames as parquet files: written alike each time, and read within bounds.

Parquet is compressed, so a small file can hold more than a machine does: how much that is, is asked
before anything becomes a table. What the values may be, `analysis.measured.frames` checks.
"""

from collections.abc import Mapping
from io import BytesIO

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from analysis.measured.schema import Column
from pipeline.errors import InputError, first_line

ROWS, ROWS_PER_BYTE = 200_000, 2
DECODED, DECODED_PER_BYTE = 64 << 20, 64
"""What any file may hold (rows, and bytes once decoded), and what each of its bytes adds to that.

Files of thousands of runs stay below a tenth of it.
"""

ALLOWED = {
    "text": (pa.types.is_string, pa.types.is_large_string, pa.types.is_null),
    "integer": (pa.types.is_integer, pa.types.is_floating, pa.types.is_null),
    "number": (pa.types.is_floating, pa.types.is_integer, pa.types.is_null),
    "boolean": (pa.types.is_boolean,),
}
"""The types of a file's columns by kind; whole numbers with gaps may come as fractions."""


def parquet_bytes(frame: pd.DataFrame) -> bytes:
    """A frame as the file that `read_parquet` reads."""
    buffer = BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def read_parquet(content: bytes, schema: Mapping[str, Column], where: str) -> pd.DataFrame:
    """The columns of a schema that a file has, others left out; `where` names it in messages.

    Raises:
        InputError: it is no parquet file, is damaged, holds more than its size allows, or has a
            column of another type.
    """
    try:
        described = pq.ParquetFile(pa.BufferReader(content))
        _check_columns(described.schema_arrow, described.metadata.num_rows, schema, where)
        names = [name for name in schema if name in described.schema_arrow.names]
        texts = [name for name in names if schema[name].kind == "text"]
        # As a dictionary, a text that repeats a million times is in memory once.
        file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=texts)
        _check_size(file.metadata.num_rows, ROWS + ROWS_PER_BYTE * len(content), "rows", where)
        decoded = sum(
            file.metadata.row_group(number).total_byte_size for number in range(file.num_row_groups)
        )
        most = DECODED + DECODED_PER_BYTE * len(content)
        _check_size(decoded, most, "bytes", where)
        table = file.read(names, use_threads=False)
        _check_size(sum(map(_text_bytes, table.columns)), most, "bytes", where)
        # What the file says of its own types is not followed: the schema decides.
        return table.to_pandas(ignore_metadata=True).astype(dict.fromkeys(texts, "str"))
    # Damaged or hostile bytes make Arrow's readers raise many things.
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise InputError(f"{where} is not a readable parquet file ({first_line(error)})") from error
    except MemoryError:
        raise InputError(f"{where} is not a readable parquet file (memory ran out)") from None


def _check_size(count: int, most: int, what: str, where: str) -> None:
    if not 0 <= count <= most:
        raise InputError(
            f"{where}: holds {count:,} {what}; a file of its size has at most {most:,}"
        )


def _check_columns(found: pa.Schema, rows: int, schema: Mapping[str, Column], where: str) -> None:
    for name, column in schema.items():
        if name not in found.names:
            continue  # said by whoever needs it
        if found.names.count(name) > 1:
            raise InputError(f"{where}: column {name} is there twice")
        kind = found.field(name).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        # pandas writes a column without rows as it likes: often as whole numbers.
        if not rows and not pa.types.is_nested(kind):
            continue
        if not any(allows(kind) for allows in ALLOWED[column.kind]):
            raise InputError(f"{where}: column {name} is not {column.kind} throughout")


def _text_bytes(column: pa.ChunkedArray) -> int:
    """How many bytes a column of texts has once each row has its own."""
    return sum(
        pc.sum(pc.take(pc.binary_length(chunk.dictionary), chunk.indices)).as_py() or 0
        for chunk in column.chunks
        if pa.types.is_dictionary(chunk.type)
    )
