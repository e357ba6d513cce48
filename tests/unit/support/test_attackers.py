"""Bytes that the library of attackers builds are valid by the formats, so that a node refuses them for their content
and not for an encoding error.
"""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from attackers import ATTACKERS, Attacker
from attackers.copy_claims import NOBODY, ended, failed, holds, missed, wanted
from attackers.forging import Identity, Release, named, observations, observe
from attackers.sockets import PREFACE, call, frame, shut
from attackers.space_claims import PIECE, SPACE, claimed, reusing
from comity.rules.artifact_pins import Wanted
from comity.rules.audit import AuditFailure, AuditSummary, parse_audited
from comity.rules.pieces import PieceIndex, check_records
from comity.trust.artifact import Manifest
from comity.trust.copies import Holds, HoldWithdrawn
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed
from comity.trust.identity import check_inception
from comity.trust.statement import Statement, parse_entry
from comity.trust.statements import check_published
from comity.trust.upstream import Observed
from comity.upstream.listed_files import parse_observations

WHO = Identity.made("somebody")
RELEASE = Release(b"a file\n")


def test_the_attackers_identities_and_publications_are_valid() -> None:
    inception = check_inception(parse_entry(WHO.inception))
    assert inception.id == WHO.id
    published = check_published(parse_entry(WHO.publish("acme/tiny@v1", RELEASE)), inception)
    assert published.manifest.to_json() == named(RELEASE.manifest)
    assert Manifest.parse(RELEASE.manifest).encode() == RELEASE.manifest
    assert PieceIndex.parse(RELEASE.pieces).encode() == RELEASE.pieces


def test_the_attackers_false_claims_of_copies_are_well_formed() -> None:
    def read(line: bytes) -> Statement:
        return parse_entry(line).statement

    artifacts = [sha256(b"one"), sha256(b"two")]
    assert Wanted.parse(read(wanted(NOBODY, artifacts[0]))).policy.min_copies == 200
    assert [held.artifact for held in Holds.parse(read(holds(NOBODY, sorted(artifacts)))).held] == sorted(artifacts)
    assert HoldWithdrawn.parse(read(ended(NOBODY, artifacts[0], 3))).hold == 3
    assert isinstance(parse_audited(read(failed(NOBODY, artifacts[0], "1" * 64, 1))), AuditFailure)
    assert isinstance(parse_audited(read(missed(NOBODY, artifacts, ["1" * 64], 1))), AuditSummary)
    for malformed in (holds(NOBODY, artifacts, records=1), holds(NOBODY, sorted(artifacts)[::-1])):
        with pytest.raises(Malformed):
            Holds.parse(read(malformed))


def test_the_attackers_claims_of_space_are_well_formed() -> None:
    for release in (claimed(9, "small"), claimed(SPACE, "large"), reusing(3, bytes(PIECE))):
        assert Manifest.parse(release.manifest).encode() == release.manifest
        index = PieceIndex.parse(release.pieces)
        assert index.encode() == release.pieces
        layouts = dict(index.files)
        for file in release.files:
            records = check_records(file.encoded, size=file.size, expected=layouts[file.path])
            assert len(records) == len(file.records)


def test_the_attackers_observations_are_well_formed() -> None:
    line = observe(WHO, "org/tiny", "1f" * 20, "http://127.0.0.1:1", RELEASE)
    with pytest.raises(Exception, match="node"):
        Observed.parse(parse_entry(line).statement)
    assert parse_observations(observations(RELEASE))[0].match == "sha256"


@pytest.mark.parametrize("each", ATTACKERS.values(), ids=lambda each: each.name)
def test_an_attacker_has_a_kind_and_the_lines_that_it_covers(each: Attacker) -> None:
    assert each.by in ("stranger", "identity", "member", "addresses")
    assert each.lines and each.name == each.name.strip()
    assert all(isinstance(sample, bytes) for sample in each.bytes_sent())


def test_the_attackers_http2_calls_are_valid_and_a_zero_window_stops_their_answers() -> None:
    asked: list[bytes] = []

    def answer(request: bytes, _: object) -> bytes:
        asked.append(request)
        return b"the answer"

    class Answering(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers([Answering()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        opened = PREFACE + frame(4, 0, 0, b"") + frame(4, 1, 0, b"") + call(1, "/x/Y", b"question")
        for sent, answered in ((opened, True), (shut(1, b"question", "/x/Y"), False)):
            with socket.create_connection(("127.0.0.1", port), 10) as link:
                link.sendall(sent)
                assert _answered(link) == answered
    finally:
        server.stop(0).wait()
    assert asked == [b"question"] * 2


def _answered(link: socket.socket) -> bool:
    """Whether the answer comes, by the time that a ping is answered which was sent after the response began."""
    came, begun = b"", False
    while b"the answer" not in came:
        came += link.recv(65_536)
        if not begun and b"application/grpc" in came:
            link.sendall(frame(6, 0, 0, b"anything"))
            begun = True
        if came.count(b"anything"):
            return False
    return True
