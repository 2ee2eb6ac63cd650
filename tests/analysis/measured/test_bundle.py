"""Bundles: same bytes from same frames, refused if changed, merged without doubles."""

import io
import zipfile

import pytest

from analysis.measured.bundle import ABOUT, merged, pack, unpack
from analysis.measured.frames import check
from analysis.report.report import report_files
from pipeline.errors import InputError

PLAIN, RESNET = {"plain20": [9.6, 9.7, 9.8]}, {"resnet20": [8.6, 8.7, 8.8]}
FOLDER = "plain20-digits-1a2b3c4d-seed-0"
WEIGHTS = {f"{FOLDER}/README.md": b"card", f"{FOLDER}/model.safetensors": b"weights"}


@pytest.fixture
def frames(build):
    return check(*build(PLAIN))


def rezipped(content, change):
    """A bundle whose entries were changed by somebody who has a zip program."""
    with zipfile.ZipFile(io.BytesIO(content)) as bundle:
        entries = {name: bundle.read(name) for name in bundle.namelist()}
    change(entries)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as bundle:
        for name, part in entries.items():
            bundle.writestr(name, part)
    return out.getvalue()


def test_a_bundle_is_the_same_bytes_each_time_and_holds_what_was_packed(frames):
    content = pack(frames, WEIGHTS)
    assert content == pack(frames, WEIGHTS)
    unpacked, weights = unpack(content, "mine.zip")
    assert weights == WEIGHTS
    for mine, theirs in zip(frames, unpacked, strict=True):
        assert mine.equals(theirs)
    assert report_files(unpacked) == report_files(frames)


def test_bundles_of_older_versions_have_a_file_of_weights_for_each_run(frames):
    weights = {"7cb0a7e0a0b4f0b6-186de2c683d404c1-0.safetensors": b"weights"}
    assert unpack(pack(frames, weights), "mine.zip")[1] == weights


@pytest.mark.parametrize("tenth", range(10))
def test_a_bundle_that_is_cut_off_is_refused(frames, tenth):
    content = pack(frames, WEIGHTS)
    with pytest.raises(InputError, match=r"mine.zip: not a bundle .*cut off") as error:
        unpack(content[: len(content) * tenth // 10], "mine.zip")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda e: e.update({"metrics.parquet": e["metrics.parquet"][:-1] + b"x"}),
            "metrics.parquet was changed after it",
        ),
        (lambda e: e.pop("runs.parquet"), "runs.parquet is missing"),
        (lambda e: e.update({"../../evil": b"x"}), "../../evil is not one of its files"),
        (lambda e: e.pop(ABOUT), "not a bundle"),
        (lambda e: e.update({ABOUT: b'{"format": "another/1"}'}), "not a bundle of this version"),
    ],
)
def test_a_tampered_bundle_is_refused(frames, change, says):
    with pytest.raises(InputError) as error:
        unpack(rezipped(pack(frames, {}), change), "mine.zip")
    assert says in str(error.value) and "\n" not in str(error.value)


def test_results_of_several_clusters_become_one_report(build):
    plain, resnet, both = (check(*build(rows)) for rows in (PLAIN, RESNET, PLAIN | RESNET))
    joined = merged([("here", plain), ("theirs.zip", resnet)])
    assert report_files(joined) == report_files(both)
    assert (
        len(merged([("here", plain), ("theirs.zip", both)]).runs) == 6
    )  # what both have counts once


def test_two_that_claim_the_same_run_with_other_numbers_are_refused(build):
    mine, theirs = check(*build(PLAIN)), check(*build({"plain20": [9.6, 9.7, 9.9]}))
    with pytest.raises(
        InputError, match=r"theirs.zip and here both claim run plain20:2.*differs; leave one out"
    ):
        merged([("here", mine), ("theirs.zip", theirs)])
