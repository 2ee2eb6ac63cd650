"""A report's folder: what is not provably a report's stays, and a kill leaves nothing for ever."""

import json
import os
import shutil
from pathlib import Path

import pytest

from analysis.report import report_folder
from analysis.report.artifact_provenance import audit
from analysis.report.report_folder import (
    FORMAT,
    MADE,
    about_report,
    listed_files,
    others_line,
    put_report,
    unlisted_files,
)
from pipeline.errors import InputError
from pipeline.storage import checksum

Files = dict[str, bytes]


def report_of(**pages: bytes) -> Files:
    """A small report's files, its list included."""
    files = {"index.html": b"<p>top", **{f"runs/{name}.html": page for name, page in pages.items()}}
    about = {"format": FORMAT, "files": {name: checksum(page) for name, page in files.items()}}
    return files | {MADE: json.dumps(about).encode()}


def in_folder(folder: Path) -> set[str]:
    """Every file below a folder, hidden ones too."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if not path.is_dir() or path.is_symlink()
    }


OLD, NEW = report_of(a=b"old a", b=b"old b"), report_of(a=b"new a", c=b"new c")


def test_the_next_report_takes_the_place_of_the_last(tmp_path: Path) -> None:
    put_report(OLD, tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    put_report(NEW, tmp_path)
    assert in_folder(tmp_path) == {*NEW, "notes.txt"}
    assert others_line(tmp_path, NEW).endswith("notes.txt")
    (tmp_path / "notes.txt").unlink()
    assert others_line(tmp_path, NEW) == ""


class Killed(BaseException):
    """The process ends here."""


# Each report puts four files, its two lists included, in place, and deletes one.
@pytest.mark.parametrize("at", range(6))
def test_whatever_a_kill_leaves_the_next_report_removes(
    tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_report(OLD, tmp_path)
    steps = 0

    def dying(does):
        def step(*args, **kwargs):
            nonlocal steps
            inside = Path(args[-1]).parent
            if ".report-" not in str(inside):
                if steps == at:
                    raise Killed
                steps += 1
            return does(*args, **kwargs)

        return step

    with monkeypatch.context() as patched:
        patched.setattr(report_folder.os, "replace", dying(os.replace))
        patched.setattr(report_folder.Path, "unlink", dying(Path.unlink))
        # A process that is killed cleans up nothing; its lock ends with it.
        patched.setattr(report_folder, "_delete_temporary", lambda folder: None)
        with pytest.raises(Killed):
            put_report(NEW, tmp_path)
    assert any(name.startswith(".report-") for name in os.listdir(tmp_path))
    if at > 0:  # before, the report that was there is still whole
        with pytest.raises(InputError, match="the report was interrupted"):
            audit(tmp_path, lambda _: {})
    final = report_of(d=b"third d")
    put_report(final, tmp_path)
    assert in_folder(tmp_path) == set(final)


def test_a_temporary_folder_in_use_or_of_somebody_else_stays(tmp_path: Path) -> None:
    (tmp_path / ".report-of-2024").mkdir()
    (tmp_path / ".report-of-2024" / "mine.txt").write_text("mine")
    with report_folder._temporary_folder(tmp_path) as used:
        put_report(OLD, tmp_path)
        assert used.is_dir()
    assert not used.exists()
    assert in_folder(tmp_path) == {*OLD, ".report-of-2024/mine.txt"}


def test_a_list_from_elsewhere_deletes_nothing_of_others(tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    outside.mkdir()
    (outside / "thesis.tex").write_text("theirs")
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "linked").symlink_to(outside)
    (out / "link.txt").symlink_to(outside / "thesis.tex")
    (out / "folder").mkdir()
    theirs = checksum(b"theirs")
    names = ["linked/thesis.tex", "link.txt", "../outside/thesis.tex", "folder", "a\0b", "", "."]
    files = {**dict.fromkeys([*names, str(outside / "thesis.tex")], theirs), "notes.txt": "0" * 64}
    before = {name: [theirs, 3] for name in [*names, "notes.txt"]}
    (out / MADE).write_text(json.dumps({"format": FORMAT, "files": files, "before": before}))
    kept = in_folder(tmp_path)
    put_report(OLD, out)
    assert in_folder(tmp_path) == kept | {f"out/{name}" for name in OLD}
    assert (outside / "thesis.tex").read_text() == "theirs"


@pytest.mark.parametrize("taken", ["index.html", "report.json", "runs/a.html"])
def test_files_where_no_report_lies_are_not_overwritten(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).parent.mkdir(exist_ok=True)
    (tmp_path / taken).write_text("mine")
    with pytest.raises(InputError, match="is there and no report's"):
        put_report(OLD, tmp_path)
    assert in_folder(tmp_path) == {taken} and (tmp_path / taken).read_text() == "mine"


def test_nothing_is_written_through_a_link_or_over_a_folder(tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    outside.mkdir()
    out.mkdir()
    (out / "runs").symlink_to(outside)
    with pytest.raises(InputError, match="a link is on the way"):
        put_report(OLD, out)
    (out / "runs").unlink()
    (out / "index.html").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        put_report(OLD, out)
    assert not in_folder(outside) and not list(out.glob(".report-*"))
    # The report's own folder may be a link: that is where the user wants it.
    (tmp_path / "to").symlink_to(outside)
    put_report(OLD, tmp_path / "to")
    assert in_folder(outside) == set(OLD)


@pytest.mark.parametrize(
    "content",
    [b"", b"3", b"[" * 100_000, b'{"format": "resnet-repro/report/1", "files": [1]}', b"\xff"],
)
def test_a_damaged_list_names_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MADE).write_bytes(content)
    assert listed_files(about_report(tmp_path)) == {}
    with pytest.raises(InputError, match="no report that can be audited"):
        audit(tmp_path, lambda _: {})


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / MADE)
    with pytest.raises(InputError, match="no report that can be audited"):
        audit(tmp_path, lambda _: {})


def test_what_is_not_listed_is_named_and_links_are_not_followed(tmp_path: Path) -> None:
    put_report(OLD, tmp_path)
    (tmp_path / ".DS_Store").write_bytes(b"")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "runs" / "old.html").write_text("stale")
    assert unlisted_files(tmp_path, set(OLD)) == ["loop", "runs/old.html"]
    shutil.rmtree(tmp_path / "runs")
    assert unlisted_files(tmp_path, set(OLD)) == ["loop"]
