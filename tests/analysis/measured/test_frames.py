"""What the frames must be: every way to be wrong ends in one clear line."""

import pandas as pd
import pytest

from analysis.measured.frames import RUNS, check, load
from pipeline.errors import InputError


@pytest.fixture
def good(build):
    return build(
        {"plain20": [9.5, 9.7], "plain56": [13.0]}, train={"plain20": [1.0, 1.1], "plain56": [5.0]}
    )


def test_frames_survive_parquet(good, tmp_path):
    runs, metrics = good
    runs.to_parquet(tmp_path / "runs.parquet")
    metrics.to_parquet(tmp_path / "metrics.parquet")
    loaded, expected = load(tmp_path), check(*good)
    pd.testing.assert_frame_equal(loaded[0], expected[0])
    pd.testing.assert_frame_equal(loaded[1], expected[1])
    assert list(loaded[0]) == list(RUNS)
    assert loaded[0].warmup_end.isna().all()
    # An earlier version's export: what it does not have was not recorded.
    assert not {"device_seconds", "joules"} & set(runs)
    assert loaded[0].device_seconds.isna().all() and loaded[0].joules.isna().all()


def test_row_order_and_extra_columns_do_not_matter(good):
    runs, metrics = good
    shuffled = check(runs.iloc[::-1].assign(more=1), metrics.sample(frac=1, random_state=0))
    for frame, same in zip(shuffled, check(*good), strict=True):
        pd.testing.assert_frame_equal(frame, same)


def test_spelling_of_overrides_does_not_split_a_study(good):
    runs, metrics = good
    spelled = runs.assign(overrides=['{"b":1,  "a":2}', '{"a": 2, "b": 1}', '{"a":2,"b":1}'])
    assert set(check(spelled, metrics)[0].overrides) == {'{"a": 2, "b": 1}'}


def _with(column, value, row=0):
    def change(runs, metrics):
        changed = runs.astype({column: object})
        changed.loc[row, column] = value
        return changed, metrics

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r, m: (r.drop(columns="seed"), m), "runs.parquet: missing column seed"),
        (
            lambda r, m: (r, m.drop(columns=["value", "metric"])),
            "metrics.parquet: missing column metric, value",
        ),
        (_with("run_id", None), "runs.parquet: column run_id has 1 null value(s)"),
        (_with("params", None), "runs.parquet: column params has 1 null value(s)"),
        (_with("seed", "one"), "runs.parquet: column seed is not integer throughout"),
        (_with("iterations", 1.5), "runs.parquet: column iterations is not integer throughout"),
        (_with("comparable", "no"), "runs.parquet: column comparable is not boolean throughout"),
        (
            lambda r, m: (r.assign(device_seconds=-1.0), m),
            "runs.parquet: device_seconds of -1 is beyond any run",
        ),
        (
            lambda r, m: (r.assign(joules=float("inf")), m),
            "runs.parquet: joules of inf is beyond any run",
        ),
        (
            _with("experiment", "../../evil"),
            "runs.parquet: '../../evil' is no name of an experiment",
        ),
        (_with("status", "DONE"), "runs.parquet: unknown status 'DONE'"),
        (
            lambda r, m: (r.assign(mlflow_url="javascript:alert(1)"), m),
            "'javascript:alert(1)' is no http address of a run",
        ),
        (_with("overrides", "[1]"), "are not a JSON object: '[1]'"),
        (_with("overrides", "bf16"), "are not a JSON object: 'bf16'"),
        (
            lambda r, m: (pd.concat([r, r.iloc[[0]]]), m),
            "runs.parquet: 2 rows share a key, such as run_id=plain20:0",
        ),
        (lambda r, m: (r, pd.concat([m, m.iloc[[0]]])), "metrics.parquet: 2 rows share a key"),
        (
            _with("seed", 1),
            "rows share a key, such as dataset_id=c1fa, overrides={}, experiment=plain20, seed=1",
        ),
        (
            lambda r, m: (r.iloc[1:], m),
            "metrics.parquet: 1 run(s) not in runs.parquet, such as plain20:0",
        ),
    ],
)
def test_bad_frames_end_in_one_line(good, change, message):
    with pytest.raises(InputError) as raised:
        check(*change(*good))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_missing_or_broken_files_are_named(good, tmp_path):
    with pytest.raises(InputError, match=r"runs\.parquet does not exist"):
        load(tmp_path)
    good[0].to_parquet(tmp_path / "runs.parquet")
    with pytest.raises(InputError, match=r"metrics\.parquet does not exist"):
        load(tmp_path)
    (tmp_path / "metrics.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(InputError, match=r"metrics\.parquet is not a readable parquet file"):
        load(tmp_path)


def test_runs_of_two_recipes_never_share_a_cell(good):
    runs, metrics = good
    mixed = runs.assign(fingerprint=["a" * 16, "b" * 16, "a" * 16])
    with pytest.raises(
        InputError,
        match=r"plain20 on dataset c1fa has runs of 2 recipes \(a{16}, b{16}\); report on each",
    ):
        check(mixed, metrics)
