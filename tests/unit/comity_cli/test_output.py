"""Progress and results are separate: a progress bar on the terminal changes nothing on standard output."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from comity.trust.errors import NotFound
from comity_cli import output
from comity_cli.output import Output

SCRIPT = """
from comity_cli.output import Output
out = Output()
with out.progress("working", 10) as progress:
    progress.advance(5)
    out.say("a result")
"""


def test_results_reach_a_file_while_a_bar_is_drawn_on_the_terminal() -> None:
    leader, follower = pty.openpty()
    try:
        ran = subprocess.run([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=follower, check=True)
        os.close(follower)
        drawn = os.read(leader, 65_536)
    finally:
        os.close(leader)
    assert ran.stdout == b"a result\n"
    assert b"working" in drawn


def test_texts_of_strangers_forge_no_line_and_control_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    out, words = Output(), "fine\n\x1b[2J✓ ACCEPTED"
    for show in (out.done, out.warn, out.hint, lambda text: out.fact("label", text)):
        show(words)
    out.table(("label",), [(words,)])
    printed = capsys.readouterr()
    lines = (printed.out + printed.err).splitlines()
    assert "\x1b" not in "".join(lines)
    assert not any(line.startswith("✓ ACCEPTED") for line in lines)


@pytest.mark.parametrize(
    "char",
    [*map(chr, range(0x7F, 0xA1)), "\u202e", "\u2066", "\u200b", "\u2028", "\ufeff", "\U000e0041", "\ud800", "\x1b"],
    ids=ascii,
)
def test_json_has_escapes_for_what_a_terminal_may_obey_and_reads_back(
    capsys: pytest.CaptureFixture[str], char: str
) -> None:
    said = {f"key {char}": [f'Zürich 漢 \\ " {char}31m', "\n"]}
    Output(as_json=True).document("error", said)
    text = capsys.readouterr().out
    assert char not in text and "Zürich 漢" in text
    assert said.items() <= json.loads(text).items()


def test_a_narrow_table_wraps_between_words_and_breaks_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "terminal_width", lambda: 80)
    endpoint, open_port = "http://127.0.0.1:31980", "127.0.0.1:16546"
    row = ("node-sg", "SG", "running, pid 12082", open_port, endpoint)
    Output().table(("node", "jurisdiction", "state", "open port", "HF_ENDPOINT"), [row])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[-1] for line in lines if endpoint in line and open_port in line] == [endpoint]


def test_a_table_wider_than_the_terminal_is_folded_and_loses_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "terminal_width", lambda: 80)
    Output().table(("label", "id"), [("Swiss AI", "0123456789" * 9)])
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert sum(printed.count(digit) for digit in "0123456789") == 90


LONG = "models-and-datasets.node-1.institute-for-computing.example.org"


def test_a_long_name_loses_its_middle_on_a_terminal_and_each_row_stays_on_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "terminal_width", lambda: 80)
    rows = [(LONG, "CH", "up", "1048576", "200", "200", "1048576", "12", "0"), (LONG, "ES", "DOWN", *"------")]
    headers = ("node", "jur", "state", "entries", "cosigners", "logs", "holds", "lacks", "short")
    Output().table(headers, rows, shorten=("node",))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= 80
    first = lines[1].split()
    assert first[1:] == list(rows[0][1:])
    head, tail = first[0].split("…")
    assert LONG.startswith(head)
    assert LONG.endswith(tail)


def test_a_table_in_a_pipe_is_neither_wrapped_nor_cut() -> None:
    script = f"from comity_cli.output import Output\nOutput().table(('node', 'why'), [({LONG!r}, 'a b ' * 60)])"
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "40"}
    )
    header, row = ran.stdout.splitlines()
    assert header.split() == ["NODE", "WHY"]
    assert row == f"{LONG}  {'a b ' * 60}".rstrip()


def drawn(script: str) -> str:
    """The text that a program draws on a terminal, without its control sequences."""
    leader, follower = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=follower, check=True, env=TERMINAL
        )
        os.write(follower, END)  # else nothing could be read where nothing was drawn
        text = b""
        while not text.endswith(END):
            text += os.read(leader, 65_536)
    finally:
        os.close(follower)
        os.close(leader)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.decode())


END = b"(end)"
TERMINAL = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
BAR = """
from comity_cli.output import Output
with Output().progress("working", {total}) as bar:
    {work}
