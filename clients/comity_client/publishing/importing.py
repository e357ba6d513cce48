"""Have a node mirror a repository from elsewhere. The node fetches, hashes, compares and signs; nothing is taken from
here but the order, and nothing is believed of the node but what a checkpoint proves to be in its log."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.trust.digest import Digest, sha256
from comity.trust.errors import Malformed, Refused, Unavailable, Untrusted
from comity.trust.statement import parse_entry
from comity.trust.upstream.naming import Wanted
from comity.trust.upstream.news import parse_changed, parse_gone
from comity.trust.upstream.observed import Observed
from comity.wire.limits import LONGEST_CALL
from comity.wire.upstream_values import (
    ImportDone,
    ImportEvent,
    ImportOrder,
    ImportProgress,
    ImportStarted,
    ImportWaiting,
)
from comity.wire.values import Receipt as Promised

from comity_client.events import Note, OnEvent, Progress, Started
from comity_client.nodes.session import Session
from comity_client.nodes.uplink import Uplink, open_uplink
from comity_client.owner.memory import Memory
from comity_client.publishing.publish import Logged, proven

SILENCE: Final = 60.0
"""Seconds without a sign of life from the node."""
TRIES: Final = 5
"""Connections in a row that bring nothing, after which the node is given up."""
PAUSE: Final = 1.0


@dataclass(frozen=True, slots=True)
class Imported:
    """What the node observed, proven to be in its log; `before` says that it was there already."""

    observed: Observed
    logged: Logged
    before: bool

    @property
    def artifact(self) -> Digest:
        return self.observed.artifact


@dataclass(frozen=True, slots=True)
class Checked:
    """How an upstream stands now: `same`, `changed` (to the commit `successor`) or `gone` (`lost` says what)."""

    name: str
    state: str
    successor: str = ""
    lost: str = ""
    index: int = 0


async def import_at(session: Session, memory: Memory, target: str, order: ImportOrder, on_event: OnEvent) -> Imported:
    """Have the node behind `target` (its operator's socket) import. Repeating it goes on from where it stood.

    Raises Refused, NotFound, Malformed, Untrusted, OutOfSpace, Unavailable: what the node found out, and Untrusted
    (RECEIPT) where what it gives back is not what was ordered.
    """
    if order.name:
        Wanted.parse(order.name)
    done = await _driven(session, target, order, on_event)
    observed = Observed.parse(parse_entry(done.line).statement)
    _require_ordered(order, observed)
    async with open_uplink(session, target) as uplink:
        promised = Promised(done.origin, done.index, sha256(done.line))
        logged = await proven(session, memory, uplink, done.line, promised, on_event)
    return Imported(observed, logged, done.before)


async def check_at(session: Session, target: str, name: str, token: str) -> Checked:
    """Have the node ask an upstream again about what it mirrored. Raises NotFound, Refused, Unavailable."""
    async with open_uplink(session, target) as uplink:
        _require_operator(uplink)
        found = await uplink.client.within(LONGEST_CALL).upstream.check(name, token)
    if found.state == "same":
        return Checked(name, found.state)
    statement = parse_entry(found.line).statement
    if found.state == "changed":
        return Checked(name, found.state, successor=parse_changed(statement).successor, index=found.index)
    return Checked(name, found.state, lost=parse_gone(statement).lost, index=found.index)


async def _driven(session: Session, target: str, order: ImportOrder, on_event: OnEvent) -> ImportDone:
    """Call the node until it is done: again after an hour, and after each restart of the node."""
    barren = 0
    while True:
        told = _Told(on_event)
        try:
            async with open_uplink(session, target) as uplink:
                _require_operator(uplink)
                events = uplink.client.within(SILENCE).upstream.run(order)
                async with aclosing(events):
                    async for event in events:
                        if isinstance(event, ImportDone):
                            return event
                        told.tell(event)
            raise Unavailable("the node ended the import", why="without a result", code="BROKEN-OFF")
        except Unavailable as error:
            barren = 0 if told.came else barren + 1
            if error.code not in ("DEADLINE", "UNREACHABLE", "BROKEN-OFF", "LOG-STARTING") or barren >= TRIES:
                raise
            on_event(Note(f"{error}; going on"))
            await asyncio.sleep(PAUSE * 2**barren)


class _Told:
    """One connection's events, passed on."""

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event = on_event
        self._last = ""
        self.came = False

    def tell(self, event: ImportEvent) -> None:
        match event:
            case ImportStarted():
                self._on_event(Started(event.files, event.bytes, 0))
            case ImportProgress() if event.count:
                self.came = True
                self._on_event(Progress(event.path, event.count))
            case ImportWaiting() if event.why != self._last:
                self._last = event.why
                self._on_event(Note(f"waiting: {event.why}"))
            case _:
                pass


def _require_operator(uplink: Uplink) -> None:
    if not uplink.operator:
        hint = "name its operator's socket: --node PATH"
        raise Refused(f"{uplink.name} imports for its operators only", why="it was reached as by anybody", hint=hint)


def _require_ordered(order: ImportOrder, observed: Observed) -> None:
    """That the statement is about what was asked for: a repository may have been renamed, a commit may not."""
    upstream = observed.upstream
    commit = Wanted.parse(order.name).revision if order.name else upstream.commit
    if len(commit) == 40 and upstream.commit != commit and upstream.requested != commit:
        why = f"it logged an observation of {upstream.name}"
        raise Untrusted("the receipt does not hold", why=why, code="RECEIPT")


def read_token(file: Path | None) -> str:
    """The token in a file, one line. Raises Malformed."""
    if file is None:
        return ""
    text = file.read_text("utf-8", "replace").strip()
    if not text or not text.isprintable() or " " in text or len(text) > 256:
        raise Malformed(f"{file} holds no token", why="expected one word on one line", code="CONFIG")
    return text
