"""Progress and results never mix: a bar on the terminal takes nothing from standard output."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest
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


def test_a_strangers_words_forge_no_line_and_command_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    out, words = Output(), "fine\n\x1b[2J✓ ACCEPTED"
    for show in (out.done, out.warn, out.hint, lambda text: out.fact("label", text)):
        show(words)
    out.table(("label",), [(words,)])
    printed = capsys.readouterr()
    lines = (printed.out + printed.err).splitlines()
    assert "\x1b" not in "".join(lines)
    assert not any(line.startswith("✓ ACCEPTED") for line in lines)
