"""Approve an artifact as an officer, end an approval, list approvals, and carry them by files.

An approval of a folder is written into its evidence pack after every file was hashed and matches the manifest; an
approval of a reference is logged. Both can be written to a file as well. Policies say which approvals count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from comity.bounded_file import read_bounded
from comity.trust.approvals import (
    MAX_CONDITIONS,
    ApprovalConditions,
    ApprovalEnded,
    Approved,
    sign_approval_ended,
    sign_approved,
)
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound, Refused
from comity.trust.policy import ApprovalRule, Policy
from comity.trust.statement import Entry, SideObject
from comity.verifier import read_pack
from comity_client.evidence.approvals import (
    CarriedApprovals,
    ListedApproval,
    add_to_pack,
    gather_all_approvals,
    gather_approvals,
    listed_approvals,
    write_approvals,
)
from comity_client.evidence.resolve import Resolution
from comity_client.offers.signer import OfferSigner
from comity_client.publish import Logged, LogTargets, publish_statement
from comity_client.pull.destinations import LocalCopy
from comity_client.session import Session


@dataclass(frozen=True, slots=True)
class ApprovalTerms:
    """For which scope, from when until when (POSIX seconds), and under which conditions: a text file."""

    scope: str
    since: int
    until: int
    conditions: Path | None = None


@dataclass(frozen=True, slots=True)
class ApprovalPlaces:
    """Where approvals are put: `folder` has an evidence pack, `out` is a new file; `nodes` log them."""

    folder: Path | None = None
    out: Path | None = None
    nodes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ApprovalReceipt:
    """What was signed about which artifact, and where it was put. `entries` approve, or end an approval."""

    title: str
    artifact: Digest
    entries: tuple[Entry, ...]
    folder: Path | None
    out: Path | None
    logged: tuple[Logged, ...]


@dataclass(frozen=True, slots=True)
class ApprovalSubject:
    """The artifact to approve, and its folder if it is here."""

    artifact: Digest
    title: str
    folder: Path | None = None

    @classmethod
    def of_copy(cls, copy: LocalCopy) -> ApprovalSubject:
        return cls(copy.artifact, copy.name, copy.folder)

    @classmethod
    def of_resolution(cls, resolution: Resolution) -> ApprovalSubject:
        return cls(resolution.artifact, resolution.title)


Log = Callable[[Callable[[LogTargets], Awaitable[tuple[Logged, ...]]], Sequence[str]], tuple[Logged, ...]]


def approve(
    subject: ApprovalSubject, terms: ApprovalTerms, signer: OfferSigner, places: ApprovalPlaces, now: int, log: Log
) -> ApprovalReceipt:
    """Sign an approval and put it into `places`. Raises Malformed, Refused (NOT-A-SIGNER), and as `add_to_pack` and
    `publish_statement` do."""
    _require_complete(signer)
    text = read_bounded(terms.conditions, MAX_CONDITIONS) if terms.conditions else None
    named = None
    if text is not None and terms.conditions is not None:
        named = ApprovalConditions(terms.conditions.name, SideObject.of(text))
    approved = Approved(
        signer.identity, subject.artifact, terms.scope, terms.since, terms.until, now, named, subject.title[:1000]
    )
    entry = sign_approved(approved, *signer.signers)
    return _put(subject, (entry,), signer, places, [] if text is None else [text], log)


def end_approvals(
    subject: ApprovalSubject,
    found: Iterable[ListedApproval],
    scope: str,
    since: int,
    text: str,
    signer: OfferSigner,
    places: ApprovalPlaces,
    log: Log,
) -> ApprovalReceipt:
    """Sign the end of each approval of the signer for `scope` that is not ended by then. Raises NotFound (NO-APPROVAL)
    if there is none, and as `approve` does."""
    _require_complete(signer)
    own = [each.proven for each in found if each.proven.approved.scope == scope and each.until >= since]
    if not own:
        why = f"{signer.label} has no approval of it for {scope} here that is in force then"
        raise NotFound("there is nothing to end", why=why, hint="comity approvals ls REF --policy FILE",
                       code="NO-APPROVAL")  # fmt: skip
    ends = [ApprovalEnded(signer.identity, subject.artifact, each.entry.statement_digest, since, text) for each in own]
    entries = tuple(sign_approval_ended(end, *signer.signers) for end in ends)
    return _put(subject, entries, signer, places, [], log)


def _require_complete(signer: OfferSigner) -> None:
    if not signer.complete:
        why = f"{signer.keys.threshold} of its keys must sign, but {len(signer.signers)} are here"
        raise Refused("not enough keys", why=why, hint="comity keys show", code="NOT-A-SIGNER")


def _put(
    subject: ApprovalSubject,
    entries: tuple[Entry, ...],
    signer: OfferSigner,
    places: ApprovalPlaces,
    texts: Sequence[bytes],
    log: Log,
) -> ApprovalReceipt:
    lines = [*signer.lines, *(entry.line for entry in entries)]
    if places.folder is not None:
        add_to_pack(places.folder, lines, texts)
    if places.out is not None:
        write_approvals(places.out, lines)
    logged: list[Logged] = []
    if places.nodes:
        objects = {sha256(text): text for text in texts}

        async def work(targets: LogTargets) -> tuple[Logged, ...]:
            receipts = [
                await publish_statement(targets, subject.title, entry, signer.lines, objects) for entry in entries
            ]
            return tuple(each for receipt in receipts for each in receipt.logged)

        logged += log(work, places.nodes)
    return ApprovalReceipt(subject.title, subject.artifact, entries, places.folder, places.out, tuple(logged))


def rule_of(signer: OfferSigner) -> ApprovalRule:
    """Return a rule by which the signer is the only officer, to find the signer's own approvals."""
    return ApprovalRule(officers={signer.label: signer.identity})


def approvals_in_pack(folder: Path, rule: ApprovalRule, policy: Policy) -> tuple[ListedApproval, ...]:
    """Return the proven approvals in the evidence pack of a folder, offline. Raises as `read_pack` does."""
    return listed_approvals(read_pack(folder).claims, rule, policy)


async def approvals_at_nodes(
    session: Session, artifact: Digest | None, rule: ApprovalRule, policy: Policy
) -> tuple[ListedApproval, ...]:
    """Return the proven approvals that reachable nodes have: of an artifact, or of all."""
    asked = replace(policy, approvals=rule)
    if artifact is None:
        lines = await gather_all_approvals(session, asked)
    else:
        lines = await gather_approvals(session, artifact, asked)
    return await asyncio.to_thread(listed_approvals, lines, rule, policy)


def carry(file: Path, folder: Path, conditions: Iterable[Path]) -> int:
    """Add the lines of a file of approvals, and texts of conditions, to the pack of a folder. Returns the number of new
    lines. Raises Malformed, and as `add_to_pack` does."""
    carried = CarriedApprovals.read(file)
    return add_to_pack(folder, carried.lines, [read_bounded(path, MAX_CONDITIONS) for path in conditions])
