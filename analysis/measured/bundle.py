"""Evidence that travels: frames, and weights on request, in one file with checksums.

A bundle is a zip file of parquet and safetensors with `bundle.json`; the same frames give the same
bytes. Bundles of several clusters are merged into frames for one report. What was changed on the
way is refused.
"""

import re
from collections.abc import Sequence
from io import BytesIO
from json import dumps
from struct import error as StructError
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import pandas as pd

from analysis.measured.frame_files import read_parquet
from analysis.measured.frames import Frames, check, parquet_files, schemas
from pipeline.errors import InputError, first_line
from pipeline.storage import checksum
from pipeline.stored_json import parse

FORMAT = "resnet-repro/bundle/1"
ABOUT = "bundle.json"
EPOCH = (1980, 1, 1, 0, 0, 0)
"""Of every entry: a bundle's bytes say nothing about when it was packed."""

MOST_BYTES = 4 << 30
"""Of a bundle: the weights of a thousand small networks, or of forty large ones."""

MOST_ABOUT = 16 << 20
WEIGHTS = "weights/"
OF_WEIGHTS = re.compile(
    r"weights/(\w[\w.-]*/(README\.md|model\.safetensors)|\w[^/\\\0-\x1f]*\.safetensors)"
)
"""A folder for each run; bundles of older versions have a file for each, by its run id."""
ENCRYPTED = 0x1
"""Of an entry's flags."""

_BROKEN = (
    BadZipFile, KeyError, IndexError, ValueError, EOFError, OSError, NotImplementedError,
    RuntimeError, RecursionError, OverflowError, StructError, MemoryError,
)  # fmt: skip
"""What the readers of zip and JSON raise of damaged or hostile bytes."""


def pack(frames: Frames, weights: dict[str, bytes]) -> bytes:
    """A bundle of frames and of files of weights, by their place below `weights/`.

    A run's are a folder, as `jobs.requests.exports` names and fills it.
    """
    files = parquet_files(frames)
    files |= {f"{WEIGHTS}{name}": content for name, content in sorted(weights.items())}
    about = {
        "format": FORMAT,
        "files": {name: checksum(content) for name, content in files.items()},
    }
    # Stored, not compressed, and with one date for all: the bytes depend on the content alone.
    buffer = BytesIO()
    with ZipFile(buffer, "w", ZIP_STORED) as bundle:
        for name, content in {ABOUT: (dumps(about, indent=1) + "\n").encode(), **files}.items():
            bundle.writestr(ZipInfo(name, EPOCH), content)
    return buffer.getvalue()


def unpack(content: bytes, where: str) -> tuple[Frames, dict[str, bytes]]:
    """The frames and the files of weights of a bundle's bytes; `where` names it in messages.

    Raises:
        InputError: no bundle of ours, cut off, changed on the way, or its frames break the schema.
    """
    if len(content) > MOST_BYTES:
        raise InputError(f"{where}: has {len(content):,} bytes, of at most {MOST_BYTES:,}")
    try:
        with ZipFile(BytesIO(content)) as bundle:
            files = _entries(bundle, len(content), where)
    # Any way in which a zip file can be broken means the same to a user: ask for it again.
    except _BROKEN as error:
        raise InputError(
            f"{where}: not a bundle of `resnet-repro results export`, or cut off "
            f"({first_line(error)})"
        ) from error
    # Bundles made before evaluations existed have no such frame.
    parts = {
        name: read_parquet(files[f"{name}.parquet"], schema, f"{where}: {name}.parquet")
        for name, schema in schemas().items()
        if f"{name}.parquet" in files or name != "evaluations"
    }
    weights = {
        name.removeprefix(WEIGHTS): content
        for name, content in files.items()
        if name.startswith(WEIGHTS)
    }
    return check(**parts, where=f"{where}: "), weights


