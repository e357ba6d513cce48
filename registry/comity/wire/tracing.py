"""Spans of calls and transfers, for a tracer that a node may have; without one they cost a comparison.

The wire and the transfer know no tracing library: whoever has one installs a function here (`traced`). Nothing about a
trace is sent to other nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final, TypeAlias

SpanStart: TypeAlias = Callable[[str, Mapping[str, str | int]], AbstractContextManager[object]]
"""Begins a span with a name and attributes; it ends with the block."""

_NONE: Final = nullcontext()
_start: SpanStart | None = None


def span(name: str, **attributes: str | int) -> AbstractContextManager[object]:
    """A span while the block runs. The first underscore of an attribute stands for a full stop: `rpc_system`."""
    return _NONE if _start is None else _start(name, attributes)


@contextmanager
def traced(start: SpanStart) -> Iterator[None]:
    """Make spans of this process with `start` while the block runs; for one node in a process."""
    global _start
    before, _start = _start, start
    try:
        yield
    finally:
        _start = before
