"""Figures begin with matplotlib's defaults, whatever a user's own settings say."""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pytest
from fontTools.ttLib import TTFont

from analysis.figures import style
from analysis.figures.figures_2_3_and_5 import figure_2, figure_3, figure_5
from tests.conftest import Cli

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "analysis" / "results"

HOSTILE = {
    "agg.path.chunksize": "100",
    "axes.facecolor": "grey",
    "axes.formatter.use_locale": "True",
    "axes.spines.top": "False",
    "axes.xmargin": "0.3",
    "figure.constrained_layout.use": "True",
    "figure.dpi": "50",
    "figure.facecolor": "red",
    "font.family": "monospace",
    "legend.loc": "upper left",
    "lines.antialiased": "False",
    "lines.markersize": "20",
    "patch.antialiased": "False",
    "path.simplify": "False",
    "savefig.bbox": "tight",
    "savefig.dpi": "33",
    "savefig.facecolor": "black",
    "savefig.format": "pdf",
    "svg.image_inline": "False",
    "text.color": "blue",
    "text.usetex": "True",
}
"""Settings that people have, as a matplotlibrc has them: each changes figures or needs LaTeX."""
MATPLOTLIBRC = "".join(f"{name}: {value}\n" for name, value in HOSTILE.items()) + "backend: TkAgg\n"


def outside(
    *arguments: str | Path, folder: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`resnet-repro ARGUMENTS` in a new process, which reads settings as it imports matplotlib."""
    return subprocess.run(
        [sys.executable, "-m", "jobs.cli", *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.mark.parametrize("draw", [figure_2, figure_3, figure_5])
def test_settings_of_whoever_calls_change_no_byte(draw: object) -> None:
    assert callable(draw)
    plain = style.images({"figure": draw()})
    with mpl.rc_context(HOSTILE):
        assert style.images({"figure": draw()}) == plain
        assert mpl.rcParams["figure.dpi"] == 50  # theirs are as they were


def test_a_report_and_its_audit_are_the_same_under_any_settings(cli: Cli, tmp_path: Path) -> None:
    plain = cli("report", "--from", RESULTS, "--out", tmp_path / "plain")
    assert plain.returncode == 0, plain.stderr

    # At home, with a font of the name of ours, as it is under Jupyter, in another locale.
    home, here = tmp_path / "home", tmp_path / "here"
    (home / ".config/matplotlib").mkdir(parents=True)
    (home / ".config/matplotlib/matplotlibrc").write_text(MATPLOTLIBRC)
    (home / ".fonts").mkdir()
    _font_called("STIXGeneral", home / ".fonts" / "STIXGeneral.ttf")
    hostile = outside(
        "report",
        "--from",
        RESULTS,
        "--out",
        tmp_path / "hostile",
        folder=tmp_path,
        HOME=str(home),
        XDG_CONFIG_HOME="",
        MPLBACKEND="module://matplotlib_inline.backend_inline",
        LC_ALL="C",
        PYTHONUTF8="0",
        PYTHONCOERCECLOCALE="0",
        SOURCE_DATE_EPOCH="1",
        TZ="Asia/Tokyo",
    )
    assert hostile.returncode == 0, hostile.stderr
    assert contents(tmp_path / "hostile") == contents(tmp_path / "plain")

    # In the working directory.
    here.mkdir()
    (here / "matplotlibrc").write_text(MATPLOTLIBRC)
    audit = outside("audit", tmp_path / "plain", folder=here, MPLBACKEND="nonsense")
    assert audit.stdout == "every file is what the report's data gives\n", audit.stderr


def test_settings_that_are_no_text_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"font.family: \xff\xfe\n")
    refused = outside("audit", tmp_path, folder=tmp_path, MATPLOTLIBRC=str(tmp_path / "mine"))
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert "error: matplotlib cannot read its settings (" in refused.stderr
    assert "move the matplotlibrc away" in refused.stderr


def _font_called(name: str, file: Path) -> None:
    """Another font under this name."""
    font = TTFont(Path(mpl.get_data_path()) / "fonts/ttf/DejaVuSansMono.ttf")
    for record in font["name"].names:
        if record.nameID in (1, 4, 16):
            record.string = name
    font.save(file)
