"""A process without a home, without a user's name, or behind a proxy is given what it lacks."""

import getpass
import os
from pathlib import Path

import pytest

from jobs.console.surroundings import settle


def test_what_is_there_stays(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path)}
    settle(environment)
    assert environment == {"HOME": str(tmp_path)}


@pytest.mark.parametrize("home", ["/dev/null", "", "relative"])
def test_a_home_that_is_none_is_replaced_by_a_folder_of_this_users_alone(
    home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("os.path.expanduser", lambda _: "/dev/null")
    environment = {"HOME": home}
    settle(environment)
    made = Path(environment["HOME"])
    assert made.parent == tmp_path and made.stat().st_mode & 0o077 == 0
    # The same for the next command, but not where somebody else could have laid it.
    again = {"HOME": home}
    settle(again)
    assert again == environment
    made.rmdir()
    made.symlink_to(tmp_path)
    settle(other := {"HOME": home})
    assert other != environment


def test_a_user_without_a_name_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", nameless)
    environment = {"HOME": str(tmp_path)}
    settle(environment)
    assert environment["LOGNAME"] == f"uid-{os.getuid()}"


def test_proxies_are_not_asked_for_this_machine(tmp_path: Path) -> None:
    proxy = "http://proxy:3128"
    environment = {"HOME": str(tmp_path), "http_proxy": proxy, "no_proxy": "10.0.0.0/8,localhost"}
    settle(environment)
    assert environment["no_proxy"] == "10.0.0.0/8,localhost,127.0.0.1,::1"
    assert environment["NO_PROXY"] == "localhost,127.0.0.1,::1"
