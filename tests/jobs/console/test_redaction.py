"""What a process shows and logs, by the streams and records that it has: never a password."""

import io
import os
import subprocess
import sys

from rich.table import Table

from jobs.console.console import RedactedConsole
from jobs.console.redaction import READER_GONE, RedactedStream

ADDRESS = "http://joe:HIDDEN@host:5000"
NOISY = f"""
import logging, sys, warnings
from threading import Thread
kept = logging.StreamHandler()  # made before, with a stream of its own
logging.getLogger("kept").addHandler(kept)
from jobs.console.redaction import hide_secrets
hide_secrets(), hide_secrets()
print("one", {ADDRESS!r}, end="")
print("two", "secret_", end="key=HI", flush=False)
print("DDEN")
warnings.warn({ADDRESS!r})
logging.warning("%s is away", {ADDRESS!r})
logging.warning("%d", "no number")
def fail():
    raise ValueError({ADDRESS!r})
try:
    fail()
except ValueError as error:
    logging.getLogger("kept").exception("failed")
    cause = error
thread = Thread(target=fail)
thread.start(), thread.join()
print("begun token=HIDDEN", end="", file=sys.stderr)
raise RuntimeError("password=HIDDEN") from cause
"""


def test_nothing_that_a_process_writes_has_a_password() -> None:
    done = subprocess.run([sys.executable, "-c", NOISY], capture_output=True, text=True)
    assert "HIDDEN" not in done.stderr + done.stdout
    # All of it is there otherwise: four tracebacks with their causes, warnings and logs.
    assert done.stdout == "one http://host:5000two secret_key=...\n"
    assert done.stderr.count("ValueError: http://host:5000") == 4
    assert "UserWarning: http://host:5000" in done.stderr and "host:5000 is away" in done.stderr
    assert "begun token=..." in done.stderr and "RuntimeError: password=..." in done.stderr


def test_a_stream_writes_whole_lines_and_the_rest_when_it_is_flushed() -> None:
    under = io.StringIO()
    stream = RedactedStream(under)
    assert stream.write("http://joe:HID") == 14 and under.getvalue() == ""
    stream.writelines(["DEN@host\nnext", " password=HIDDEN"])
    assert under.getvalue() == "http://host\n"
    stream.flush()
    assert under.getvalue() == "http://host\nnext password=..."
    assert stream.isatty() is False and stream.encoding == under.encoding


def test_a_password_is_gone_before_a_table_is_coloured_and_broken_into_lines() -> None:
    out = io.StringIO()
    console = RedactedConsole(file=out, force_terminal=True, width=20, color_system="truecolor")
    table = Table(title=f"at {ADDRESS}")
    table.add_column(f"of {ADDRESS}")
    table.add_row(f"{ADDRESS} token=HIDDEN")
    console.print(table)
    console.print(f"secret_key=HIDDEN {ADDRESS}", style="bold")
    assert not [part for part in ("HID", "DEN", "joe") if part in out.getvalue()]


def test_letters_that_an_encoding_lacks_are_spelt() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    code = """
import sys
from jobs.console.redaction import hide_secrets
hide_secrets()
print("3×3 → ±0.5 – é … 日")
print("\\udcff")
print("a → b", file=sys.stderr)
"""
    line = [sys.executable, "-X", "utf8=0", "-c", code]
    done = subprocess.run(line, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "3x3 -> +/-0.5 - e ... \\u65e5\n\\udcff\n" and done.stderr == "a -> b\n"


def test_who_stops_reading_ends_the_process_without_a_word() -> None:
    code = """
from jobs.console.redaction import hide_secrets
hide_secrets()
try:
    for number in range(10**6):
        print(number)
finally:
    print("what is cleaned up may print too")
"""
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (READER_GONE, b"")


def test_a_terminal_that_was_closed_ends_the_process_as_a_closed_pipe_does() -> None:
    ours, theirs = os.openpty()
    code = "from jobs.console.redaction import hide_secrets; import sys; hide_secrets()\n"
    code += "sys.stdin.read(1)\nfor number in range(10**4): print(number)"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    for end in (theirs, ours):
        os.close(end)
    _, said = process.communicate(b"x", timeout=60)
    assert (process.returncode, said) == (READER_GONE, b"")
