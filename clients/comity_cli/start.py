"""What the `comity` program runs first: an interruption while the command line is still being imported ends it quietly.

Importing takes a good part of a second. A KeyboardInterrupt in there would print a traceback, or be lost in a library.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """Exit at once: nothing has begun that would have to be finished."""
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


def start() -> None:
    """Run the command line. Later interruptions are handled by `comity_cli.main`."""
    signal.signal(signal.SIGINT, _end)
    from comity_cli.main import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main()
    except KeyboardInterrupt:  # while it ended
        _end(signal.SIGINT, None)


if __name__ == "__main__":
    start()
