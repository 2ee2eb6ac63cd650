"""Whatever somebody hands in as a bundle or as tables: a value, or one line, within bounds."""

import io
import json
import os
import struct
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.measured.bundle import ABOUT, FORMAT, pack, unpack
from analysis.measured.frame_files import read_parquet
from analysis.measured.frames import Frames, check, load, schemas
from analysis.measured.schema import METRICS, RUNS
from analysis.report.report import report_files
from jobs.cli.bundles import import_results
from pipeline.errors import InputError
from pipeline.storage import checksum
from tests.analysis.measured.hostile_tables import Tables, changed
from tests.analysis.measured_runs import frames_of, points, run_row
from tests.conftest import examples

MOST_MEGABYTES = 300


def tables() -> Tables:
    """Two runs, their layers, a sweep and two evaluations."""
    rows = [run_row("plain20", 0), run_row("resnet20", 1, overrides='{"lr": 0.2}', alone=False)]
    rows[1]["fingerprint"] = "e" * 16
    measured = [
        point
        for row in rows
        for metric in ("test/top1_err", "train/top1_err", "train/loss")
        for point in points(str(row["run_id"]), metric, {32_000: 12.5, 64_000: 9.0})
    ]
    runs, metrics = frames_of(rows, measured)
    ids = [str(row["run_id"]) for row in rows]
    layers = [
        {"run_id": run_id, "iteration": 64_000, "quantity": quantity, "layer": layer,
         "name": f"conv{layer}", "value": 0.5 + layer}
        for run_id in ids for quantity in ("response_std", "gradient_norm") for layer in (1, 2)
    ]  # fmt: skip
    sweep = {"sweep": "5eeb", "name": "lr", "dataset_id": "c1fa", "base": "{}"}
    cells = [
        {**sweep, "experiment": "resnet20", "position": 0, "change": "", "unchanged": True,
         "fingerprint": "f" * 16},
        {**sweep, "experiment": "resnet20", "position": 1, "change": "lr=0.2", "unchanged": False,
         "fingerprint": "e" * 16},
    ]  # fmt: skip
    evaluation = {"dataset_id": "c1fa", "protocol": "ten_crop", "top1_err": 24.0, "top5_err": 7.0,
                  "count": 100, "commit": "c", "dirty": False}  # fmt: skip
    evaluations = [
        {**evaluation, "evaluation": "1", "kind": "ensemble", "name": "both", "members": '["a"]'},
        {**evaluation, "evaluation": "2", "kind": "peer", "name": "p", "members": '[{"a": 1}]'},
    ]  # fmt: skip
    frames = (runs, metrics, *map(pd.DataFrame, (layers, cells, evaluations)))
    return dict(zip(Frames._fields, frames, strict=True))


TABLES = tables()
FRAMES = check(**TABLES)
BUNDLE = pack(FRAMES, {"plain20:0": b"weights"})


def refused(content: bytes, limit: float = MOST_MEGABYTES) -> str:
    """What is said of a bundle that is refused, in one line and within memory."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as error:
            unpack(content, "theirs.zip")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit * 1e6
    said = str(error.value)
    assert "\n" not in said and said.startswith("theirs.zip") and len(said) < 600
    return said


def zipped(files: dict[str, bytes], about: object = None, how: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file with a list of checksums that fits, unless another is given."""
    listed = {"format": FORMAT, "files": {name: checksum(files[name]) for name in files}}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how) as bundle:
        bundle.writestr(ABOUT, json.dumps(listed) if about is None else str(about))
        for name, content in files.items():
            bundle.writestr(name, content)
    return out.getvalue()


def entries(content: bytes = BUNDLE) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as bundle:
        return {name: bundle.read(name) for name in bundle.namelist() if name != ABOUT}


# Zip files.


def test_a_bomb_is_refused_before_it_goes_off() -> None:
    bomb = zipped({**entries(), "weights/a.safetensors": bytes(500_000_000)}, how=8)
    assert len(bomb) < 2_000_000
    assert "compressed or encrypted" in refused(bomb, limit=20)


def test_an_encrypted_entry_is_refused() -> None:
    content = bytearray(BUNDLE)
    for mark, at in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        content[content.index(mark) + at] |= 1
    assert "compressed or encrypted" in refused(bytes(content))


