"""The answer when no node gives one: the copy that an earlier pull left.

For a pull the copy must be complete; it is hashed again and judged with the evidence beside it. To show an artifact,
its manifest and its evidence are enough. What an earlier pull cannot know is missing from both answers: later
corrections, advisories, and whether the publisher gave the version to other bytes. Only an exact version or a digest is
answered, because the newest version of a name is what nodes say now.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from comity.evidence_pack import read_pack
from comity.federation_file import Federation
from comity.rules.artifact_kind import Bases, bases, claimed_kind
from comity.rules.cosigned_times import corroborated_time, newest_of_each
from comity.trust.claims import ParsedClaims, Publication, read_claims
from comity.trust.encoding import LAST_TIME, Digest, sha256, short
from comity.trust.errors import NotFound, Unavailable, Untrusted
from comity.trust.evidence import Evidence, EvidenceReader
from comity.trust.exit_statuses import OK
from comity.trust.frozen import frozen
from comity.trust.key_validity import JudgedPublication, KeyCircumstances, key_circumstances
from comity.trust.names import Name, Reference
from comity.trust.policy import Policy
from comity.trust.verify import choose_publication, verify
from comity.verifier import collect_evidence

from comity_client.cache_basis import CacheBasis
from comity_client.events import Advised, OnEvent, Progress
from comity_client.evidence.artifact_info import ArtifactInfo, kept_advisories, kept_info
from comity_client.evidence.names import known_owner
from comity_client.pull.destinations import cached_folder, known_reference, workers
from comity_client.pull.model_sig import keyless_for
from comity_client.pull.order import PullContext, Pulled, PullOrder
from comity_client.pull.small_files import BytesBySource
from comity_client.seen import KnownNames
from comity_client.trust_store import Bindings


def is_exact(reference: Reference) -> bool:
    """Whether a reference means the same bytes at any time: a digest, or a version of a publisher."""
    return reference.digest is not None or (reference.version is not None and not reference.mirrored)


@frozen
class KnownHere:
    """What this machine knows about names without asking nodes. Methods read files, and raise as `KnownNames`."""

    names: KnownNames
    bindings: Bindings
    policy: Policy

    def owner(self, reference: Reference) -> Digest | None:
        """To whom the name of a reference belongs; None for a digest, a commit, and if nobody is known."""
        if reference.digest is not None or reference.mirrored:
            return None
        claim = known_owner(self.policy, reference.repository or "", self.names)
        return claim.publisher if claim else None

    def title(
        self, reference: Reference, stated: ParsedClaims, artifact: Digest, chosen: JudgedPublication | None
    ) -> str:
        """The name of the artifact if it is what the reference means, else an empty text."""
        if reference.digest is not None:
            return self._title_of_digest(reference, chosen) if reference.digest == artifact else ""
        if (bound := self.bindings.artifacts.get(str(reference))) is not None:
            return str(reference) if bound == artifact else ""
        if chosen is None:
            return ""
        publisher = chosen.publication.publisher.id
        if not self._may_name(publisher, reference.repository or ""):
            return ""
        own = (each.published.name for each in stated.publications if each.publisher.id == publisher)
        return next((str(name) for name in own if _means(reference, name)), "")

    def check_named(self, reference: Reference, folder: Path, evidence: Evidence, reader: EvidenceReader) -> None:
        """Raise Untrusted (NOT-UNDER-NAME) if the copy in `folder` of what `reference` names was published, but is not
        what the reference means. A copy without a publication has no name that could be wrong."""
        chosen = choose_publication(evidence, self.policy, reader, self.owner(reference))
        if chosen is None or evidence.manifest is None:
            return
        artifact = sha256(evidence.manifest)
        if self.title(reference, read_claims(evidence.claims, artifact, reader), artifact, chosen):
            return
        by, name = chosen.publication.publisher, chosen.publication.published.name
        raise Untrusted(
            f"{folder} is not {reference}",
            why=f"{by.display} [{short(by.id)}] published these bytes as {name}",
            hint=f"comity pull {reference}",
            code="NOT-UNDER-NAME",
        )

    def _title_of_digest(self, reference: Reference, chosen: JudgedPublication | None) -> str:
        """The name that the publisher gave the artifact, if it does not belong to somebody else, else the digest."""
        if chosen is None:
            return str(reference)
        name, publisher = chosen.publication.published.name, chosen.publication.publisher.id
        return str(name) if self._may_name(publisher, name.repository) else str(reference)

    def _may_name(self, publisher: Digest, repository: str) -> bool:
        """Whether the name belongs to this publisher, or to nobody who is known."""
        claim = known_owner(self.policy, repository, self.names)
        return claim is None or claim.publisher == publisher


def _means(reference: Reference, name: Name) -> bool:
    given = (reference.repository or "").lower(), (reference.version or name.version).lower()
    return given == (name.repository.lower(), name.version.lower())


def pulled_before(context: PullContext, order: PullOrder, failure: Unavailable, on_event: OnEvent) -> Pulled:
    """Verify the copy that an earlier pull left, as the answer without nodes. Blocking. Warnings that its evidence
    proves are told as `Advised` events, as when nodes answer.

    Raises `failure`, the error of the nodes, if the copy is missing or incomplete, does not pass the policy, or is not
    what the reference means: by its digest, by a binding of the owner, or by a statement of the publisher to which the
    name belongs here.
    """
    try:
        folder = order.to or cached_folder(order.reference, order.hub_cache)
        reference = known_reference(order.reference, order.hub_cache)
    except NotFound:
        raise failure from None
    if not folder.is_dir() or not is_exact(reference):
        raise failure
    reader, policy = EvidenceReader(), context.inquiry.policy
    evidence = collect_evidence(
        folder, workers=workers(), on_hashed=lambda count: on_event(Progress("", count)), reader=reader
    )
    known = KnownHere(context.names, context.bindings, policy)
    publisher = known.owner(reference)
    verdict = verify(evidence, policy, keyless=keyless_for(policy), reader=reader, publisher=publisher)
    chosen = choose_publication(evidence, policy, reader, publisher)
    if verdict.exit_status != OK or verdict.artifact is None:
        raise failure
    stated = read_claims(evidence.claims, verdict.artifact, reader)
    title = known.title(reference, stated, verdict.artifact, chosen)
    if not title:
        raise failure
    given = key_circumstances(evidence, stated, policy, reader)
    own = chosen.publication.publisher.id if chosen else None
    for _, advisory in kept_advisories(given, verdict.artifact, context.inquiry.session.pins):
        on_event(Advised(advisory, advisory.by.id == own))
    files = evidence.files or ()
    size = sum(file.size for file in files)
    return Pulled(
        title=title,
        artifact=verdict.artifact,
        folder=folder,
        verdict=verdict,
        files=len(files),
        bytes=size,
        here=size,
        tally=BytesBySource(),
        alarms=(),
        cache=CacheBasis(failure.why or str(failure), _cosigned_at(chosen, policy), _nodes_answered(failure)),
        bases=needed_beside(given, chosen.publication if chosen else None),
    )


def needed_beside(given: KeyCircumstances, publication: Publication | None) -> Bases:
    """What is needed beside an artifact, by the publication that counts and what its publisher states of the kind."""
    if publication is None:
        return Bases()
    published = publication.published
    return bases(claimed_kind(given, published.by, published.artifact), published.lineage)


def shown_before(
    names: KnownNames,
    bindings: Bindings,
    pins: Iterable[Federation],
    reference: str,
    policy: Policy,
    failure: Unavailable,
) -> ArtifactInfo:
    """Describe an artifact from the manifest and the evidence that an earlier pull left in the cache. The statements
    are verified; no file is read. Blocking. Raises `failure`, the error of the nodes, as `pulled_before` does."""
    try:
        folder, named = cached_folder(reference, None), known_reference(reference, None)
    except NotFound:
        raise failure from None
    if not is_exact(named):
        raise failure
    reader = EvidenceReader()
    evidence = read_pack(folder, reader)
    known = KnownHere(names, bindings, policy)
    chosen = choose_publication(evidence, policy, reader, known.owner(named))
    if evidence.manifest is None:
        raise failure
    artifact = sha256(evidence.manifest)
    stated = read_claims(evidence.claims, artifact, reader)
    title = known.title(named, stated, artifact, chosen)
    if not title:
        raise failure
    cache = CacheBasis(failure.why or str(failure), _cosigned_at(chosen, policy), _nodes_answered(failure))
    given = key_circumstances(evidence, stated, policy, reader)
    return kept_info(title, evidence.manifest, given, chosen, cache, pins)


def _cosigned_at(chosen: JudgedPublication | None, policy: Policy) -> int | None:
    """The newest time since when enough cosigners have seen the publication, or the `corroborated_time` of all of them
    if they are too few; the clock of one cosigner may say anything."""
    if chosen is None:
        return None
    newest = chosen.newest_cosigned(policy)
    if newest is not None:
        return min(newest.time, LAST_TIME) or None
    cosigners = (cosigner for seen in chosen.witnessed for cosigner in seen.cosigners)
    times = newest_of_each((cosigner.member.id, at) for cosigner in cosigners for at, _ in cosigner.lines)
    found = corroborated_time(filter(None, times.values()), time.time())
    return None if found is None else min(found, LAST_TIME)


def _nodes_answered(failure: Unavailable) -> bool:
    return isinstance(failure, NotFound) and failure.code != "NO-NODES"
