"""Where a worker keeps copies: what its node says, else the user's cache."""

from pathlib import Path

import pytest

from jobs.worker import cache_folder


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"RESNET_REPRO_CACHE": "/scratch/copies", "XDG_CACHE_HOME": "/xdg", "HOME": "/home/me"}, "/scratch/copies"),
        ({"XDG_CACHE_HOME": "/xdg", "HOME": "/home/me"}, "/xdg/resnet-repro"),
        ({"RESNET_REPRO_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/home/me"}, "/home/me/.cache/resnet-repro"),
    ],
)
def test_the_cache_is_the_users_own(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RESNET_REPRO_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)
