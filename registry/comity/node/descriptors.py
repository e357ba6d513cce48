"""How many connections each listener of a node may hold, so that all of them fit into its open files.

Every connection is an open file, and so is each blob that is read, each file of the ledger and each connection to a
peer. A process that has none left cannot even answer its operator. So the node keeps `OWN` for itself and divides the
rest, by fixed shares, among the listeners that anybody can connect to.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import Final, Self

OWN: Final = 96
"""Open files for the ledger, blobs, logs, threads' pipes, the operator socket, and connections to peers."""
LEAST: Final = 8
"""Connections that a listener has at the least."""
BLOB_FILES: Final = 3
"""Open files of one connection to the blob server: two of its socket, one of the blob."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Connections at once: at the mutual and the open gRPC port, the gateway, and each of the two blob servers."""

    mutual: int
    open: int
    http: int
    blobs: int

    @classmethod
    def of(cls, files: int) -> Self:
        """The division of `files` open files."""
        tenth = max(0, files - OWN) // 10

        def share(tenths: int, most: int, each: int = 1) -> int:
            return max(LEAST, min(most, tenths * tenth // each))

        return cls(
            mutual=share(2, 1024), open=share(2, 2048), http=share(2, 2048), blobs=share(2, 1024, each=BLOB_FILES)
        )


def allow_descriptors() -> None:
    """Raise the process's limit of open files to what the system grants."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def connection_limits() -> ConnectionLimits:
    """The limits for this process, by its present limit of open files."""
    return ConnectionLimits.of(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
