"""Have a node import a repository of a Hub, or check it again.

An import runs on the node, which fetches, hashes, compares and signs; the client sends only the order, and verifies
that what the node logged is what was ordered.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Final

from comity.content.secrets import read_secret
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed, Refused, Unavailable, Untrusted
from comity.trust.frozen import frozen
from comity.trust.statement import parse_entry
from comity.trust.upstream import Changed, Gone, Observed
from comity.upstream.listed_files import UpstreamRequest
from comity.wire.limits import LONGEST_CALL, UPSTREAM_TOKEN
from comity.wire.publish import SubmitReceipt as Promised
from comity.wire.upstream import (
    ImportDone,
    ImportEvent,
    ImportOrder,
    ImportProgress,
    ImportStarted,
    ImportWaiting,
    QueuedImport,
)

from comity_client.events import Note, OnEvent, Progress, Started
from comity_client.publish import Logged, verify_logged
from comity_client.seen import SeenLogs
from comity_client.session import Session
from comity_client.uplink import Uplink, open_uplink

IDLE_TIMEOUT: Final = 60.0
"""Seconds without an event from the node."""
MAX_ATTEMPTS: Final = 5
"""Connections in a row without progress, after which the import fails."""
RETRY_DELAY: Final = 1.0


@frozen
class Imported:
    """The observation of the node, proven to be in its log; `before`: it was logged already."""

    observed: Observed
    logged: Logged
    before: bool

    @property
    def artifact(self) -> Digest:
        return self.observed.artifact


@frozen
class UpstreamState:
    """State of an upstream: `same`, `changed` (to the commit `successor`) or `gone` (`lost` says what)."""

    name: str
    state: str
    successor: str = ""
    lost: str = ""
    index: int = 0


async def import_at(
    session: Session, seen_logs: SeenLogs, target: str, order: ImportOrder, on_event: OnEvent
) -> Imported:
    """Have the node behind `target` (its operator socket) import. The same call resumes an import.

    Raises Refused, NotFound, Malformed, Untrusted, OutOfSpace, Unavailable as the node reports; Untrusted (RECEIPT) if
    the result is not what was ordered.
    """
    if order.name:
        UpstreamRequest.parse(order.name)
    done = await _run_import(session, target, order, on_event)
    observed = Observed.parse(parse_entry(done.line).statement)
    _require_ordered(order, observed)
    async with open_uplink(session, target) as uplink:
        promised = Promised(done.origin, done.index, sha256(done.line))
        logged = await verify_logged(session, seen_logs, uplink, done.line, promised, on_event)
    return Imported(observed, logged, done.before)


async def check_at(session: Session, target: str, name: str, token: str) -> UpstreamState:
    """Have the node check the upstream of a mirrored repository again. Raises NotFound, Refused, Unavailable."""
    async with open_uplink(session, target) as uplink:
        _require_operator(uplink)
        found = await uplink.client.with_timeout(LONGEST_CALL).upstream.check(name, token)
    if found.state == "same":
        return UpstreamState(name, found.state)
    statement = parse_entry(found.line).statement
    if found.state == "changed":
        return UpstreamState(name, found.state, successor=Changed.parse(statement).successor, index=found.index)
    return UpstreamState(name, found.state, lost=Gone.parse(statement).lost, index=found.index)


async def decide_at(
    session: Session, target: str, name: str, endpoint: str, hosts: tuple[str, ...], *, keep: bool
) -> None:
    """Queue an import at the node, or end it. Raises Malformed, NotFound (NOT-QUEUED), OutOfSpace (IMPORT-QUEUE),
    Refused, Unavailable."""
    async with open_uplink(session, target) as uplink:
        _require_operator(uplink)
        await uplink.client.upstream.decide(name, endpoint, hosts, keep=keep)


async def queued_at(session: Session, target: str) -> tuple[QueuedImport, ...]:
    """The imports that the node keeps. Raises Refused, Unavailable."""
    async with open_uplink(session, target) as uplink:
        _require_operator(uplink)
        async with aclosing(uplink.client.upstream.queued()) as found:
            return tuple([item async for item in found])


async def _run_import(session: Session, target: str, order: ImportOrder, on_event: OnEvent) -> ImportDone:
    """Call the node until the import is done; reconnect after an hour and after each restart of the node."""
    attempts_without_progress = 0
    while True:
        relay = _EventRelay(on_event)
        try:
            async with open_uplink(session, target) as uplink:
                _require_operator(uplink)
                events = uplink.client.with_timeout(IDLE_TIMEOUT).upstream.run(order)
                async with aclosing(events):
                    async for event in events:
                        if isinstance(event, ImportDone):
                            return event
                        relay.relay(event)
            raise Unavailable("the import has no result", why="the node ended the stream", code="BROKEN-OFF")
        except Unavailable as error:
            attempts_without_progress = 0 if relay.progressed else attempts_without_progress + 1
            if (
                error.code not in ("DEADLINE", "UNREACHABLE", "BROKEN-OFF", "LOG-STARTING")
                or attempts_without_progress >= MAX_ATTEMPTS
            ):
                raise
            on_event(Note(f"{error}; retrying"))
            await asyncio.sleep(RETRY_DELAY * 2**attempts_without_progress)


class _EventRelay:
    """Passes on the events of one connection; `progressed` is set once bytes arrive."""

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event = on_event
        self._last = ""
        self.progressed = False

    def relay(self, event: ImportEvent) -> None:
        match event:
            case ImportStarted():
                self._on_event(Started(event.files, event.bytes, 0, event.bytes))
            case ImportProgress() if event.count:
                self.progressed = True
                self._on_event(Progress(event.path, event.count))
            case ImportWaiting() if event.why != self._last:
                self._last = event.why
                self._on_event(Note(f"waiting: {event.why}"))
            case _:
                pass


def _require_operator(uplink: Uplink) -> None:
    if not uplink.operator:
        hint = "name the operator socket: --node PATH"
        raise Refused(
            f"{uplink.name} imports for its operators only", why="the connection is not the operator socket", hint=hint
        )


def _require_ordered(order: ImportOrder, observed: Observed) -> None:
    """Require that the statement is about the ordered commit. The repository may have been renamed."""
    upstream = observed.upstream
    commit = UpstreamRequest.parse(order.name).revision if order.name else upstream.commit
    if len(commit) == 40 and upstream.commit != commit and upstream.requested != commit:
        why = f"the node logged an observation of {upstream.name}"
        raise Untrusted("the receipt is not valid", why=why, code="RECEIPT")


def read_token(file: Path | None) -> str:
    """Return the token in a file, one line. Raises Malformed, Refused (SECRET-EXPOSED)."""
    if file is None:
        return ""
    text = read_secret(file).decode("utf-8", "replace").strip()
    if not text or not text.isprintable() or " " in text or len(text) > UPSTREAM_TOKEN:
        why = f"expected one line without spaces, of at most {UPSTREAM_TOKEN} characters"
        raise Malformed(f"{file} has no token", why=why, code="CONFIG")
    return text
