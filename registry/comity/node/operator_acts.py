"""Writes what operators do through a node into the audit log of its home, and copies the log to other places.

`OperatorActs` writes the line before the act. `AuditCopies` sends each line, those of the command line too, to the
places of `[audit_log]`: a file, or the syslog of this machine or of another one. It remembers in `audit-copies.json`
how far each place is, so a line is sent at least once, and sent again if a place did not take it.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from comity.content import durable
from comity.content.audit_log import AuditLog, place_in_log, read_records
from comity.node.settings import AuditLogCopies
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import Pools
from comity.trust.encoding import Fields, parse_json
from comity.trust.errors import ComityError, Malformed, NotFound, Unavailable
from comity.wire.access import CALLER, Caller
from comity.wire.bundle import BundleService, LoadEvent
from comity.wire.upstream import ImportEvent, ImportOrder, QueuedImport, UpstreamCheck, UpstreamService

TIMING: Final = LoopTiming(interval=2.0, deadline=60.0)
POSITIONS_FILE: Final = "audit-copies.json"
"""In the node's home."""
POSITIONS_SCHEMA: Final = "comity/audit-copies/v1"
LINES_AT_ONCE: Final = 1_000
SYSLOG_SECONDS: Final = 5.0
_PRIORITY: Final = b"<86>comity-audit: "
"""Facility authpriv, severity info, and the tag."""
_MAX_POSITIONS: Final = 4096


class OperatorActs:
    """Acts of callers of this node. Not thread-safe: call from the event loop."""

    def __init__(self, log: AuditLog, pools: Pools) -> None:
        self._log = log
        self._pools = pools

    async def append(self, act: str, subject: str = "", detail: str = "", *, by: str = "") -> int:
        """Write one line, by default by the caller of the current call. Returns its number. Raises Untrusted
        (AUDIT-LOG-ALTERED), OutOfSpace, Unavailable (DISK)."""
        return (await self._pools.files(self._log.append, act, by or _caller(), subject, detail)).number

    @asynccontextmanager
    async def recorded(self, act: str, subject: str = "", detail: str = "", *, by: str = "") -> AsyncIterator[None]:
        """Write a line before the block runs, and another one if it raises a ComityError. Raises as `append`."""
        number = await self.append(act, subject, detail, by=by)
        try:
            yield
        except ComityError as error:
            await self.append(f"{act}.failed", subject, f"line {number}: {error.code}", by=by)
            raise


def _caller() -> str:
    caller = CALLER.get(Caller("this node"))
    if caller.certificate is not None:
        return f"operator certificate {caller.name[:16]}"
    return "operator socket" if caller.operator else caller.name


class RecordedImports:
    """Implements `UpstreamService`: writes a line for each import and each check of an upstream."""

    def __init__(self, imports: UpstreamService, acts: OperatorActs) -> None:
        self._imports = imports
        self._acts = acts

    async def run(self, order: ImportOrder) -> AsyncGenerator[ImportEvent, None]:
        acting = self._acts.recorded("import", order.name or order.folder, order.endpoint)
        async with acting, aclosing(self._imports.run(order)) as events:
            async for event in events:
                yield event

    async def check(self, name: str, token: str = "") -> UpstreamCheck:
        async with self._acts.recorded("import.recheck", name):
            return await self._imports.check(name, token)

    async def decide(self, name: str, endpoint: str = "", hosts: tuple[str, ...] = (), *, keep: bool = False) -> None:
        async with self._acts.recorded("import.queue" if keep else "import.cancel", name, endpoint):
            await self._imports.decide(name, endpoint, hosts, keep=keep)

    def queued(self) -> AsyncGenerator[QueuedImport, None]:
        return self._imports.queued()


class RecordedLoads:
    """Implements `BundleService`: writes a line for each bundle that is loaded."""

    def __init__(self, loads: BundleService, acts: OperatorActs) -> None:
        self._loads = loads
        self._acts = acts

    async def load(self, socket: Path) -> AsyncGenerator[LoadEvent, None]:
        async with self._acts.recorded("load", str(socket)), aclosing(self._loads.load(socket)) as events:
            async for event in events:
                yield event


class CopyPlace(Protocol):
    """Another place for the lines of the audit log."""

    name: str

    def send(self, line: bytes) -> None:
        """Blocking. Raises Unavailable, OutOfSpace."""

    def close(self) -> None: ...


