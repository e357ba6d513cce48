"""Connections that a command begins before it is loaded.

A connection takes three round trips; loading what reads the pins, and what asks the nodes, takes as long as one or two.
So a command that will ask all nodes begins with the connections: to the first address of each node in the pinned
federation files, and to the certificate in its record. Nothing in these files is verified at this time, and nothing is
sent. `Session` takes a connection only where the verified pin has the same address and certificate; the others are
closed. Where the pins cannot be read here there are none; the command, which reads them with all checks, says why.

Only what runs needs asyncio and gRPC: a command that asks nobody loads neither.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from comity.bounded_file import read_bounded
from comity.trust.errors import ComityError, Malformed

if TYPE_CHECKING:
    import asyncio

    from comity.wire.channels import EarlyChannels, PinnedTarget

MOST: Final = 16
"""Connections that are begun."""
MAX_FILE: Final = 2 * 1024 * 1024
"""Bytes of a pinned file that is read here: parsing takes 4 ms a megabyte, before the first connection."""
MAX_TRUST: Final = 64 * 1024
_SERVER_NAME: Final = re.compile(rb"n-[0-9a-f]{32}\.comity\.invalid")


class EarlyStart:
    """An event loop, and the channels that connect in it. The first session of the process runs there."""

    def __init__(self, runner: asyncio.Runner, channels: EarlyChannels) -> None:
        self._runner: asyncio.Runner | None = runner
        self.channels = channels

    def take_runner(self) -> asyncio.Runner:
        """Return the runner of the event loop, once; afterwards a new one, because its owner closes it."""
        import asyncio

        runner, self._runner = self._runner or asyncio.Runner(), None
        return runner

    def close(self) -> None:
        """Close what nobody took."""
        if self._runner is not None:
            with self._runner as runner:
                runner.run(self.channels.close())
            self._runner = None


_begun: EarlyStart | None = None


def begun() -> EarlyStart | None:
    """What this process began with, if it began with connections."""
    return _begun


def begin(trust: Path) -> EarlyStart | None:
    """Begin connections to the nodes of the federations that are pinned in a folder of decisions, and return at once.
    None if no address is found there."""
    global _begun
    try:
        found = list(islice(_addresses(trust), MOST))
    except (ComityError, ValueError, LookupError, TypeError, RecursionError):  # the command says what is wrong
        return None
    if found:
        _begun = _connecting(found)
    return _begun


def _connecting(found: Iterable[tuple[str, bytes]]) -> EarlyStart:
    from comity.content.heap import limit_arenas

    limit_arenas()  # before gRPC has threads
    import asyncio

    from comity.wire.channels import EarlyChannels

    runner, channels = asyncio.Runner(), EarlyChannels()
    targets = (_target(address, certificate) for address, certificate in found)
    runner.run(channels.connect(target for target in targets if target is not None))
    return EarlyStart(runner, channels)


def _addresses(trust: Path) -> Iterator[tuple[str, bytes]]:
    """The first address of each node in the pinned files, and the certificate (DER) in its record; not verified. Raises
    NotFound, Unavailable, Malformed, ValueError, LookupError, TypeError and RecursionError."""
    import tomllib

    decisions: Any = tomllib.loads(read_bounded(trust / "trust.toml", MAX_TRUST).decode("utf-8"))
    for pin in decisions.get("pin", ()):
        federation: Any = json.loads(read_bounded(trust / Path(pin["file"]).name, MAX_FILE))
        for node in federation["nodes"]:
            statement: Any = json.loads(base64.b64decode(json.loads(node["record"])["payload"]))
            for address in node["open"][:1]:
                yield str(address), base64.b64decode(statement["predicate"]["tls"])


def _target(address: str, certificate: bytes) -> PinnedTarget | None:
    """Where a channel connects; None if the address or the certificate is of no form that can be pinned."""
    import ssl

    from comity.wire.addresses import Address
    from comity.wire.channels import PinnedTarget

    name = _SERVER_NAME.search(certificate)
    try:
        where = Address.parse(address)
    except Malformed:
        return None
    pem = ssl.DER_cert_to_PEM_cert(certificate).encode("ascii")
    return PinnedTarget(where.target, pem, name.group().decode(), not where.is_loopback) if name else None
