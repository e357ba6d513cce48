"""`AuditService`: audits of copies, and what a node knows about copies. Values and calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Annotated, Any, Final, Protocol

from comity.rules.audit import MAX_CHALLENGED, MAX_LEASE, REASONS, AuditChallenge
from comity.rules.copy_counts import MISSED, PASSED, STATES, AssessedCopy, AuditResult, CopyPolicy
from comity.rules.copy_questions import WHICH, CopyFold, CopyQuestion, CopySet
from comity.rules.parties import HOLDING_KINDS, Party
from comity.trust.copies import WITHDRAWAL_REASONS
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, Refused
from comity.trust.frozen import frozen
from comity.trust.identity import check_jurisdiction
from comity.trust.places import MAX_REACH, MOST_REACHES
from comity.v1 import audit_pb2
from comity.wire import limits
from comity.wire.access import Caller
from comity.wire.calls import ServiceCalls, call, collected
from comity.wire.codec import (
    LINE,
    LINE_OR_NONE,
    At,
    Constant,
    Exact,
    Items,
    Merged,
    MessageCodec,
    Number,
    OneOf,
    Read,
    Sentence,
    ShownName,
    Text,
)
from comity.wire.errors import clean
from comity.wire.fields import encode_digest, read_digest, read_hash, read_many, read_text
from comity.wire.messages import LocatedEntry
from comity.wire.rpc import Rpcs

rpc = Rpcs(audit_pb2)
OUTCOMES: Final = frozenset({PASSED, MISSED, *REASONS})
_RESULT: Final = MessageCodec(AuditResult, audit_pb2.AuditOutcome, outcome=OneOf(OUTCOMES))
_CLAIMED: Final = Merged(
    jurisdiction=Exact(limits.NAME),
    withdrawn=Exact(limits.LABEL),
    reach=Items(MAX_REACH + 1, Read(check_jurisdiction)),
    cloud=Text(limits.NAME),
)
_COPY: Final = MessageCodec(
    AssessedCopy,
    audit_pb2.CopyState,
    copy=_CLAIMED,
    state=OneOf(STATES),
    results=Items(limits.AUDIT_RESULTS, _RESULT),
)
_PATH: Final = Read(
    lambda message: read_many(message.hashes, "hashes", limits.INCLUSION_HASHES, read_hash),
    lambda hashes: audit_pb2.MerklePath(hashes=hashes),
)


def _read_names(items: Sequence[audit_pb2.PartyName]) -> dict[Digest, str]:
    def read(item: audit_pb2.PartyName) -> tuple[Digest, str]:
        return read_digest(item.id), read_text(item.name, "name", limits.NAME)

    return dict(read_many(items, "names", limits.STATUS_ITEMS, read))


def _write_names(names: Mapping[Digest, str]) -> list[audit_pb2.PartyName]:
    return [
        audit_pb2.PartyName(id=encode_digest(party), name=clean(name, limits.NAME)) for party, name in names.items()
    ]


_NAMES: Final = Read(_read_names, _write_names)
_DIGEST_BYTES: Final = 32


def _read_digests(raw: bytes) -> tuple[Digest, ...]:
    if len(raw) % _DIGEST_BYTES or len(raw) > limits.FOLD_LISTED * _DIGEST_BYTES:
        why = f"expected at most {limits.FOLD_LISTED} digests of {_DIGEST_BYTES} bytes"
        raise Malformed("the listed artifacts are malformed", why=why)
    return tuple(Digest(raw[at : at + _DIGEST_BYTES].hex()) for at in range(0, len(raw), _DIGEST_BYTES))


def _check_fold(fold: CopyFold) -> None:
    """Raises Malformed if the parts of a page do not fit together."""
    numbers = [number for each in fold.sets for number in each.copies]
    named = len(fold.names) in (0, len(fold.listed))
    if max(numbers, default=-1) >= len(fold.copies) or max(fold.set_of, default=-1) >= len(fold.sets):
        raise Malformed("the answer does not fit together", why="it has numbers of copies that it does not name")
    if not named or len(fold.set_of) != len(fold.listed) or len(fold.listed) > fold.counted:
        raise Malformed("the answer does not fit together", why="it has not as many names as artifacts")
    if bool(fold.counted) != (fold.last is not None):
        raise Malformed("the answer does not fit together", why="it does not say where it ends")


_SET: Final = MessageCodec(CopySet, audit_pb2.CopySet, copies=Items(limits.COPIES))
_FOLD: Final = MessageCodec(
    CopyFold,
    audit_pb2.CopyFold,
    _check_fold,
    copies=Items(limits.FOLD_COPIES, _COPY),
    sets=Items(limits.FOLD_ARTIFACTS, _SET),
    listed=Read(_read_digests, lambda digests: bytes.fromhex("".join(digests))),
    set_of=Items(limits.FOLD_LISTED),
    names=Items(limits.FOLD_LISTED, Text(limits.NAME)),
)
_QUESTION: Final = MessageCodec(
    CopyQuestion,
    audit_pb2.CopyQuestion,
    which=Items(len(WHICH), OneOf(WHICH)),
    outside=Items(limits.JURISDICTIONS, Read(check_jurisdiction)),
    party=MessageCodec(Party, audit_pb2.CopyParty, kind=OneOf(HOLDING_KINDS), name=Exact(limits.NAME)),
)


@frozen
class AuditOrder:
    """A challenge as it is sent, or carried in a file: in the federation of this id. What it says about who asks whom
    is unverified."""

    federation: Digest
    challenge: AuditChallenge


@frozen
class AuditReply:
    """The signed answer, and the Merkle path of each record. Unverified."""

    line: Annotated[bytes, LINE]
    paths: Annotated[tuple[tuple[bytes, ...], ...], Items(MAX_CHALLENGED, _PATH)]


@frozen
class ListedCopies:
    """The copies of one artifact, as a node assessed them. `name` is a claimed name, or empty."""

    artifact: Digest
    name: ShownName
    copies: Annotated[tuple[AssessedCopy, ...], Items(limits.COPIES, _COPY)]


@frozen
class CopiesPage:
    """A page of what a node says about copies, for the `day` counted from 1970. `names` has display names by id;
    `member` is the member of the node that says it. `fold` is the answer to a question, in place of `artifacts`."""

    artifacts: Annotated[tuple[ListedCopies, ...], Items(limits.COPIES_PAGE)]
    names: Annotated[Mapping[Digest, str], _NAMES]
    policy: Annotated[CopyPolicy, Merged(min_reaches=Number(most=MOST_REACHES))]
    day: int
    member: Digest
    more: bool = False
    fold: Annotated[CopyFold | None, _FOLD] = None

    def order(self, after: Digest | None) -> tuple[Digest | None, bool]:
        """The last artifact of the page, and whether it can be the page after `after`."""
        if self.fold is not None:
            order, last = [*self.fold.listed], self.fold.last
        else:
            order = [item.artifact for item in self.artifacts]
            last = order[-1] if order else None
        ascending = sorted(set(order)) == order and (last is None or not order or order[-1] <= last)
        begins = after is None or last is None or after < min(order[:1], default=last)
        return last, ascending and begins and not (self.more and last is None)


@frozen
class CheckedCopy:
    """The result of an audit that this node made now. `outcome` is PASSED, MISSED or the reason of a failure."""

    member: ShownName
    node: ShownName
    jurisdiction: Annotated[str, Exact(limits.NAME)]
    outcome: Annotated[str, OneOf(OUTCOMES)]
    why: Sentence = ""
    pieces: int = 0


@frozen
class HoldOrder:
    """What an operator decides about the node's own copy. `typed` is the name or digest of the artifact, which is
    needed for the last known copy; `trial`: only say what would happen; `again`: take a withdrawal back."""

    artifact: Digest
    reason: Annotated[str, OneOf(WITHDRAWAL_REASONS)] = "other"
    basis: Annotated[str, Exact(limits.STATUS_TEXT)] = ""
    keep: bool = False
    force: bool = False
    typed: Annotated[str, Exact(limits.NAME)] = ""
    trial: bool = False
    again: bool = False


@frozen
class HoldDecision:
    """The logged line, empty if none was; the names of nodes that proved a copy now, and of those that did not. `bytes`
    were deleted, or are kept aside if the order says so; 0 while the node still tries."""

    line: Annotated[bytes, LINE_OR_NONE]
    index: int
    proven: Annotated[tuple[ShownName, ...], Items(limits.COPIES)]
    unproven: Annotated[tuple[ShownName, ...], Items(limits.COPIES)]
    bytes: int


@frozen
class RetainedCopy:
    """What the retention rules say about an own copy: whether it may go, why it may or stays, and by which rule.
    `bytes` would be freed; `days`: for how long this node knows that it holds the artifact."""

    artifact: Digest
    name: ShownName
    goes: bool
    why: Sentence
    rule: ShownName = ""
    bytes: int = 0
    days: int = 0


@frozen
class RetentionPage:
    copies: Annotated[tuple[RetainedCopy, ...], Items(limits.COPIES_PAGE)]
    more: bool = False


@frozen
class ChallengeRequest:
    """Whose copies to draw challenges for: a node by its name or id; all of its copies, or one."""

    node: Annotated[str, Exact(limits.NAME)]
    artifact: Digest | None = None
    most: Annotated[int, Number(most=limits.CARRIED_CHALLENGES)] = limits.CARRIED_CHALLENGES


_PARTIES: Final = Merged(pieces=At("index"), numbers=Items(MAX_CHALLENGED), lease=Number(most=MAX_LEASE))
_CARRIED_PARTIES: Final = Merged(pieces=At("index"), numbers=Items(MAX_CHALLENGED), lease=Constant(0))


class OrderCodec(MessageCodec[AuditOrder, Any]):
    """The codec of a challenge. Decoding also raises Refused (AUDIT-OLD-FORM)."""

    def decode(self, message: Any) -> AuditOrder:
        if not (message.federation and message.prover and message.auditor):
            why = "it does not name the federation and the node that is asked, as older versions do not"
            hint = "update the node that asks"
            raise Refused("this challenge is not answered", why=why, hint=hint, code="AUDIT-OLD-FORM")
        return super().decode(message)


ORDER: Final = OrderCodec(AuditOrder, audit_pb2.AuditRequest, challenge=_PARTIES)
CARRIED: Final = OrderCodec(AuditOrder, audit_pb2.AuditChallengeCarried, challenge=_CARRIED_PARTIES)


class AuditService(Protocol):
    @rpc("Audit")
    async def audit(self, caller: Caller, order: Annotated[AuditOrder, ORDER]) -> AuditReply:
        """Answer a challenge. Raises NotFound (NOT-HELD), Refused (AUDITORS-ONLY, AUDIT-PARTIES), OutOfSpace
        (AUDIT-BUDGET)."""

    @rpc("ListCopies")
    async def copies(
        self,
        artifact: Digest | None = None,
        after: Digest | None = None,
        question: Annotated[CopyQuestion | None, _QUESTION] = None,
        names_of: Annotated[tuple[Digest, ...], Items(limits.FOLD_LISTED)] = (),
    ) -> CopiesPage:
        """What the node says about the copies of one artifact, or of a page of all artifacts; as an answer to a
        question, or only the names of some artifacts."""

    @rpc("ListAudits", items=limits.AUDIT_LINES)
    def logged(self, artifact: Digest) -> AsyncGenerator[LocatedEntry, None]:
        """The newest logged audits of copies of an artifact. Unverified."""

    @rpc("CheckCopies", items=limits.COPIES, size=limits.LONGEST_ANSWER)
    def check(self, artifact: Digest) -> AsyncGenerator[CheckedCopy, None]:
        """Audit the copies of an artifact at other nodes now. Raises NotFound."""

    @rpc("DecideHold")
    async def decide(self, order: HoldOrder) -> HoldDecision:
        """Withdraw the node's own copy. Raises NotFound (NOT-HELD), PolicyNotMet (COPIES-SHORT, LAST-COPY), Conflict
        (LEASED, LEASE-OVER, WITHDRAWING)."""

    @rpc("ListRetention")
    async def retention(self, after: Digest | None = None) -> RetentionPage:
        """What the retention rules say about the node's own copies. Raises NotFound (NO-RETENTION-RULES), Malformed
        (RETENTION-RULES)."""

    @rpc("AskChallenges", items=limits.CARRIED_CHALLENGES)
    def challenges(self, request: ChallengeRequest) -> AsyncGenerator[Annotated[AuditOrder, CARRIED], None]:
        """Draw challenges, to be carried in a file. Raises NotFound."""

    @rpc("AuditCarried")
    async def answer_carried(self, order: Annotated[AuditOrder, CARRIED]) -> AuditReply:
        """Answer a challenge that was carried here. Raises NotFound (NOT-HELD), Refused (AUDITORS-ONLY,
        AUDIT-PARTIES)."""

    @rpc("CheckAnswer")
    async def check_answer(self, reply: AuditReply) -> CheckedCopy:
        """Check an answer that was carried back, and log the result. Raises NotFound (NO-CHALLENGE), Untrusted
        (AUDIT-FAILED), Conflict (NOT-COMPARED)."""


class AuditCalls(ServiceCalls):
    audit = call(AuditService.audit)
    copies = call(AuditService.copies)
    logged = collected(AuditService.logged)
    check = call(AuditService.check)
    decide = call(AuditService.decide)
    challenges = collected(AuditService.challenges)
    answer_carried = call(AuditService.answer_carried)
    check_answer = call(AuditService.check_answer)
    _retention = call(AuditService.retention)

    async def all_copies(self, question: CopyQuestion | None = None) -> AsyncGenerator[CopiesPage, None]:
        """Yields every page. A node of an older version answers no question: its pages have no `fold`. Raises Malformed
        if the artifacts of a node are not in order."""
        after: Digest | None = None
        while True:
            page = await self.copies(None, after, question)
            last, in_order = page.order(after)
            if not in_order:
                raise Malformed("the answer is not in order", why="artifacts must be listed in order, each once")
            yield page
            if not page.more:
                return
            after = last

    async def retention(self) -> AsyncGenerator[RetentionPage, None]:
        """Yields every page. Raises as `AuditService.retention`."""
        after: Digest | None = None
        while True:
            page = await self._retention(after)
            yield page
            if not page.more or not page.copies:
                return
            after = page.copies[-1].artifact
