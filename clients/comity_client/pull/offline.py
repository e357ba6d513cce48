"""The answer when no node gives one: the copy that an earlier pull left.

For a pull the copy must be complete; it is hashed again and judged with the evidence beside it. To show an artifact,
its manifest and its evidence are enough. What an earlier pull cannot know is missing from both answers: later
corrections, advisories, and whether the publisher gave the version to other bytes. Only an exact version or a digest is
answered, because the newest version of a name is what nodes say now.
"""

from __future__ import annotations

import time

from comity.evidence_pack import read_pack
from comity.rules.artifact_kind import Bases, bases, claimed_kind
from comity.rules.cosigned_times import corroborated_time, newest_of_each
from comity.trust.claims import ParsedClaims, Publication, read_claims
from comity.trust.encoding import LAST_TIME, Digest, sha256
from comity.trust.errors import NotFound, Unavailable
from comity.trust.evidence import EvidenceReader
from comity.trust.exit_statuses import OK
from comity.trust.key_validity import JudgedPublication, KeyCircumstances, key_circumstances
from comity.trust.names import Reference
from comity.trust.policy import Policy
from comity.trust.resolution import PublisherClaim
from comity.trust.verify import choose_publication, verify
from comity.verifier import collect_evidence

from comity_client.cache_basis import CacheBasis
from comity_client.events import OnEvent, Progress
from comity_client.evidence.artifact_info import ArtifactInfo, kept_info
from comity_client.pull.destinations import cached_folder, known_reference, workers
from comity_client.pull.model_sig import keyless_for
from comity_client.pull.order import PullContext, Pulled, PullOrder
from comity_client.pull.small_files import BytesBySource
from comity_client.seen import KnownNames
from comity_client.trust_store import Bindings


def is_exact(reference: Reference) -> bool:
    """Whether a reference means the same bytes at any time: a digest, or a version of a publisher."""
    return reference.digest is not None or (reference.version is not None and not reference.mirrored)


def pulled_before(context: PullContext, order: PullOrder, failure: Unavailable, on_event: OnEvent) -> Pulled:
    """Verify the copy that an earlier pull left, as the answer without nodes. Blocking.

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
    claimant = context.names.claimant(reference.repository or "") if reference.digest is None else None
    publisher = claimant.publisher if claimant else None
    verdict = verify(evidence, policy, keyless=keyless_for(policy), reader=reader, publisher=publisher)
    chosen = choose_publication(evidence, policy, reader, publisher)
    if verdict.exit_status != OK or verdict.artifact is None:
        raise failure
    stated = read_claims(evidence.claims, verdict.artifact, reader)
    title = _title(reference, stated, verdict.artifact, chosen, context.bindings, claimant)
    if not title:
        raise failure
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
        bases=needed_beside(
            key_circumstances(evidence, stated, policy, reader), chosen.publication if chosen else None
        ),
    )


def needed_beside(given: KeyCircumstances, publication: Publication | None) -> Bases:
    """What is needed beside an artifact, by the publication that counts and what its publisher states of the kind."""
    if publication is None:
        return Bases()
    published = publication.published
    return bases(claimed_kind(given, published.by, published.artifact), published.lineage)


def shown_before(
    names: KnownNames, bindings: Bindings, reference: str, policy: Policy, failure: Unavailable
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
    claimant = names.claimant(named.repository or "") if named.digest is None else None
    chosen = choose_publication(evidence, policy, reader, claimant.publisher if claimant else None)
    if evidence.manifest is None:
        raise failure
    artifact = sha256(evidence.manifest)
    stated = read_claims(evidence.claims, artifact, reader)
    title = _title(named, stated, artifact, chosen, bindings, claimant)
    if not title:
        raise failure
    cache = CacheBasis(failure.why or str(failure), _cosigned_at(chosen, policy), _nodes_answered(failure))
    return kept_info(title, evidence.manifest, key_circumstances(evidence, stated, policy, reader), chosen, cache)


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


def _title(
    reference: Reference,
    stated: ParsedClaims,
    artifact: Digest,
    chosen: JudgedPublication | None,
    bindings: Bindings,
    claimant: PublisherClaim | None,
) -> str:
    """Return the name of the artifact if it is what the reference means, else an empty text."""
    if reference.digest is not None:
        if reference.digest != artifact:
            return ""
        return str(chosen.publication.published.name) if chosen is not None else str(reference)
    if (bound := bindings.artifacts.get(str(reference))) is not None:
        return str(reference) if bound == artifact else ""
    if chosen is None:
        return ""
    publisher = chosen.publication.publisher.id
    if claimant is not None and claimant.publisher != publisher:
        return ""
    own = (str(each.published.name) for each in stated.publications if each.publisher.id == publisher)
    return next((name for name in own if name.lower() == str(reference).lower()), "")
