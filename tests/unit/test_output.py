"""Progress and results never mix: a bar on the terminal takes nothing from standard output."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

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
