"""Approve an artifact as an officer, end an approval, list approvals, and carry them by files.

An approval of a folder is written into its evidence pack after every file was hashed and matches the manifest; an
approval of a reference is logged. Both can be written to a file as well. Policies say which approvals count.

`ApprovalClient` does this for one user. It is synchronous:

    subject = client.approvals().subject("inst/name@v1")
    client.approvals().approve(subject, terms, by=publisher)      # after a person has read the digest
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from comity.bounded_file import read_bounded
from comity.evidence_pack import read_pack
from comity.rules.signing import sign_content
from comity.trust.approvals import MAX_CONDITIONS, ApprovalConditions, ApprovalEnded, Approved
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound
from comity.trust.frozen import frozen
from comity.trust.policy import ApprovalRule, Policy
from comity.trust.statement import Entry, SideObject

from comity_client.events import OnEvent, Progress, ignore_event
from comity_client.evidence.approvals import (
    CarriedApprovals,
    ListedApproval,
    add_to_pack,
    gather_approvals,
    listed_approvals,
    write_approvals,
)
from comity_client.evidence.inquiry import Inquiry
from comity_client.evidence.resolve import Resolution
from comity_client.identity_signer import IdentitySigner
from comity_client.publish import Logged, LogTargets, publish_statement
from comity_client.publishers import Publisher
from comity_client.pull.destinations import LocalCopy
from comity_client.session import Session, Target, home_target
from comity_client.user import User

T = TypeVar("T")


@frozen
class ApprovalTerms:
    """For which scope, from when until when (POSIX seconds), and under which conditions: a text file."""

    scope: str
    since: int
    until: int
    conditions: Path | None = None


@frozen
class ApprovalEnding:
    """For which scope approvals end, from when on (POSIX seconds), and why; `text` is public."""

    scope: str
    since: int
    text: str


@frozen
class ApprovalReceipt:
    """What was signed about which artifact, and where it was put. `entries` approve, or end an approval."""

    title: str
    artifact: Digest
    entries: tuple[Entry, ...]
    folder: Path | None
    out: Path | None
    logged: tuple[Logged, ...]


@frozen
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


@frozen
class ApprovalPlaces:
    """Where approvals are put: `folder` has an evidence pack, `out` is a new file; `nodes` log them."""

    folder: Path | None = None
    out: Path | None = None
    nodes: Sequence[Target] = ()

    @classmethod
    def of(
        cls, subject: ApprovalSubject, signer: IdentitySigner, nodes: Sequence[Target], out: Path | None
    ) -> ApprovalPlaces:
        """The places that are named; if none is, and the folder is not here, the signer's home log."""
        named = bool(nodes) or subject.folder is not None or out is not None
        return cls(subject.folder, out, nodes if named else home_target(signer.home))


class FindLocalCopy(Protocol):
    def __call__(self, what: Path | str, *, on_hashed: Callable[[int], None] | None = None) -> LocalCopy: ...


class RunLogging(Protocol):
    def __call__(
        self, work: Callable[[LogTargets], Coroutine[Any, Any, T]], nodes: Sequence[Target], on_event: OnEvent
    ) -> T: ...


