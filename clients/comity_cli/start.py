"""What the `comity` program runs first: an interruption while the command line is still being imported ends it quietly.

Importing takes a good part of a second. A KeyboardInterrupt in there would print a traceback, or be lost in a library.
A command that asks all nodes opens its connections first, which takes as long.
"""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

FAILED = 1
INTERRUPTED = 130
COLLECT_AFTER = 200_000
"""New objects after which Python searches them for cycles, in a command. Importing makes up to 150,000 objects that
stay, and one search among 50,000 of them takes 10 to 20 ms. A node has Python's own threshold."""
_OWN_THRESHOLDS = gc.get_threshold()
ASK_ALL = ("pull", "show", "whereis")
"""Commands that begin with a question to all nodes of the pinned federations."""


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """Exit at once: nothing has begun that would have to be finished."""
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


def start() -> None:
    """Run the command line. Later interruptions are handled by `comity_cli.main`."""
    signal.signal(signal.SIGINT, _end)
    gc.set_threshold(COLLECT_AFTER, *_OWN_THRESHOLDS[1:])
    try:
        with connecting(sys.argv[1:]):
            from comity_cli.main import main

            signal.signal(signal.SIGINT, signal.default_int_handler)
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(errors="backslashreplace")  # as standard error: not every terminal knows all
            main()
    except KeyboardInterrupt:  # while it ended
        _end(signal.SIGINT, None)
    except BrokenPipeError:  # nobody reads the document of an error any more; an ordinary exit would write it again
        os._exit(FAILED)


@contextmanager
def connecting(words: Sequence[str]) -> Iterator[None]:
    """In the block, the connections of a command that will ask all nodes are being opened; those that it did not take
    are closed after it.

    Args:
        words: of the command line, without the program.
    """
    command = next((word for word in words if not word.startswith("-")), "")
    if command not in ASK_ALL or not {"-h", "--help"}.isdisjoint(words):
        yield
        return
    from comity_client.early import begin
    from comity_client.home import Home

    early = begin(Home.default().trust)
    try:
        yield
    finally:
        if early is not None:
            early.close()


def collect_as_in_a_long_run() -> None:
    """For a process that runs for months: search for cycles as Python does, and never again in what is loaded now."""
    gc.freeze()
    gc.set_threshold(*_OWN_THRESHOLDS)


if __name__ == "__main__":
    start()
