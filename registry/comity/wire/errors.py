"""Conversion between the errors of Comity and gRPC statuses, in both directions, from one table.

A status of Comity has a google.rpc.ErrorInfo: `reason` is the error's code, `domain` is "comity", and the metadata has
`why` and `hint`, and `retry_after`, seconds with three decimals, where the caller may ask again. The status code alone
decides the class of the error. A status without this ErrorInfo comes from gRPC or another program, and becomes an error
from a second table. The texts of a peer are limited in length, and every character that could control a terminal is
replaced.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from comity.trust.errors import (
    ComityError,
    Conflict,
    Equivocation,
    Malformed,
    NotFound,
    OutOfSpace,
    PolicyNotMet,
    Refused,
    Unavailable,
    Untrusted,
)
from comity.wire import limits

DOMAIN: Final = "comity"

STATUS: Final[Mapping[type[ComityError], grpc.StatusCode]] = MappingProxyType(
    {
        ComityError: grpc.StatusCode.UNKNOWN,
        Malformed: grpc.StatusCode.INVALID_ARGUMENT,
        Untrusted: grpc.StatusCode.DATA_LOSS,
        Equivocation: grpc.StatusCode.ALREADY_EXISTS,
        PolicyNotMet: grpc.StatusCode.FAILED_PRECONDITION,
        Unavailable: grpc.StatusCode.UNAVAILABLE,
        NotFound: grpc.StatusCode.NOT_FOUND,
        Refused: grpc.StatusCode.PERMISSION_DENIED,
        OutOfSpace: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Conflict: grpc.StatusCode.ABORTED,
    }
)
_CLASS: Final = {code: kind for kind, code in STATUS.items()}

# Statuses that gRPC itself creates, on either side: (class, code, what).
_BARE: Final[Mapping[grpc.StatusCode, tuple[type[ComityError], str, str]]] = MappingProxyType(
    {
        grpc.StatusCode.UNAVAILABLE: (Unavailable, "UNREACHABLE", "the node cannot be reached"),
        grpc.StatusCode.DEADLINE_EXCEEDED: (Unavailable, "DEADLINE", "the node did not answer in time"),
        grpc.StatusCode.CANCELLED: (Unavailable, "CANCELLED", "the call was cancelled"),
        grpc.StatusCode.UNIMPLEMENTED: (Unavailable, "UNIMPLEMENTED", "the node does not offer this call here"),
        grpc.StatusCode.RESOURCE_EXHAUSTED: (Malformed, "OVERSIZED", "a message is larger than the limit"),
        grpc.StatusCode.PERMISSION_DENIED: (Refused, "REFUSED", "the node refused the call"),
        grpc.StatusCode.UNAUTHENTICATED: (Refused, "REFUSED", "the node refused the call"),
    }
)

_DETAILS: Final = "grpc-status-details-bin"
_RETRY: Final = "retry_after"
_LONGEST_RETRY: Final = 86_400.0
_SECONDS: Final = re.compile(r"[0-9]{1,5}\.[0-9]{3}\Z")
_CODE: Final = re.compile(r"[A-Z][A-Z0-9]*(-[A-Z0-9]+)*\Z")


def to_status(error: ComityError) -> grpc.Status:
    """Returns the status for an error. An Equivocation is sent without its proof; LogService serves the proof. The hint
    of another node is not passed on as one of this node."""
    kind = next(kind for kind in type(error).__mro__ if kind in STATUS)
    info = error_details_pb2.ErrorInfo(reason=error.code, domain=DOMAIN)
    hint = "" if error.by_node else error.hint
    for key, text, limit in (("why", error.why, limits.ERROR_WHY), ("hint", hint, limits.ERROR_HINT)):
        if text:
            info.metadata[key] = clean(text, limit)
    if error.retry_after:
        info.metadata[_RETRY] = f"{min(error.retry_after, _LONGEST_RETRY):.3f}"
    detail = any_pb2.Any()
    detail.Pack(info)
    status = status_pb2.Status(
        code=STATUS[kind].value[0], message=clean(error.what, limits.ERROR_WHAT), details=[detail]
    )
    return rpc_status.to_status(status)


def from_rpc(error: grpc.aio.AioRpcError) -> ComityError:
    """Returns the error for a failed call. Never raises, whatever the peer sent."""
    code = error.code()
    info = _info(error)
    if info is not None and code in _CLASS:
        what = clean(error.details() or "the call failed", limits.ERROR_WHAT)
        why = clean(info.metadata.get("why", ""), limits.ERROR_WHY)
        hint = clean(info.metadata.get("hint", ""), limits.ERROR_HINT)
        if _CLASS[code] is Equivocation:
            return Equivocation(what, proof=(), why=why, hint=hint)
        reason = info.reason if len(info.reason) <= limits.LABEL and _CODE.match(info.reason) else None
        failure = _CLASS[code](what, why=why, hint=hint, code=reason)
        failure.retry_after = _retry_after(info)
        return failure
    kind, reason, what = _BARE.get(code, (Unavailable, "PEER-FAULT", "the node failed to answer"))
    return kind(what, why=clean(error.details() or code.name, limits.ERROR_WHY), code=reason)


def clean(text: str, limit: int) -> str:
    """Returns `text` on one line, in at most `limit` bytes of UTF-8, with unprintable characters replaced."""
    line = " ".join(text[:limit].split())
    if not line.isprintable():
        line = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)
    return line.encode("utf-8")[:limit].decode("utf-8", "ignore")


def _retry_after(info: error_details_pb2.ErrorInfo) -> float:
    told = info.metadata.get(_RETRY, "")
    return min(float(told), _LONGEST_RETRY) if _SECONDS.match(told) else 0.0


def _info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo | None:
    raw = next((value for key, value in error.trailing_metadata() or () if key == _DETAILS), None)
    if not isinstance(raw, bytes):
        return None
    info = error_details_pb2.ErrorInfo()
    try:
        details = status_pb2.Status.FromString(raw).details
        if len(details) == 1 and details[0].Unpack(info) and info.domain == DOMAIN:
            return info
    except DecodeError:
        return None
    return None