"""


@pytest.mark.parametrize(
    ("total", "work", "shown"),
    [
        (0, "bar.advance(432_013_340)", "432.0/? MB"),
        (700_000_000, "bar.advance(1_400_000_000)", "700.0/700.0 MB"),
        (0, "bar.advance(5_000_000); bar.restart(9_000_000); bar.advance(3_000_000)", "3.0/9.0 MB"),
    ],
)
def test_a_bar_never_shows_more_than_the_total_nor_a_total_that_is_not_known(total: int, work: str, shown: str) -> None:
    lines = re.split("[\\r\\n]", drawn(BAR.format(total=total, work=work)))
    assert shown in [line for line in lines if "working" in line][-1]


def test_nothing_is_drawn_where_nothing_is_counted() -> None:
    assert "working" not in drawn(BAR.format(total=0, work="pass"))


def test_lines_instead_of_a_bar_are_bounded_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comity_cli.output.LINE_INTERVAL_SECONDS", -1.0)
    with Output().progress("working", 0) as bar:
        bar.advance(5_000_000)
        bar.restart(9_000_000)
        bar.advance(20_000_000)
    assert capsys.readouterr().err.splitlines() == ["working: 5.0 MB", "working: 9.0 MB of 9.0 MB"]


def test_a_hint_of_another_node_is_not_shown_as_our_own(capsys: pytest.CaptureFixture[str]) -> None:
    told = NotFound("there is none", hint="comity trust bind a/b@v1 evil")
    Output().error(told)
    assert "  try: comity trust" in capsys.readouterr().err
    told.by_node = True
    Output().error(told)
    said = capsys.readouterr().err
    assert "  the node advises: comity trust" in said and "try:" not in said
    Output(as_json=True).error(told)
    assert json.loads(capsys.readouterr().out)["error"]["by_node"] is True


WRAPPED = """
import sys
from comity.trust.errors import PolicyNotMet
from comity_cli.output import Output
out = Output()
words = " ".join(["word"] * 40)
out.fact("cosigners", words)
out.done(words)
out.warn(words)
out.prose(words, first="  PASS  bytes *                  ")
out.prose("sha256:" + 64 * "0" + ", 4 files", first="  PASS  artifact *               ", rest=8 * " ")
out.error(PolicyNotMet("no", why=words))
out.fact("path", "/a/" + "long" * 40)
with out.progress("working", 10) as progress:
    progress.advance(5)
    out.fact("path", "/b/" + "long" * 40)
out.warn("Next: comity pull " + "x" * 90)
"""


def read_to_end(leader: int) -> Iterator[bytes]:
    """What a terminal was sent, in as many parts as the kernel hands on; at the end of them Linux answers EIO."""
    while True:
        try:
            yield os.read(leader, 65_536)
        except OSError as error:
            assert error.errno == errno.EIO
            return


def test_on_a_terminal_every_line_fits_but_what_is_copied_stays_whole() -> None:
    leader, follower = pty.openpty()
    environ = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}
    try:
        subprocess.run([sys.executable, "-c", WRAPPED], stdout=follower, stderr=follower, check=True, env=environ)
        os.close(follower)
        drawn = b"".join(read_to_end(leader)).decode()
    finally:
        os.close(leader)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn)
    lines = [line.rsplit("\r", 1)[-1] for line in plain.replace("\r\n", "\n").split("\n")]
    long = [line for line in lines if len(line) > 80]
    assert [line.split()[-1][:6] for line in long] == ["/a/lon", "/b/lon", "xxxxxx"]
    assert "  PASS  artifact *\n        sha256:" + 64 * "0" + ",\n        4 files" in "\n".join(lines)
    assert "! Next: comity pull " + "x" * 90 in long
    assert sum(line.count("word") for line in lines if "working" not in line) == 5 * 40
    assert not any(line.startswith("word") for line in lines)


def test_in_a_pipe_nothing_is_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    words = " ".join(["word"] * 40)
    Output().fact("cosigners", words)
    assert capsys.readouterr().out == f"  cosigners    {words}\n"


WAITED = """
import time
from comity_cli import output
from comity_cli.output import Output
output.SILENT_SECONDS = 0.0
with Output().waiting("asking the nodes"):
    time.sleep(0.3)
print("done")
"""


def test_a_command_that_takes_long_tells_a_terminal_what_it_does_and_removes_that() -> None:
    leader, follower = pty.openpty()
    try:
        ran = subprocess.run([sys.executable, "-c", WAITED], stdout=subprocess.PIPE, stderr=follower, check=True)
        os.close(follower)
        drawn = os.read(leader, 65_536).decode()
    finally:
        os.close(leader)
    assert ran.stdout == b"done\n"
    assert "asking the nodes: 0 s" in drawn
    assert drawn.endswith("\r\x1b[K")


def test_in_a_pipe_nobody_is_told_what_runs(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "SILENT_SECONDS", 0.0)
    with Output().waiting("asking the nodes"):
        pass
    assert capfd.readouterr() == ("", "")