class FilePlace:
    """A file elsewhere, such as on a disk that only appends; each line is on the disk when `send` returns."""

    def __init__(self, path: Path) -> None:
        self.name = f"file:{path}"
        self._path = path

    def send(self, line: bytes) -> None:
        with durable.disk_errors(f"{self._path} was not written"):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(line)
                file.flush()
                durable.fsync(descriptor, point="audit.copy")

    def close(self) -> None:
        pass


class SyslogPlace:
    """A syslog daemon, at the path of its Unix socket or at host:port over UDP, where a loss is not noticed."""

    def __init__(self, target: str) -> None:
        self.name = f"syslog:{target}"
        self._target = target
        self._socket: socket.socket | None = None

    def send(self, line: bytes) -> None:
        try:
            if self._socket is None:
                self._socket = _connected(self._target)
            self._socket.send(_PRIORITY + line.rstrip(b"\n"))
        except OSError as error:
            self.close()
            raise Unavailable("syslog did not take a line", why=f"{self._target}: {error}", code="SYSLOG") from error

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _connected(target: str) -> socket.socket:
    """Raises OSError."""
    if target.startswith("/"):
        return _datagrams(socket.AF_UNIX, target)
    host, _, port = target.rpartition(":")
    family, _, _, _, address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)[0]
    return _datagrams(family, address)


def _datagrams(family: int, address: str | tuple[Any, ...]) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_DGRAM)
    try:
        opened.settimeout(SYSLOG_SECONDS)
        opened.connect(address)
    except OSError:
        opened.close()
        raise
    return opened


class AuditCopies:
    """Not thread-safe: call from the event loop."""

    def __init__(self, home: Path, settings: AuditLogCopies, pools: Pools) -> None:
        self._home = home
        self._pools = pools
        self._places: list[CopyPlace] = []
        if settings.copy_file is not None:
            self._places.append(FilePlace(settings.copy_file))
        if settings.syslog:
            self._places.append(SyslogPlace(settings.syslog))
        self._lock = threading.Lock()

    def begin(self, supervisor: Supervisor) -> None:
        for place in self._places:

            async def step(place: CopyPlace = place) -> None:
                while await self._pools.files(self.send_new, place):
                    await asyncio.sleep(0)

            supervisor.loop(f"audit log to {place.name}", step, TIMING)

    def send_new(self, place: CopyPlace) -> bool:
        """Send the next lines. Returns whether there may be more. Blocking. Raises Unavailable, OutOfSpace,
        Malformed."""
        with self._lock:
            start = at = self._read_positions().get(place.name, 0)
        sent = 0
        try:
            at = place_in_log(self._home, start)
            for _, line, end in read_records(self._home, at):
                place.send(line)
                at, sent = end, sent + 1
                if sent == LINES_AT_ONCE:
                    break
        except NotFound:
            at = 0
            return False
        finally:
            if at != start:
                with self._lock:
                    self._write_positions({**self._read_positions(), place.name: at})
        return sent == LINES_AT_ONCE

    def close(self) -> None:
        for place in self._places:
            place.close()

    def _read_positions(self) -> dict[str, int]:
        try:
            return parse_positions((self._home / POSITIONS_FILE).read_bytes()[: _MAX_POSITIONS + 1])
        except (OSError, Malformed):
            return {}

    def _write_positions(self, positions: dict[str, int]) -> None:
        kept = {place.name: positions[place.name] for place in self._places if place.name in positions}
        document = {"schema": POSITIONS_SCHEMA, "sent": kept}
        durable.write_file(self._home / POSITIONS_FILE, json.dumps(document).encode() + b"\n", point="audit.positions")


def parse_positions(data: bytes) -> dict[str, int]:
    """Read `audit-copies.json`. Raises Malformed."""
    fields = Fields(parse_json(data, limit=_MAX_POSITIONS, what="places of the audit log"), "places of the audit log")
    fields.constant("schema", POSITIONS_SCHEMA)
    sent = fields.take("sent")
    fields.done()
    places = Fields(sent, "places of the audit log")
    if not isinstance(sent, dict):
        raise fields.error("'sent' must be an object")
    return {name: places.integer(name) for name in sent}
