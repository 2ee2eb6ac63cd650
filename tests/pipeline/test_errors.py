"""What is printed and stored of addresses: never a password."""

from time import monotonic

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


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket?secret_key=HIDDEN&region=x",
        "s3://bucket?Access_Key=HIDDEN: refused",
        "https://host/a?X-Amz-Signature=HIDDEN&X-Amz-Credential=HIDDEN/x",
        "https://host/a?sig=HIDDEN",
        "https://host/a?key=HIDDEN",
        "client_SECRET=HIDDEN, API-KEY=HIDDEN; accessToken=HIDDEN",
        "RAY_AUTH_TOKEN=HIDDEN AWS_SECRET_ACCESS_KEY=HIDDEN",
        "PASSWORD='HIDDEN and HIDDEN'",
        "{'password': 'HIDDEN', \"api_key\": \"HIDDEN\"}",
        "{'Authorization': 'Basic HIDDEN'} Authorization: Bearer HIDDEN",
        "joe:HIDDEN@host:5000 is no address, nor is http:/joe:HIDDEN@host",
        "mysql+pymysql://joe:HIDDEN@host/db",
    ],
)
def test_a_secret_is_hidden_whatever_it_is_called(text: str) -> None:
    assert "HIDDEN" not in redacted(text)
    assert redacted(redacted(text)) == redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH (or RAY_AUTH_TOKEN) to what it is",
        "--set lr=0.1 --set sgd=torch",
        "http://10.0.0.5:5000/#/experiments/1/runs/2?workflowType=machine_learning",
        "seed-0: 12:30, resnet20: finished; a key=value of a table",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


def test_a_text_without_blanks_is_read_in_a_moment() -> None:
    begun = monotonic()
    for part in ("a", "://", "a.", "a:", "token", "token='", "authorization:", "x:y@"):
        redacted(part * 20_000)
    assert monotonic() - begun < 5


def test_a_message_is_one_line() -> None:
    assert str(InputError("one\r\ntwo\x1b[31m\u2028three")) == "one two [31m three"
