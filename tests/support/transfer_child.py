"""A transfer in a process of its own, to be killed: prints one line for each verified piece.

Usage: transfer_child.py PARTIAL PIECES
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from comity.transfer.fetch import FetchOptions, fetch_file
from support.sources import QUICK, MemorySource, wanted, weights


def main(into: str, pieces: str) -> None:
    data = weights(int(pieces))
    sources = [MemorySource("a", data, pause=0.0005), MemorySource("b", data, pause=0.001)]

    def tell(count: int) -> None:
        os.write(1, f"{count}\n".encode())

    asyncio.run(fetch_file(wanted(data), sources, Path(into), on_progress=tell, options=FetchOptions(limits=QUICK)))


if __name__ == "__main__":
    main(*sys.argv[1:])
