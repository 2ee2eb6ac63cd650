"""Storage that is an object store: the same files, the same bytes, the same refusals."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.requests.options import existing
from pipeline.data.staging import staged_dataset
from pipeline.data.stored import read_dataset, write_dataset
from pipeline.errors import InputError
from pipeline.runs.checkpoint import folder, iterations, newest_checkpoint
from pipeline.runs.execution import Attempt, Execution
from pipeline.runs.lease import Lease
from pipeline.runs.run import read_heartbeat, start_run, stored_runs
from pipeline.storage import Storage
from pipeline.training.loop import train
from pipeline.training.step.process_group import single_process
from pipeline.training.verify import examine
from tests.object_store import ACCESS, s3_server
from tests.pipeline.data.photographs import as_parquet, ingested, pictures
from tests.pipeline.training.small_runs import digits_once, small_run

RUN = small_run()


@pytest.fixture(scope="module")
def bucket() -> Iterator[Storage]:
    before = dict(os.environ)
    os.environ.update(ACCESS)
    with s3_server() as uri:
        yield Storage(uri)
    os.environ.clear()
    os.environ.update(before)


def test_written_read_named_and_deleted(bucket: Storage) -> None:
    bucket.check_writable()
    for name, content in [("a/2", b"two"), ("a/1", b""), ("a/b/c", bytes(range(256)))]:
        bucket.write(name, content)
        assert bucket.read(name) == content
    assert bucket.names("a") == ["1", "2", "b"] and bucket.size("a") == 259
    for name in ("a/b", "a/1", "never/there"):
        bucket.delete(name)
    assert bucket.names("a") == ["2"] and bucket.names("nowhere") == []
    assert (bucket.exists("a/2"), bucket.exists("a/1"), bucket.read_if_there("a/1")) == (
        True,
        False,
        None,
    )


def test_whether_anything_is_there_at_all(bucket: Storage) -> None:
    elsewhere = Storage(bucket.uri.replace("/place", "/misspelt"))
    bucket.write("a/2", b"two")
    assert bucket.exists("") and not elsewhere.exists("")
    assert existing(bucket.uri).uri == bucket.uri
    with pytest.raises(InputError, match=r"misspelt.*: does not exist"):
        existing(elsewhere.uri)


def test_a_run_in_a_bucket_that_is_stopped_and_continued_has_the_bytes_of_one_in_a_folder(
    bucket: Storage, tmp_path: Path
) -> None:
    whole = Storage(str(tmp_path))
    write_dataset(bucket, digits_once(), {"kind": "embedded"})
    start_run(bucket, RUN, 1)
    with Lease(bucket, RUN) as lease:
        often, held = Execution(checkpoint_seconds=0), Attempt(holder=lease.holder)
        assert train(
            RUN, digits_once(), bucket, single_process(), replace(often, until=18), held
        ) == {"status": "stopped"}
        broken = f"{folder(RUN, 18)}/weights.safetensors"
        bucket.write(broken, bucket.read(broken)[:-1])
        result = train(
            RUN, read_dataset(bucket, RUN.dataset_id), bucket, single_process(), often, held
        )
    train(RUN, digits_once(), whole, single_process())
    assert [attempt["from_iteration"] for attempt in result["attempts"]] == [0, 17]
    mine, theirs = newest_checkpoint(bucket, RUN), newest_checkpoint(whole, RUN)
    assert mine is not None and theirs is not None
    for name in ("weights.safetensors", "momentum.safetensors"):
        assert mine.files[name] == theirs.files[name]
    assert iterations(bucket, RUN) == [15, 23, 28, 29, 30]
    assert stored_runs(bucket) == [RUN] and read_heartbeat(bucket, small_run(seed=1)) is None
    assert all(finding.good for finding in examine(bucket, RUN))


def test_a_run_in_a_bucket_has_one_holder(bucket: Storage) -> None:
    run = small_run(seed=7)
    with Lease(bucket, run), pytest.raises(InputError, match="is being trained by process"):
        Lease(bucket, run).__enter__()
    with Lease(bucket, run) as again:
        assert again.held()


def test_shards_that_are_not_in_a_folder_are_copied_once_and_by_checksum(
    tmp_path: Path, bucket: Storage
) -> None:
    images, copies = pictures(), tmp_path / "copies"
    manifest = ingested(bucket, as_parquet(tmp_path / "p", images))
    photos = staged_dataset(bucket, manifest["id"], copies)
    known = {content for _, _, content in images["train"]}
    assert {photos.train.encoded(i) for i in range(12)} == known
    shard = copies / manifest["shards"][0]["path"]
    written = shard.stat().st_mtime_ns
    staged_dataset(bucket, manifest["id"], copies)
    assert shard.stat().st_mtime_ns == written
    bucket.write(manifest["shards"][1]["path"], b"something else")
    with pytest.raises(InputError, match="damaged or missing"):
        staged_dataset(bucket, manifest["id"], tmp_path / "elsewhere")
    with pytest.raises(InputError, match="no folder to copy it to"):
        staged_dataset(bucket, manifest["id"], None)