def test_entries_that_claim_more_than_the_file_has_are_refused() -> None:
    content = bytearray(BUNDLE)
    start = content.index(b"PK\x01\x02")
    content[start + 20 : start + 28] = struct.pack("<II", 2**31, 2**31)
    assert "entries overlap" in refused(bytes(content))


def test_a_name_that_is_there_twice_is_refused() -> None:
    out = io.BytesIO(BUNDLE)
    with zipfile.ZipFile(out, "a") as bundle, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bundle.writestr("runs.parquet", b"another")
    assert "entries overlap" in refused(out.getvalue())


@pytest.mark.parametrize(
    "about",
    ["", "3", "null", '{"files": {}}', "[" * 100_000, '{"a":' * 100_000,
     f'{{"format": "{FORMAT}"}}', f'{{"format": "{FORMAT}", "files": []}}',
     f'{{"format": "{FORMAT}", "files": {{"a": 1}}}}'],
)  # fmt: skip
def test_any_list_of_files_is_one_line(about: str) -> None:
    refused(zipped(entries(), about or " "))


@pytest.mark.parametrize(
    "name",
    ["more.parquet", "../weights/a.safetensors", "weights/x", "a\nb",
     "weights/../model.safetensors",
     "weights/../x/model.safetensors", "weights/a/run.sh", "weights/.a/README.md",
     "weights/a/b/README.md", "weights/a/../b.safetensors", "weights/a\\b.safetensors"],
)  # fmt: skip
def test_files_that_no_bundle_has_are_refused(name: str) -> None:
    assert "is not one of its files" in refused(zipped({**entries(), name: b"x"}))


@given(st.data())
@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_bundle_with_any_bytes_changed_is_refused_or_the_same(data: st.DataObject) -> None:
    content = bytearray(BUNDLE)
    # Half of them where the zip file's own numbers are: at its end.
    low = data.draw(st.sampled_from([0, max(0, len(content) - 900)]))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(low, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        frames, _ = unpack(bytes(content), "theirs.zip")
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert all(mine.equals(same) for mine, same in zip(frames, FRAMES, strict=True))


@given(st.binary(max_size=400))
@settings(max_examples=examples(100), deadline=None)
def test_any_bytes_are_no_bundle_and_no_table(content: bytes) -> None:
    with pytest.raises(InputError):
        unpack(content, "theirs.zip")
    with pytest.raises(InputError):
        unpack(zipped({**entries(), "runs.parquet": content}), "theirs.zip")


# Parquet files.


def parquet(table: pa.Table, **options: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (pa.array(["a"]).take(pa.array([0] * 3_000_000)), "rows; a file of its size"),
        (pa.array(["a" * 1_000_000] * 200), "bytes; a file of its size"),
        (pa.array([["a"]]), "run_id is not text"),
        (pa.array([b"a"]), "run_id is not text"),
        (pa.array([1]), "run_id is not text"),
    ],
    ids=["rows", "text", "lists", "binary", "numbers"],
)
def test_a_small_file_that_holds_much_is_refused(column: pa.Array, says: str) -> None:
    content = parquet(pa.table({"run_id": column}), compression="zstd")
    assert len(content) < 60_000
    with pytest.raises(InputError, match=says):
        read_parquet(content, RUNS, "runs.parquet")


def test_a_column_that_is_there_twice_is_refused() -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["run_id", "run_id"])
    with pytest.raises(InputError, match="run_id is there twice"):
        read_parquet(parquet(table), RUNS, "runs.parquet")


@given(st.data())
@settings(max_examples=examples(100), deadline=None)
def test_a_damaged_table_is_refused_or_read(data: st.DataObject) -> None:
    content = bytearray(entries()["metrics.parquet"])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_parquet(bytes(content), METRICS, "metrics.parquet")
    except InputError as error:
        assert "\n" not in str(error)


# Tables.


@given(changed(TABLES, schemas()))
@settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck))
def test_any_tables_are_frames_or_refused(hostile: Tables) -> None:
    try:
        frames = check(**hostile)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert all(frame.columns.tolist() for frame in frames)


def with_value(name: str, column: str, value: object) -> Tables:
    values = TABLES[name][column].astype(object)
    values.iloc[-1] = value
    return TABLES | {name: TABLES[name].assign(**{column: values})}


