"""The limits of a transfer."""

from __future__ import annotations

from typing import Final

from comity.trust.frozen import frozen

MIB: Final = 1 << 20
FASTER: Final = 1.5
"""How many times as fast a costlier way must be. Between rounds of one pull by one way, on a machine that others use,
rates differ by as much (bench/pull.py)."""
FAR: Final = 0.04
"""Seconds of a round trip from which a host is far. Over shorter ways one connection is enough even with losses."""
CONNECTIONS: Final = 4
"""Connections to one host where losses bound the rate of a single one: for a range of a file, and for a long log
(decisions 57 and 38)."""


@frozen
class TransferLimits:
    """The limits and timeouts of one transfer. Memory is at most `buffers` pieces of 4 MiB, and `parallel_range.AHEAD`
    bytes for each request over several connections.

    Attributes:
        read_timeout: seconds without a byte after which a request fails.
        patience: seconds without a newly verified piece after which the transfer fails with Unavailable. For a total
            deadline use `asyncio.timeout` around the call: verified pieces stay for the next try.
        streams: open requests at a time, over all sources; must be below `buffers`, or a deadlock is possible.
        buffers: piece buffers in memory, for all uses.
        run_bytes: the longest range of one request; a slower source gets about `run_seconds` worth of pieces.
        first_delay, max_delay: seconds of a source's back-off after its first failure, and at most.
        faster: how many times as fast as a cheaper way to its host a source must be to be asked instead.
        fast: bytes per second above which a source has two requests, rule (2), and a cheaper way to a host is the
            only one, rule (8); infinity where pieces that arrive out of order cost more than is won.
        divisible: whether a part of a piece can be requested. If not, rule (3) requests whole pieces, and a second
            request (2) begins with the last piece of the first.
    """

    read_timeout: float = 3.0
    patience: float = 600.0
    streams: int = 8
    buffers: int = 12
    run_bytes: int = 128 * MIB
    run_seconds: float = 2.0
    first_delay: float = 0.5
    max_delay: float = 30.0
    faster: float = FASTER
    fast: float = 150e6
    divisible: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.streams < self.buffers:
            raise ValueError("streams must be positive and less than buffers")
