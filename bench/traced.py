"""`comity` as a process that writes down which calls it made to nodes, and when.

python bench/traced.py FILE show bench/model@v1

`FILE` gets a JSON list of `[call, node, begin, end]`, in seconds since the start of this process: each call of gRPC,
and each request of a range by HTTPS.
"""

from __future__ import annotations

import atexit
import json
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from comity.transfer.range_client import RangeClient
from comity.wire.calls import Calls
from comity_cli.main import main

BEGAN = time.monotonic()


class Trace:
    """The calls of this process so far."""

    def __init__(self) -> None:
        self.calls: list[list[Any]] = []

    def begin(self, name: str, node: object) -> list[Any]:
        call = [name, str(node), self._now(), None]
        self.calls.append(call)
        return call

    def end(self, call: list[Any]) -> None:
        call[3] = call[3] or self._now()

    def write(self, file: Path) -> None:
        file.write_text(json.dumps([[*call[:3], call[3] or self._now()] for call in self.calls]))

    def _now(self) -> float:
        return round(time.monotonic() - BEGAN, 4)


def watch(trace: Trace) -> None:
    """Have every call of this process from now on in the trace."""
    stub_of, ask, done = Calls._stub, RangeClient.ask, RangeClient.done
    open_ranges: dict[RangeClient, list[Any]] = {}

    def stub(calls: Calls, rpc: Any) -> Any:
        real = stub_of(calls, rpc)

        def begin(*arguments: Any, **named: Any) -> Any:
            call = real(*arguments, **named)
            noted = trace.begin(rpc.path.rpartition("/")[2], id(calls.connection))
            call.add_done_callback(lambda _: trace.end(noted))
            return call

        return begin

    def asked(client: RangeClient, *arguments: Any) -> None:
        open_ranges[client] = trace.begin("GET", client.address)
        ask(client, *arguments)

    def ended(client: RangeClient) -> None:
        done(client)
        trace.end(open_ranges[client])

    patch.multiple(Calls, _stub=stub).start()
    patch.multiple(RangeClient, ask=asked, done=ended).start()


if __name__ == "__main__":
    written = Trace()
    watch(written)
    atexit.register(written.write, Path(sys.argv[1]))
    main(sys.argv[2:])