@pytest.mark.parametrize(
    ("name", "column", "value", "says"),
    [
        ("runs", "iterations", 0, "iterations 0 is not from 1"),
        ("runs", "iterations", 2**62, "iterations 4611686018427387904 is not from 1"),
        ("runs", "seed", -1, "seed -1 is not from 0"),
        ("runs", "ended_ms", 10**17, "ended_ms"),
        ("runs", "experiment", "a" * 65, "no name of an experiment"),
        ("runs", "run_id", "a\0b", "letters that do not print"),
        ("runs", "dataset", "a\u202eb", "letters that do not print"),
        ("runs", "overrides", "[" * 50_000, "are not a JSON object"),
        ("runs", "overrides", '{"lr": NaN}', "give no value to 'lr'"),
        ("runs", "overrides", '{"iterations": "many"}', "give no value to 'iterations'"),
        ("runs", "overrides", '{"a": {"b": {}}}', "give no value to 'a'"),
        ("metrics", "value", 1e300, "1e+300 is beyond any measurement"),
        ("layers", "value", -1e39, "-1e+39 is beyond any measurement"),
        ("layers", "layer", 2**40, "layer 1099511627776"),
        ("sweeps", "sweep", "../../x", "'../../x' is no id of a sweep"),
        ("sweeps", "experiment", "../x", "'../x' is no name of an experiment"),
        ("evaluations", "members", "[" * 9_999, "are not a JSON list of runs"),
        ("evaluations", "top1_err", 1e300, "1e+300 is no percentage"),
    ],
)
def test_values_that_no_report_could_carry_are_refused(
    name: str, column: str, value: object, says: str
) -> None:
    with pytest.raises(InputError) as error:
        check(**with_value(name, column, value))
    assert says in str(error.value) and "\n" not in str(error.value)


def test_an_error_is_a_percentage() -> None:
    last = TABLES["metrics"].metric == "test/top1_err"
    hostile = TABLES["metrics"].assign(value=TABLES["metrics"].value.mask(last, 100.5))
    with pytest.raises(InputError, match=r"an error of 100\.5 is no percentage"):
        check(**TABLES | {"metrics": hostile})


def test_a_sweep_has_no_more_cells_than_a_figure_can_show() -> None:
    cell = TABLES["sweeps"].iloc[[1]]
    many = pd.concat([cell] * 1_001).assign(position=range(1_001))
    with pytest.raises(InputError, match="sweep 5eeb has 1,001 cells, of at most 1,000"):
        check(**TABLES | {"sweeps": many})


def test_what_a_run_says_of_its_end_may_hold_anything() -> None:
    frames = check(**with_value("runs", "reason", "\x1b[31mlost\n\0 $\\frac$"))
    assert frames.runs.reason.iloc[-1] == "\N{REPLACEMENT CHARACTER}[31mlost" + (
        "\N{REPLACEMENT CHARACTER}" * 2 + " $\\frac$"
    )


def test_names_from_elsewhere_are_text_wherever_a_report_shows_them() -> None:
    names = "=1+1 $\\frac$ <img src=x> | ](javascript:a) &lt; _^{"
    hostile = TABLES | {
        "runs": TABLES["runs"].assign(dataset=names, reason=names, hardware=names, commit=names),
        "sweeps": TABLES["sweeps"].assign(change=["", names], name=names),
        "evaluations": TABLES["evaluations"].assign(name=names),
    }
    files = report_files(check(**hostile))
    (slug,) = {name.partition("/")[0] for name in files if name.startswith("sweep-")}
    table = pd.read_csv(io.BytesIO(files[f"{slug}/sweep.csv"]))
    assert table.change[1] == f"'{names}"
    # What is a number stays one, below zero too.
    assert pd.api.types.is_float_dtype(table["mean"])
    for name, content in files.items():
        if name.endswith((".html", ".md")):
            assert b"<img src=x" not in content, name
        if name.endswith(".md"):
            assert b"](javascript" not in content, name


def test_pipes_and_devices_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "runs.parquet")
    with pytest.raises(InputError, match="where a file is expected"):
        load(tmp_path)
    for path in (tmp_path / "runs.parquet", Path("/dev/zero"), tmp_path):
        with pytest.raises(InputError, match="where a file is expected"):
            import_results([path], str(tmp_path / "s"))
    assert not (tmp_path / "s" / "imports").exists()
