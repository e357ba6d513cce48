"""The answer to a pull when no node gives one: the copy that an earlier pull left, if it is complete and verifies.

The copy is hashed again and judged with the evidence beside it. What an earlier pull cannot know is missing from this
answer: later corrections, advisories, and whether the publisher gave the version to other bytes. Only an exact version
or a digest is answered, because the newest version of a name is what nodes say now.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from comity.rules.cosigned_times import corroborated_time, newest_of_each
from comity.trust.claims import read_claims
from comity.trust.encoding import LAST_TIME, Digest
from comity.trust.errors import NotFound, Unavailable
from comity.trust.evidence import OK, Evidence, EvidenceReader, Verdict
from comity.trust.key_validity import JudgedPublication
from comity.trust.names import Reference
from comity.trust.policy import Policy
from comity.trust.resolution import PublisherClaim
from comity.trust.verify import choose_publication, verify
from comity.verifier import collect_evidence
from comity_client.pull.model_sig import keyless_for
from comity_client.seen import KnownNames
from comity_client.trust_store import Bindings


@dataclass(frozen=True, slots=True)
class CacheBasis:
    """Why a pull rests on the copy here: the error of the nodes. `cosigned_at`: since when enough cosigners have seen a
    log head that proves the publication, in seconds since 1970, by their clocks; None without a cosigner.
    `answered`: nodes answered, and none of them knows it."""

    why: str
    cosigned_at: int | None
    answered: bool = False


@dataclass(frozen=True, slots=True)
class LocalAnswer:
    """A complete copy of an artifact that verifies, and its basis."""

    title: str
    artifact: Digest
    folder: Path
    verdict: Verdict
    files: int
    bytes: int
    basis: CacheBasis


def is_exact(reference: Reference) -> bool:
    """Whether a reference means the same bytes at any time: a digest, or a version of a publisher."""
    return reference.digest is not None or (reference.version is not None and not reference.mirrored)


def local_answer(
    folder: Path,
    reference: Reference,
    policy: Policy,
    bindings: Bindings,
    names: KnownNames,
    failure: Unavailable,
    *,
    workers: int,
    on_hashed: Callable[[int], None],
) -> LocalAnswer:
    """Verify the copy in `folder` as the answer for `reference`. Blocking.

    Raises `failure`, the error of the nodes, if the copy is incomplete, does not pass the policy, or is not what the
    reference means: by its digest, by a binding of the owner, or by a statement of the publisher to which the name
    belongs here.
    """
    reader = EvidenceReader()
    evidence = collect_evidence(folder, workers=workers, on_hashed=on_hashed, reader=reader)
    claimant = names.claimant(reference.repository or "") if reference.digest is None else None
    publisher = claimant.publisher if claimant else None
    verdict = verify(evidence, policy, keyless=keyless_for(policy), reader=reader, publisher=publisher)
    chosen = choose_publication(evidence, policy, reader, publisher)
    title = _title(reference, evidence, verdict, chosen, bindings, claimant, reader)
    if verdict.exit_status != OK or verdict.artifact is None or not title:
        raise failure
    files = evidence.files or ()
    return LocalAnswer(
        title=title,
        artifact=verdict.artifact,
        folder=folder,
        verdict=verdict,
        files=len(files),
        bytes=sum(file.size for file in files),
        basis=CacheBasis(failure.why or str(failure), _cosigned_at(chosen, policy), _nodes_answered(failure)),
    )


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
    evidence: Evidence,
    verdict: Verdict,
    chosen: JudgedPublication | None,
    bindings: Bindings,
    claimant: PublisherClaim | None,
    reader: EvidenceReader,
) -> str:
    """Return the name of the artifact if it is what the reference means, else an empty text."""
    if reference.digest is not None:
        return verdict.name or str(reference) if reference.digest == verdict.artifact else ""
    if (bound := bindings.artifacts.get(str(reference))) is not None:
        return str(reference) if bound == verdict.artifact else ""
    if chosen is None or verdict.artifact is None:
        return ""
    publisher = chosen.publication.publisher.id
    if claimant is not None and claimant.publisher != publisher:
        return ""
    stated = read_claims(evidence.claims, verdict.artifact, reader).publications
    own = (str(each.published.name) for each in stated if each.publisher.id == publisher)
    return next((name for name in own if name.lower() == str(reference).lower()), "")
