"""UpstreamService's messages <-> values: the same craft as `codecs`."""

from __future__ import annotations

from pathlib import PurePosixPath

from comity.trust.errors import Malformed
from comity.v1 import upstream_pb2
from comity.wire import checks, limits
from comity.wire.errors import clean
from comity.wire.upstream_values import (
    STATES,
    ImportDone,
    ImportEvent,
    ImportOrder,
    ImportProgress,
    ImportStarted,
    ImportWaiting,
    UpstreamCheck,
)


def encode_order(order: ImportOrder) -> upstream_pb2.ImportRepositoryRequest:
    return upstream_pb2.ImportRepositoryRequest(
        name=order.name,
        endpoint=order.endpoint,
        folder=order.folder,
        hosts=order.hosts,
        terms=order.terms,
        token=order.token,
    )


def decode_order(message: upstream_pb2.ImportRepositoryRequest) -> ImportOrder:
    folder = checks.text(message.folder, "path", limits.PATH)
    if folder and not PurePosixPath(folder).is_absolute():
        raise Malformed("not an absolute path", why="the node runs in a directory of its own")
    if not folder and not message.name:
        raise Malformed("nothing to import", why="neither a repository nor a folder is named")
    return ImportOrder(
        name=checks.text(message.name, "name", limits.NAME),
        endpoint=checks.text(message.endpoint, "endpoint", limits.NAME),
        folder=folder,
        hosts=checks.many(
            message.hosts, "hosts", limits.UPSTREAM_HOSTS, lambda host: checks.text(host, "host", limits.ORIGIN)
        ),
        terms=checks.data(message.terms, "terms", limits.TERMS),
        token=checks.text(message.token, "token", limits.TOKEN),
    )


def encode_event(event: ImportEvent) -> upstream_pb2.ImportRepositoryResponse:
    match event:
        case ImportStarted():
            started = upstream_pb2.ImportStarted(name=event.name, files=event.files, bytes=event.bytes)
            return upstream_pb2.ImportRepositoryResponse(started=started)
        case ImportProgress():
            progress = upstream_pb2.ImportProgress(path=clean(event.path, limits.NAME), count=event.count)
            return upstream_pb2.ImportRepositoryResponse(progress=progress)
        case ImportWaiting():
            waiting = upstream_pb2.ImportWaiting(why=clean(event.why, limits.SENTENCE), seconds=event.seconds)
            return upstream_pb2.ImportRepositoryResponse(waiting=waiting)
        case ImportDone():
            done = upstream_pb2.ImportDone(line=event.line, origin=event.origin, index=event.index, before=event.before)
            return upstream_pb2.ImportRepositoryResponse(done=done)


def decode_event(message: upstream_pb2.ImportRepositoryResponse) -> ImportEvent:
    match message.WhichOneof("event"):
        case "started":
            return ImportStarted(
                checks.text(message.started.name, "name", limits.NAME),
                checks.integer(message.started.files, "files"),
                checks.integer(message.started.bytes, "size"),
            )
        case "progress":
            count = checks.integer(message.progress.count, "count", least=-limits.INTEGER)
            return ImportProgress(checks.text(message.progress.path, "path", limits.NAME), count)
        case "waiting":
            seconds = checks.integer(message.waiting.seconds, "seconds")
            return ImportWaiting(checks.text(message.waiting.why, "reason", limits.SENTENCE), seconds)
        case "done":
            return ImportDone(
                checks.line(message.done.line),
                checks.origin(message.done.origin),
                checks.integer(message.done.index, "index"),
                message.done.before,
            )
        case _:
            raise Malformed("an event of no kind", why="the message holds none that is known here")


def encode_check(check: UpstreamCheck) -> upstream_pb2.CheckUpstreamResponse:
    return upstream_pb2.CheckUpstreamResponse(state=check.state, line=check.line, index=check.index)


def decode_check(message: upstream_pb2.CheckUpstreamResponse) -> UpstreamCheck:
    if message.state not in STATES:
        raise Malformed("not a state of an upstream", why=f"expected one of {', '.join(STATES)}")
    line = checks.line(message.line) if message.line else b""
    return UpstreamCheck(message.state, line, checks.integer(message.index, "index"))