def _entries(bundle: ZipFile, size: int, where: str) -> dict[str, bytes]:
    """The files of a bundle by name, after its list of checksums was compared with what it holds.

    Names and sizes come first: nothing is read of a bundle that does not hold what it should.
    """
    entries = bundle.infolist()
    # Ours are stored as they are, so no entry, nor all of them, is larger than the bundle.
    for entry in entries:
        if entry.compress_type != ZIP_STORED or entry.flag_bits & ENCRYPTED:
            raise InputError(
                f"{where}: not a bundle of `resnet-repro results export`: {_shown(entry.filename)} "
                "is compressed or encrypted"
            )
    names = {entry.filename: entry for entry in entries}
    if len(names) < len(entries) or sum(entry.file_size for entry in entries) > size:
        raise BadZipFile("its entries overlap")
    if names[ABOUT].file_size > MOST_ABOUT:
        raise BadZipFile(f"{ABOUT} is too large")
    listed = _listed(bundle.read(names.pop(ABOUT)), where)
    frames = {f"{name}.parquet" for name in Frames._fields}
    for name in sorted(listed.keys() | names.keys()):
        ours = name in frames or OF_WEIGHTS.fullmatch(name)
        if not ours or name not in listed:
            raise InputError(f"{where}: {_shown(name)} is not one of its files; ask for it again")
    for name in sorted(listed.keys() | frames - {"evaluations.parquet"}):
        if name not in names:
            raise InputError(f"{where}: {_shown(name)} is missing; ask for it again")
    # Then every byte has to be as packed.
    files = {}
    for name, entry in names.items():
        files[name] = bundle.read(entry)
        if checksum(files[name]) != listed[name]:
            raise InputError(
                f"{where}: {_shown(name)} was changed after it was packed; ask for it again"
            )
    return files


def _listed(about: bytes, where: str) -> dict[str, str]:
    """The checksums of a bundle's files, by its own list."""
    parsed = parse(about)
    files = parsed.get("files") if isinstance(parsed, dict) else None
    if not isinstance(files, dict) or parsed.get("format") != FORMAT:
        raise InputError(f"{where}: not a bundle of this version of `resnet-repro results export`")
    return files


def _shown(name: str) -> str:
    """A name from elsewhere as it may stand in a line."""
    return name if name.isprintable() and len(name) <= 200 else repr(name[:200])


def merged(parts: Sequence[tuple[str, Frames]]) -> Frames:
    """The frames of several sources as one; what all of them have counts once.

    Each source comes with its name for messages.

    Raises:
        InputError: two sources claim the same run (experiment, dataset and seed), and what they
            measured differs.
    """
    if len(parts) == 1:
        return parts[0][1]
    # A run belongs to the first source that has it; the others must agree on what it measured.
    first_source: dict[str, int] = {}
    for number, (where, frames) in enumerate(parts):
        for run_id in frames.runs.run_id:
            first = first_source.setdefault(run_id, number)
            if first != number and _measured(parts[first][1], run_id) != _measured(frames, run_id):
                raise InputError(
                    f"{where} and {parts[first][0]} both claim run {run_id}, and what they "
                    "measured differs; leave one out (an import is a file that can be deleted)"
                )
    # Each source keeps only the runs that are its own, so that none is counted twice.
    kept = [
        frames.of(
            {run_id for run_id in frames.runs.run_id if first_source[run_id] == number},
            set(frames.sweeps.sweep),
        )._replace(evaluations=frames.evaluations)
        for number, (_, frames) in enumerate(parts)
    ]
    joined = [_joined([frames[number] for frames in kept]) for number in range(len(Frames._fields))]
    runs, metrics, layers, sweeps, evaluations = joined
    # Sweeps and evaluations have no owner: equal rows are one.
    once = (sweeps.drop_duplicates(), evaluations.drop_duplicates())
    return check(runs, metrics, layers, *once, where="merged results: ")


def _joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    # An empty frame would have a say in the columns' types.
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True) if filled else frames[0]


def _measured(frames: Frames, run_id: str) -> list[tuple[str, int, str]]:
    """A run's status and points, without when and how fast; NaN equals NaN.

    A run that was published twice measured the same, though not at the same speed.
    """
    status = frames.runs.loc[frames.runs.run_id == run_id, "status"].iloc[0]
    points = frames.metrics[
        (frames.metrics.run_id == run_id) & ~frames.metrics.metric.str.startswith("speed/")
    ]
    return [
        (status, 0, ""),
        *zip(points.metric, points.iteration, points.value.map(repr), strict=True),
    ]
