"""What is printed and stored of addresses: never a password."""

import pytest

from pipeline.errors import InputError, first_line, redacted
from pipeline.storage import Storage


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("http://user:word@10.0.0.5:5000/x", "http://10.0.0.5:5000/x"),
        (
            "postgresql://user:word@host/db is away, https://token@host too",
            "postgresql://host/db is away, https://host too",
        ),
        ("http://user:wo/rd@host:5000/x", "http://host:5000/x"),
        ("http://user:w@rd@host", "http://host"),
        ("postgresql://host/db?user=me&password=word", "postgresql://host/db?user=me&password=..."),
        ("mail someone@example.com, s3://bucket/a@b", "mail someone@example.com, s3://bucket/a@b"),
    ],
)
def test_addresses_are_shown_without_their_passwords(text: str, says: str) -> None:
    assert redacted(text) == says == str(InputError(text)) == first_line(RuntimeError(text))


def test_storage_takes_no_password() -> None:
    with pytest.raises(InputError, match="set AWS_ACCESS_KEY_ID") as refused:
        Storage("s3://key:secret@bucket/place")
    assert "secret@" not in str(refused.value)
