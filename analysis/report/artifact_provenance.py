"""Where an artifact comes from, as a file beside it; and audits of a whole report.

Its runs, their dataset, commits, versions and hardware.

A report carries the frames that it was made of (`data/`), the checksum of each of its files and the
version of the rules that judged it (`report.json`). An audit makes it again from those frames and
compares every byte.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from hashlib import blake2b
from importlib.metadata import version
from json import dumps
from pathlib import Path
from platform import python_version
from typing import Any

import pandas as pd

from analysis.measured.frames import Frames, each, load, parquet_files
from analysis.report.report_folder import (
    BEFORE,
    FORMAT,
    MADE,
    Files,
    about_report,
    listed_files,
    own_file,
    reports_within,
    unlisted_files,
)
from analysis.studies.studies import Study
from analysis.verdicts import RULES_VERSION
from pipeline.errors import InputError
from pipeline.storage import checksum
from pipeline.stored_json import parse

DATA = "data"
MAKERS = ("pandas", "pyarrow", "matplotlib", "jinja2", "numpy", "scipy")
"""The packages that have a part in a report's bytes."""


def artifact_provenance(study: Study, experiments: Collection[str]) -> bytes:
    """The runs of these experiments in the study, and what each was made with, as JSON."""
    runs = study.runs[study.runs.experiment.isin(experiments)]
    kept = (
        "run_id",
        "experiment",
        "seed",
        "status",
        "fingerprint",
        "commit",
        "dirty",
        "drift",
        "one_pass",
        "device",
        "hardware",
        "world_size",
        "threads",
        "mlflow_run_id",
    )
    about = {
        "dataset": study.dataset,
        "dataset_id": study.dataset_id,
        "comparable": study.comparable,
        "overrides": study.overrides,
        "runs": [
            {name: _null(getattr(run, name)) for name in kept} | {"versions": _parsed(run.versions)}
            for run in each(runs)
        ],
    }
    return _json(about)


def with_manifest(files: Files, frames: Frames) -> Files:
    """A report's files with the frames it was made of and a list of checksums."""
    # The frames travel with the report: an audit needs nothing else.
    files = files | {f"{DATA}/{name}": content for name, content in parquet_files(frames).items()}
    about = {
        "format": FORMAT,
        "rules": RULES_VERSION,
        "made_with": made_with(),
        "files": {name: checksum(files[name]) for name in sorted(files)},
    }
    return files | {MADE: _json(about)}


def made_with() -> dict[str, str]:
    """What makes reports here."""
    return {
        "python": python_version(),
        **{name: version(name) for name in MAKERS},
        "analysis": _own_digest(),
    }


@dataclass(frozen=True)
class Audit:
    """What an audit found: files that are `wrong`, and files that another version makes otherwise.

    Both are by name, with what is the matter. `versions` says in words what made the report and has
    another version here, the rules of verdicts first.
    """

    wrong: dict[str, str]
    otherwise: dict[str, str]
    versions: list[str]


def audit(folder: Path, make: Callable[[Frames], Files], within: bool = False) -> Audit:
    """Compare the report in `folder` with its list, and with what `make` gives of its data.

    An audit shows that a report follows from the data it carries, not that the data is true. Where
    other rules or other code made the report, it shows that nothing was changed since; whether it
    follows from its data, only that version can show.

    A report within it, as of one grid, is audited with it; `within` is said of such a one.

    Raises:
        InputError: it is no report of ours, or its data cannot be read.
    """
    about = about_report(folder)
    if not about:
        raise InputError(f"{folder}: no report that can be audited ({MADE} is missing or not ours)")
    sums = listed_files(about)
    if not sums:
        raise InputError(f"{folder}: no report that can be audited ({MADE} lists no files)")
    if BEFORE in about:
        raise InputError(f"{folder}: the report was interrupted; give its command again")

    # First the files against the report's own list.
    stored = {name: own_file(folder, name) for name in sums}
    wrong = {name: "is missing" for name, content in stored.items() if content is None}
    wrong |= {
        name: "was changed after the report was made"
        for name, content in stored.items()
        if content is not None and checksum(content) != sums[name]
    }
    parts = [] if within else reports_within(folder)
    others = unlisted_files(folder, set(sums), parts)
    wrong |= dict.fromkeys(others, "is not one of the report's files")
    otherwise: dict[str, str] = {}
    for part in parts:
        found = audit(folder / part, make, within=True)
        wrong |= {f"{part}/{name}": what for name, what in found.wrong.items()}
        otherwise |= {f"{part}/{name}": what for name, what in found.otherwise.items()}
    versions = _other_versions(about)
    # From changed data another report would follow, and every difference would be reported twice.
    if any(name.startswith(f"{DATA}/") for name in wrong):
        return Audit(wrong, otherwise, versions)

    # Then, from data that is as it was, the same report again. Another version of what makes
    # reports gives other bytes of the same data: then a difference is no sign of a change.
    remade = make(load(folder / DATA))
    differing: dict[str, str] = {}
    for name in sorted(remade.keys() | {name for name in sums if not name.startswith(f"{DATA}/")}):
        if name not in sums:
            differing[name] = "is not in the report, but its data gives it"
        elif name not in remade:
            differing[name] = "is in the report, but its data does not give it"
        elif name not in wrong and remade[name] != stored[name]:
            differing[name] = "is not what the report's data gives"
    if versions:
        return Audit(wrong, differing | otherwise, versions)
    return Audit(wrong | differing, otherwise, versions)


def _other_versions(about: dict[str, Any]) -> list[str]:
    """What made a report and has another version here, in words."""
    # Reports made before the rules had a version are of the first.
    rules = about.get("rules", 1)
    words = [f"rules {_short(rules)}, here {RULES_VERSION}"] if rules != RULES_VERSION else []
    now, made_then = made_with(), about.get("made_with")
    for name, made in made_then.items() if isinstance(made_then, dict) else ():
        if now.get(name) != made:
            # A digest of code says nothing to people.
            other_code = "other code of tables and figures"
            words.append(other_code if name == "analysis" else f"{_short(name)} {_short(made)}")
    return words


def _short(value: Any) -> str:
    """What a report from elsewhere says, as it may stand in a line."""
    text = str(value)[:100]
    return text if text.isprintable() else repr(text)


def _own_digest() -> str:
    """A digest of the code that makes reports."""
    digest = blake2b(digest_size=8)
    for path in sorted(Path(__file__).parents[1].rglob("*.*")):
        # Everything that decides a report's bytes: code, templates, and the paper's numbers.
        if path.suffix in (".py", ".j2", ".csv"):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _json(about: dict[str, Any]) -> bytes:
    return (dumps(about, indent=1, default=_plain) + "\n").encode()


def _null(value: Any) -> Any:
    """None for a missing value, which JSON would spell NaN."""
    return None if pd.isna(value) else value


def _plain(value: Any) -> Any:
    """A NumPy number as Python's."""
    return value.item()


def _parsed(text: str) -> Any:
    try:
        return parse(text)
    except ValueError:
        return text
