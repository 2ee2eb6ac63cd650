"""The last lines of a command that trained, which are pasted as they are."""

import pytest

from jobs.tracking.store import default_tracking
from jobs.tracking.where_to_look import own_name, say_where_to_look
from pipeline.storage import Storage

SERVER = "http://10.0.0.5:5000"


def test_a_storage_with_its_own_store_needs_no_other_to_be_named(
    storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    say_where_to_look(default_tracking(storage), storage)
    assert capsys.readouterr().out == (
        f"report: {own_name()} report --storage {storage.uri}\n"
        f"runs in the MLflow UI: {own_name()} ui --storage {storage.uri}\n"
    )


@pytest.mark.parametrize(
    ("tracking", "ui"),
    [(SERVER, SERVER), ("sqlite:////team/x.db", "NAME ui --tracking sqlite:////team/x.db")],
)
def test_another_store_is_named_where_a_command_needs_it(
    storage: Storage, capsys: pytest.CaptureFixture[str], tracking: str, ui: str
) -> None:
    say_where_to_look(tracking, storage)
    assert capsys.readouterr().out == (
        f"report: {own_name()} report --storage {storage.uri} --tracking {tracking}\n"
        f"runs in the MLflow UI: {ui.replace('NAME', own_name())}\n"
    )
