"""What a cluster may grow to, by what Ray's launcher wrote on its head."""

from pathlib import Path

import pytest
import yaml

from jobs.execution import cluster

KINDS = {
    "head": {"resources": {"CPU": 0}, "max_workers": 0},
    "gpu": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 4},
    "more": {"resources": {"CPU": 4}, "max_workers": 3},
}


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A head with nothing but itself yet; its home."""
    alone = [{"Alive": True, "Resources": {"node:__internal_head__": 1.0, "memory": 8e9}}]
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(cluster.ray, "nodes", lambda: alone)
    return tmp_path


def test_nodes_that_ray_up_may_start_are_counted(head: Path) -> None:
    config = {"available_node_types": KINDS, "head_node_type": "head", "max_workers": 5}
    (head / cluster.BOOTSTRAP).write_text(yaml.safe_dump(config))
    several = cluster.nodes()
    assert [node.get("GPU", 0) for node in several] == [
        0,
        1,
        1,
        1,
        1,
        0,
    ]  # five besides the head, at the most
    cluster.check_fits(several, 4, {"CPU": 1, "GPU": 1})


@pytest.mark.parametrize(
    "text", [None, "", "- 1", "available_node_types: {}", "{", "max_workers: many"]
)
def test_without_them_there_is_what_is_there(head: Path, text: str | None) -> None:
    if text is not None:
        (head / cluster.BOOTSTRAP).write_text(text)
    assert len(cluster.nodes()) == 1