class ApprovalClient:
    """Approvals by one user.

    Args:
        local_copy: finds a folder on this machine, and hashes every file.
        resolve: finds the artifact of a reference at nodes.
        log: runs what logs statements at nodes.
    """

    def __init__(
        self, user: User, local_copy: FindLocalCopy, resolve: Callable[[str], Resolution], log: RunLogging
    ) -> None:
        self._user = user
        self._local_copy = local_copy
        self._resolve = resolve
        self._log = log

    def subject(self, what: Path | str, *, on_event: OnEvent = ignore_event) -> ApprovalSubject:
        """Return the artifact to approve: of a folder every file is hashed, and must be as its pack lists it; a
        reference is resolved. Raises as `Client.local_copy` and `Client.resolve` do."""
        if Path(what).is_dir():
            here = self._local_copy(Path(what), on_hashed=lambda count: on_event(Progress("", count)))
            return ApprovalSubject.of_copy(here)
        return ApprovalSubject.of_resolution(self._resolve(str(what)))

    def approve(
        self,
        subject: ApprovalSubject,
        terms: ApprovalTerms,
        *,
        by: Publisher | IdentitySigner,
        nodes: Sequence[str] = (),
        out: Path | None = None,
        on_event: OnEvent = ignore_event,
    ) -> ApprovalReceipt:
        """Approve an artifact for a scope. The pack of a folder gets the approval; that of a reference is logged,
        unless it is only written to the file `out`. Raises Malformed, Refused (NOT-A-SIGNER), and as `add_to_pack` and
        `publish_statement` do.

        Args:
            nodes: where to log; default: nowhere for a folder or with `out`, else at the signer's home log.
        """
        signer, now = IdentitySigner.of(by), int(time.time())
        signer.require_complete()
        text = read_bounded(terms.conditions, MAX_CONDITIONS) if terms.conditions else None
        named = None
        if text is not None and terms.conditions is not None:
            named = ApprovalConditions(terms.conditions.name, SideObject.of(text))
        approved = Approved(
            signer.identity, subject.artifact, terms.scope, terms.since, terms.until, now, named, subject.title[:1000]
        )
        entry = sign_content(approved, *signer.signers)
        places = ApprovalPlaces.of(subject, signer, nodes, out)
        return self._put(subject, (entry,), signer, places, [] if text is None else [text], on_event)

    def end(
        self,
        subject: ApprovalSubject,
        ending: ApprovalEnding,
        *,
        by: Publisher | IdentitySigner,
        nodes: Sequence[str] = (),
        out: Path | None = None,
        on_event: OnEvent = ignore_event,
    ) -> ApprovalReceipt:
        """End each approval of an artifact by the signer for a scope that is not ended by the time of `ending`, from
        that time on. Raises NotFound (NO-APPROVAL) if there is none, and as `approve` does."""
        signer, scope, since = IdentitySigner.of(by), ending.scope, ending.since
        signer.require_complete()
        found = self._approvals_by(signer, subject)
        own = [each.proven for each in found if each.proven.approved.scope == scope and each.until >= since]
        if not own:
            why = f"{signer.label} has no approval of it for {scope} here that is in force then"
            raise NotFound("there is nothing to end", why=why, hint="comity approvals ls REF --policy FILE",
                           code="NO-APPROVAL")  # fmt: skip
        statements = [each.entry.statement_digest for each in own]
        ends = [ApprovalEnded(signer.identity, subject.artifact, each, since, ending.text) for each in statements]
        entries = tuple(sign_content(end, *signer.signers) for end in ends)
        return self._put(subject, entries, signer, ApprovalPlaces.of(subject, signer, nodes, out), [], on_event)

    def list(self, what: Path | str | None, policy: Policy) -> tuple[ListedApproval, ...]:
        """Return the proven approvals by the officers of the policy: in the pack of a folder, offline; of a reference,
        or of all artifacts, as reachable nodes have them. Raises as `resolve` and `read_pack` do."""
        rule = policy.approvals
        if what is not None and Path(what).is_dir():
            return listed_approvals(read_pack(Path(what)).claims, rule, policy)

        async def work(session: Session) -> tuple[ListedApproval, ...]:
            found = await self._user.resolve(session, str(what), policy) if what is not None else None
            return await _approvals_at_nodes(session, found.artifact if found else None, rule, policy)

        return self._user.run(work)

    def carry(self, file: Path, folder: Path, conditions: Sequence[Path] = ()) -> int:
        """Add the lines of a file of approvals, and texts of conditions, to the pack of a folder, offline. Returns the
        number of new lines. Raises Malformed, and as `add_to_pack` does."""
        carried = CarriedApprovals.read(file)
        return add_to_pack(folder, carried.lines, [read_bounded(path, MAX_CONDITIONS) for path in conditions])

    def _approvals_by(self, signer: IdentitySigner, subject: ApprovalSubject) -> tuple[ListedApproval, ...]:
        """The approvals of the subject by the signer: in its pack if its folder is here, else at nodes."""
        rule = ApprovalRule(officers={signer.label: signer.identity})
        policy = self._user.policy(self._user.pins())
        if subject.folder is not None:
            return listed_approvals(read_pack(subject.folder).claims, rule, policy)
        return self._user.run(lambda session: _approvals_at_nodes(session, subject.artifact, rule, policy))

    def _put(
        self,
        subject: ApprovalSubject,
        entries: tuple[Entry, ...],
        signer: IdentitySigner,
        places: ApprovalPlaces,
        texts: Sequence[bytes],
        on_event: OnEvent,
    ) -> ApprovalReceipt:
        """Put signed lines, and the texts that they name, into `places`."""
        lines = [*signer.lines, *(entry.line for entry in entries)]
        if places.folder is not None:
            add_to_pack(places.folder, lines, texts)
        if places.out is not None:
            write_approvals(places.out, lines)
        objects = {sha256(text): text for text in texts}

        async def work(targets: LogTargets) -> tuple[Logged, ...]:
            receipts = [
                await publish_statement(targets, subject.title, entry, signer.lines, objects) for entry in entries
            ]
            return tuple(each for receipt in receipts for each in receipt.logged)

        logged = self._log(work, places.nodes, on_event) if places.nodes else ()
        return ApprovalReceipt(subject.title, subject.artifact, entries, places.folder, places.out, logged)


async def _approvals_at_nodes(
    session: Session, artifact: Digest | None, rule: ApprovalRule, policy: Policy
) -> tuple[ListedApproval, ...]:
    """The proven approvals that reachable nodes have: of an artifact, or of all."""
    lines = await gather_approvals(Inquiry(session, replace(policy, approvals=rule)), artifact)
    return await asyncio.to_thread(listed_approvals, lines, rule, policy)
