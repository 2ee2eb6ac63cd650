"""The documents: links and anchors resolve, README's map is the tree, sentences are short, and
every file of a run's folder is named.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Cli

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
IDS = [str(document.relative_to(ROOT)) for document in DOCUMENTS]
MOST_WORDS = 29
MOST_LINES = 120
MOST_BYTES = 150_000
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`]*`")
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
PLACE = re.compile(r"`((?:pipeline|jobs|analysis|benchmarks|deploy|tests)/[\w/.*-]*)`")
FILE = re.compile(r"[\w/-]+\.(?:json|safetensors)\b")


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(document: Path) -> set[str]:
    text = FENCED.sub("", document.read_text())
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def sentences(markdown: str) -> Iterator[str]:
    """The prose of a document, sentence by sentence: no code blocks, tables, headings or images.

    Inline code is one word; a list's item or a paragraph ends a sentence.
    """
    text = CODE.sub("code", FENCED.sub("\n\n", markdown))
    text = re.sub(r"^> ?", "", text, flags=re.MULTILINE)
    text = re.sub(r"^(\||#|!\[| {4}).*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"^ *(?:[-*]|\d+\.) ", "\n\n", text, flags=re.MULTILINE)
    text = LINK.sub(r"\1", text)
    for paragraph in re.split(r"\n\s*\n", text):
        yield from re.split(r"(?<=[.!?])[*)]*\s+", " ".join(paragraph.split()))


def words(sentence: str) -> int:
    return sum(bool(re.search(r"\w", word)) for word in sentence.split())


def test_sentences_are_told_apart() -> None:
    text = "# A\n\nOne, *two*. Three\nfour: `x. y` (z).\n\n- Five.\n- Six\n\n| a | b. c |\n"
    assert [one for one in sentences(text) if one] == [
        "One, *two*.",
        "Three four: code (z).",
        "Five.",
        "Six",
    ]
    assert words("Three four: code (z) × 3.") == 5


@pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)
def test_no_sentence_is_long(document: Path) -> None:
    found = sentences(document.read_text())
    assert [one for one in found if words(one) > MOST_WORDS] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)
def test_links_and_anchors_resolve(document: Path) -> None:
    prose = CODE.sub("", FENCED.sub("", document.read_text()))
    for _, target in LINK.findall(prose):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (document.parent / path).resolve() if path else document
        assert linked.exists(), f"{target}: no such file"
        assert not anchor or anchor in anchors(linked), f"{target}: no such heading"


def test_the_index_names_every_document() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for document in (ROOT / "docs").glob("*.md"):
        assert document.name == "README.md" or f"({document.name})" in index


@pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)
def test_files_that_are_named_by_path_are_there(document: Path) -> None:
    if document.name == "CHANGELOG.md":
        return  # it also names what was
    for path in PLACE.findall(document.read_text()):
        assert any(ROOT.glob(path.rstrip("/"))), f"{path} is not there"


def test_files_that_rooms_name_by_path_are_there() -> None:
    for room in ("pipeline", "jobs", "analysis", "benchmarks", "deploy"):
        for file in (ROOT / room).rglob("*.py"):
            for path in PLACE.findall(file.read_text()):
                assert any(ROOT.glob(path.rstrip("/"))), f"{file}: {path} is not there"


def test_readme_is_short_and_its_pictures_are_small() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= MOST_LINES
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).stat().st_size < MOST_BYTES


def test_readmes_map_is_the_tree_of_rooms() -> None:
    text = (ROOT / "README.md").read_text()
    block = re.search(r"^## Rooms\n+```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert block
    mapped, above = set(), dict[int, str]()
    for line in block[1].splitlines():
        entry = re.fullmatch(r"( *)([\w-]+)/ +\S.*", line)
        assert entry, f"not a room and what it is: {line}"
        depth = len(entry[1]) // 2
        above[depth] = entry[2]
        mapped.add("/".join(above[level] for level in range(depth + 1)))
    rooms = {
        str(file.parent.relative_to(ROOT))
        for top in ("pipeline", "jobs", "analysis", "benchmarks", "deploy")
        for file in (ROOT / top).rglob("__init__.py")
    }
    assert mapped == rooms


def named_in_the_run_folder_document() -> set[str]:
    text = (ROOT / "docs" / "run-folder.md").read_text()
    return {Path(name).name for name in FILE.findall(text)}


def test_every_file_that_code_puts_into_a_runs_folder_is_named() -> None:
    written = set[str]()
    for module in (ROOT / "pipeline/runs", ROOT / "pipeline/training", ROOT / "jobs/tracking"):
        for file in module.rglob("*.py"):
            written |= set(re.findall(r"folder(?:\([^)]*\))?\}/([\w.]+)\"", file.read_text()))
    assert {"run.json", "result.json", "progress.json", "writer.json", "asked.json"} <= written
    assert {name for name in written if "." in name} <= named_in_the_run_folder_document()


@pytest.mark.slow
@pytest.mark.ray
def test_every_file_that_a_run_leaves_is_named(cli: Cli, tmp_path: Path) -> None:
    line = ["train", "resnet20", "--data", "digits", "--iterations", "8", "--storage", tmp_path]
    done = cli(*line, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    left = {file.name for file in (tmp_path / "runs").rglob("*") if file.is_file()}
    assert {"run.json", "weights.safetensors", "result.json"} <= left
    assert left <= named_in_the_run_folder_document()
    top = {place.name for place in tmp_path.iterdir()}
    text = (ROOT / "docs" / "run-folder.md").read_text()
    assert {name for name in top if f"`{name}" not in text and f"/{name}/" not in text} == set()
