"""`comity` as a process that fetches files from nodes in one way only, where people's choose between two.

python bench/one_way.py grpc|https pull bench/model@v1 --to DIR
"""

from __future__ import annotations

import sys
from typing import Any
from unittest.mock import patch

from comity.transfer.fetch import fetch_file
from comity.transfer.range_source import RangeSource
from comity_cli.main import main
from comity_client.pull import fetch as fetching


def only(way: str) -> None:
    """Leave the other way out of every transfer of this process, except for files that have one way only."""

    async def chosen(want: Any, sources: Any, *rest: Any, **more: Any) -> Any:
        ranges = [source for source in sources if isinstance(source, RangeSource)]
        streams = [source for source in sources if source not in ranges]
        return await fetch_file(want, (ranges or streams) if way == "https" else streams, *rest, **more)

    patch.object(fetching, "fetch_file", chosen).start()


if __name__ == "__main__":
    only(sys.argv[1])
    main(sys.argv[2:])
