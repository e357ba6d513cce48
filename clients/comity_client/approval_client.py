"""Approvals by named officers for one user: what is approved, signing, ending, finding and carrying.

`ApprovalClient` is synchronous:

    subject = client.approvals().subject("inst/name@v1")
    client.approvals().approve(subject, terms, by=publisher)      # after a person has read the digest
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from comity.trust.policy import Policy
from comity_client.approving import (
    ApprovalPlaces,
    ApprovalReceipt,
    ApprovalSubject,
    ApprovalTerms,
    approvals_at_nodes,
    approvals_in_pack,
    approve,
    carry,
    end_approvals,
    rule_of,
)
from comity_client.events import OnEvent, Progress, ignore_event
from comity_client.evidence.approvals import ListedApproval
from comity_client.evidence.resolve import Resolution
from comity_client.offers.signer import OfferSigner
from comity_client.publish import LogTargets
from comity_client.publishers import Publisher
from comity_client.pull.destinations import LocalCopy
from comity_client.session import Session
from comity_client.user import User

T = TypeVar("T")


class FindLocalCopy(Protocol):
    def __call__(self, what: Path | str, *, on_hashed: Callable[[int], None] | None = None) -> LocalCopy: ...


class RunLogging(Protocol):
    def __call__(self, work: Callable[[LogTargets], Awaitable[T]], nodes: Sequence[str], on_event: OnEvent) -> T: ...


class ApprovalClient:
    """Args:
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
        by: Publisher | OfferSigner,
        nodes: Sequence[str] = (),
        out: Path | None = None,
        on_event: OnEvent = ignore_event,
    ) -> ApprovalReceipt:
        """Approve an artifact for a scope. The pack of a folder gets the approval; that of a reference is logged,
        unless it is only written to the file `out`. Raises as `approving.approve` does.

        Args:
            nodes: where to log; default: nowhere for a folder or with `out`, else at the signer's home log.
        """
        signer = _signer(by)
        log, now = partial(self._log, on_event=on_event), int(time.time())
        return approve(subject, terms, signer, _places(subject, signer, nodes, out), now, log)

    def end(
        self,
        subject: ApprovalSubject,
        scope: str,
        since: int,
        text: str,
        *,
        by: Publisher | OfferSigner,
        nodes: Sequence[str] = (),
        out: Path | None = None,
        on_event: OnEvent = ignore_event,
    ) -> ApprovalReceipt:
        """End the signer's approvals of an artifact for a scope, from the time `since` on. Raises as
        `approving.end_approvals` does."""
        signer = _signer(by)
        rule, policy = rule_of(signer), self._user.policy(self._user.pins())
        if subject.folder is not None:
            found = approvals_in_pack(subject.folder, rule, policy)
        else:
            found = self._user.run(lambda session: approvals_at_nodes(session, subject.artifact, rule, policy))
        places, log = _places(subject, signer, nodes, out), partial(self._log, on_event=on_event)
        return end_approvals(subject, found, scope, since, text, signer, places, log)

    def list(self, what: Path | str | None, policy: Policy) -> tuple[ListedApproval, ...]:
        """Return the proven approvals by the officers of the policy: in the pack of a folder, offline; of a reference,
        or of all artifacts, as reachable nodes have them. Raises as `resolve` and `read_pack` do."""
        rule = policy.approvals
        if what is not None and Path(what).is_dir():
            return approvals_in_pack(Path(what), rule, policy)

        async def work(session: Session) -> tuple[ListedApproval, ...]:
            found = await self._user.resolve(session, str(what), policy) if what is not None else None
            return await approvals_at_nodes(session, found.artifact if found else None, rule, policy)

        return self._user.run(work)

    def carry(self, file: Path, folder: Path, conditions: Sequence[Path] = ()) -> int:
        """Add approvals from a file to the pack of a folder, offline. Returns how many. Raises as `approving.carry`
        does."""
        return carry(file, folder, conditions)


def _signer(by: Publisher | OfferSigner) -> OfferSigner:
    return OfferSigner.of_publisher(by) if isinstance(by, Publisher) else by


def _places(subject: ApprovalSubject, signer: OfferSigner, nodes: Sequence[str], out: Path | None) -> ApprovalPlaces:
    if not nodes and subject.folder is None and out is None:
        nodes = (signer.home,)
    return ApprovalPlaces(subject.folder, out, nodes)
