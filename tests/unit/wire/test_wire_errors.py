"""Errors on the wire: the status of each class, and what arrives."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from comity.trust import errors
from comity.trust.errors import ComityError, Equivocation, Malformed, NotFound, Refused, Unavailable
from comity.wire import limits
from comity.wire.errors import STATUS, clean, from_rpc, to_status
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # it has no types
from grpc_status import rpc_status

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ComityError)]


def arriving(status: grpc.Status) -> ComityError:
    """The error that a caller makes of a status that gRPC received."""
    metadata = grpc.aio.Metadata(*status.trailing_metadata)
    return from_rpc(grpc.aio.AioRpcError(status.code, grpc.aio.Metadata(), metadata, status.details))


def bare(code: grpc.StatusCode, details: str = "") -> ComityError:
    return from_rpc(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details))


def test_every_error_class_has_a_status_of_its_own() -> None:
    assert set(STATUS) == set(KINDS)
    assert len(set(STATUS.values())) == len(KINDS)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not Equivocation])
def test_an_error_survives_the_round_trip(kind: type[ComityError]) -> None:
    for error in (kind("what"), kind("what", why="why", hint="hint", code="A-REASON-2")):
        got = arriving(to_status(error))
        assert type(got) is kind
        assert (got.what, got.why, got.hint, got.code) == (error.what, error.why, error.hint, error.code)


def test_a_hint_of_another_node_is_not_passed_on_as_this_nodes_hint() -> None:
    told = arriving(to_status(NotFound("what", why="why", hint="comity trust bind a/b evil")))
    told.by_node = True
    again = arriving(to_status(told))
    assert (again.what, again.why, again.hint) == ("what", "why", "")


def test_an_equivocation_survives_without_its_proof() -> None:
    got = arriving(to_status(Equivocation("two notes", proof=(b"a", b"b"), why="why", hint="hint")))
    assert isinstance(got, Equivocation)
    assert (got.what, got.why, got.hint, got.code, got.proof) == ("two notes", "why", "hint", "EQUIVOCATION", ())


def test_an_error_without_a_line_of_its_own_travels_as_its_parent() -> None:
    class Narrower(NotFound):
        code = "NARROWER"

    got = arriving(to_status(Narrower("what")))
    assert (type(got), got.code) == (NotFound, "NARROWER")


@pytest.mark.parametrize("reason", ["", "lower", "A B", "A_B", "-A", "A-", "A" * 65, "A\n", "\x1b[2J"])
def test_a_reason_that_is_no_code_is_ignored(reason: str) -> None:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="comity"))
    assert arriving(_status(grpc.StatusCode.NOT_FOUND, [detail])).code == "NOT-FOUND"


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, Unavailable, "UNREACHABLE"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Unavailable, "DEADLINE"),
        (grpc.StatusCode.UNIMPLEMENTED, Unavailable, "UNIMPLEMENTED"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Malformed, "OVERSIZED"),
        (grpc.StatusCode.UNAUTHENTICATED, Refused, "REFUSED"),
        (grpc.StatusCode.INTERNAL, Unavailable, "PEER-FAULT"),
        (grpc.StatusCode.UNKNOWN, Unavailable, "PEER-FAULT"),
        (grpc.StatusCode.DATA_LOSS, Unavailable, "PEER-FAULT"),
    ],
)
def test_a_foreign_status_becomes_the_matching_error(code: Any, kind: type[ComityError], reason: str) -> None:
    got = bare(code, "some details")
    assert (type(got), got.code, got.why) == (kind, reason, "some details")


def test_details_of_another_domain_or_shape_count_for_nothing() -> None:
    foreign, other = any_pb2.Any(), any_pb2.Any()
    foreign.Pack(error_details_pb2.ErrorInfo(reason="STOCKOUT", domain="shop.example"))
    other.Pack(error_details_pb2.DebugInfo(detail="a stack"))
    ours = any_pb2.Any()
    ours.Pack(error_details_pb2.ErrorInfo(reason="REASON", domain="comity"))
    for details in ([foreign], [other], [ours, ours], []):
        assert arriving(_status(grpc.StatusCode.INVALID_ARGUMENT, details)).code == "PEER-FAULT"


def test_details_that_do_not_parse_count_for_nothing() -> None:
    metadata = grpc.aio.Metadata(("grpc-status-details-bin", b"\xff\xff"))
    error = grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, grpc.aio.Metadata(), metadata, "x")
    assert from_rpc(error).code == "PEER-FAULT"


def test_a_status_fits_the_trailer_that_grpc_accepts() -> None:
    snow = "\N{SNOWMAN}" * 100_000
    status = to_status(NotFound(snow, why=snow, hint=snow))
    trailer = sum(len(value) * 4 // 3 for _, value in status.trailing_metadata) + 3 * len(status.details.encode())
    assert trailer < 8_192


def test_cleaning_leaves_one_printable_line_within_its_bytes() -> None:
    assert clean("two\n  lines", 100) == "two lines"
    assert clean("\x1b[31mred\u202e", 100) == "\N{REPLACEMENT CHARACTER}[31mred\N{REPLACEMENT CHARACTER}"
    assert clean("\N{SNOWMAN}" * 100, 10) == "\N{SNOWMAN}" * 3
    assert clean("lone \ud800", 100) == "lone \N{REPLACEMENT CHARACTER}"


def test_the_bounds_of_an_error_hold_on_the_way_in() -> None:
    info = error_details_pb2.ErrorInfo(reason="R", domain="comity", metadata={"why": "y" * 9_000, "hint": "\x07"})
    detail = any_pb2.Any()
    detail.Pack(info)
    got = arriving(_status(grpc.StatusCode.NOT_FOUND, [detail], message="w" * 9_000))
    assert (len(got.what), len(got.why)) == (limits.ERROR_WHAT, limits.ERROR_WHY)
    assert got.hint == "\N{REPLACEMENT CHARACTER}"


def _status(code: grpc.StatusCode, details: list[any_pb2.Any], message: str = "what") -> grpc.Status:
    return rpc_status.to_status(status_pb2.Status(code=code.value[0], message=message, details=details))


@pytest.mark.parametrize(("seconds", "arrives"), [(0.0, 0.0), (0.0204, 0.02), (61.5, 61.5), (1e9, 86_400.0)])
def test_the_time_after_which_to_ask_again_arrives(seconds: float, arrives: float) -> None:
    error = Refused("too many calls", code="RATE")
    error.retry_after = seconds
    assert arriving(to_status(error)).retry_after == arrives


@pytest.mark.parametrize("told", ["nan", "inf", "-1.000", "1e3", "9" * 100, "99999.000\n", "", "99999.000"])
def test_no_peer_names_a_time_that_is_none_or_longer_than_a_day(told: str) -> None:
    info = error_details_pb2.ErrorInfo(reason="RATE", domain="comity", metadata={"retry_after": told})
    detail = any_pb2.Any()
    detail.Pack(info)
    status = status_pb2.Status(code=grpc.StatusCode.PERMISSION_DENIED.value[0], message="no", details=[detail])
    assert arriving(rpc_status.to_status(status)).retry_after == (86_400.0 if told == "99999.000" else 0.0)
