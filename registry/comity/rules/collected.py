"""Which lines are to be proven to be logged, which proofs of them are kept, and which documents are read.

As in `collector`, the rule is here, and drivers fetch: from the nodes of a federation, or from the ledger of a node. Of
each line the proof with most cosigners is kept for each log, so that everybody who has the same notes judges the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from typing import Final

from comity.rules.artifact_kind import kinds_to_prove
from comity.rules.collector import Collector
from comity.trust.approvals import MAX_CONDITIONS
from comity.trust.bound_nodes import BoundNode
from comity.trust.claims import ParsedClaims, Publication, Vouch, read_claims, verify_vouches
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError
from comity.trust.evaluation import announcements_of, evaluations_of
from comity.trust.evidence import Evidence, EvidenceReader, FoundFile, InclusionEvidence
from comity.trust.frozen import frozen
from comity.trust.key_validity import KeyCircumstances, prove_entry
from comity.trust.policy import Policy
from comity.trust.rotation import LogCut
from comity.trust.statement import Entry, SideObject
from comity.trust.statement_kinds import APPROVED, HOLD_PREDICATES, HOLD_WITHDRAWN, OBSERVED
from comity.trust.tlog.note import Checkpoint

MAX_DOCUMENTS: Final = 16
"""Documents of vouches that are read, and evaluations whose proofs are."""
MAX_ANNOUNCEMENTS: Final = 4
"""Announcements of one evaluation that are proven."""
MAX_STATEMENTS: Final = 16
"""Statements of publishers whose documents are read."""
MAX_CONDITION_TEXTS: Final = 64
"""Texts of conditions that are read for one artifact."""
MAX_DOCUMENT: Final = 4 * 1024 * 1024
"""Bytes of a document that comes with a vouch."""
MAX_CUTS: Final = 32
"""Cuts of rotations that are compared with one publication."""


@frozen
class KeptProof:
    """The best proof of one line in one log. `log` is the verifier key of the log: several members may have logs of one
    origin."""

    line: bytes
    origin: str
    proof: InclusionEvidence
    log: str = ""


@frozen
class CollectedEvidence:
    """What is known about one artifact, on which a verdict depends: it grows from its statements, which are read and
    bound once, by documents and proofs.

    `collector` asks on; `lines` are the statements; `bound` are the nodes that the charters of the policy prove;
    `bounds` says what was left out because a bound was reached, and `cut` of whom. Of an answer by nodes: `places` are
    the positions of lines as (origin, index) that they claim, and `notes` are about lines that were dropped.
    """

    collector: Collector = field(repr=False)
    lines: tuple[bytes, ...]
    claims: ParsedClaims
    bound: tuple[BoundNode, ...]
    bounds: tuple[str, ...]
    cut: frozenset[Digest]
    objects: Mapping[Digest, bytes] = field(default_factory=dict)
    proofs: tuple[KeptProof, ...] = ()
    places: Mapping[bytes, frozenset[tuple[str, int]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, collector: Collector, reader: EvidenceReader) -> CollectedEvidence:
        """Read the statements that were collected so far."""
        lines = collector.lines
        claims = read_claims(lines, collector.artifact, reader)
        bound = claims.binding(collector.policy.pins)[0]
        return cls(collector, lines, claims, bound, tuple(collector.bounds), frozenset(collector.cut))

    @property
    def artifact(self) -> Digest:
        return self.collector.artifact

    @property
    def policy(self) -> Policy:
        return self.collector.policy

    def evidence(
        self,
        manifest: bytes,
        files: tuple[FoundFile, ...] | None,
        *,
        partial: bool = False,
        pieces: bytes | None = None,
        model_sig: bytes | None = None,
    ) -> Evidence:
        """Return the evidence as a verifier would read it from a pack beside these files."""
        return Evidence(
            manifest=manifest,
            files=files,
            claims=self.lines,
            proofs=tuple(kept.proof for kept in self.proofs),
            objects=self.objects,
            partial=partial,
            pieces=pieces,
            model_sig=model_sig,
            unread=self.bounds,
            cut=self.cut,
        )

    def circumstances(self, reader: EvidenceReader) -> KeyCircumstances:
        """By what the keys behind the statements are judged."""
        proofs = tuple(kept.proof for kept in self.proofs)
        return KeyCircumstances(self.claims, proofs, self.bound, self.policy, {}, reader)

    def entries_to_prove(self) -> tuple[Entry, ...]:
        """The publications, the claims of copies, their withdrawals and the observations of nodes that a charter binds,
        the approvals of officers, evaluations whose results are here, what members name as continuations, and the kinds
        that a lost key may have stated."""
        nodes = {node.record.node for node in self.bound}
        of_nodes = (*HOLD_PREDICATES, HOLD_WITHDRAWN, OBSERVED)
        found = [publication.entry for publication in self.claims.publications]
        found += [e for e in self.claims.entries if e.statement.predicate in of_nodes and e.statement.by in nodes]
        continuing = self.collector.continuing(self.claims.entries)
        every = (*found, *self.approvals(), *self._evaluations_to_prove(), *continuing, *self.kinds_to_prove())
        return tuple({entry.digest: entry for entry in every}.values())

    def kinds_to_prove(self) -> tuple[Entry, ...]:
        """The statements of the publisher about the kind that a key signed of which it reports the loss."""
        published = next((each for each in self.claims.publications if self._is_owner(each)), None)
        return kinds_to_prove(self.claims, published.publisher.id, self.artifact) if published else ()

    def _is_owner(self, publication: Publication) -> bool:
        return self.collector.publisher in (None, publication.publisher.id)

    def approvals(self) -> tuple[Entry, ...]:
        """The approvals that name an officer of the policy as their author."""
        officers = frozenset(self.policy.approvals.officers.values())
        return tuple(
            entry
            for entry in self.claims.entries
            if entry.statement.predicate == APPROVED
            and entry.statement.by is not None
            and entry.statement.by.id in officers
        )

    def vouches(self) -> tuple[Vouch, ...]:
        """The proven vouches for the artifact."""
        return verify_vouches(self.claims, self.artifact, self.claims.authors(self.policy.pins))[0]

    def _evaluations_to_prove(self) -> tuple[Entry, ...]:
        """Evaluations whose results are among the documents, and their announcements, whose order in a log is shown."""
        found: dict[Digest, Entry] = {}
        evaluations = evaluations_of(self.vouches(), self.objects)
        for vouch, results in itertools.islice(evaluations, MAX_DOCUMENTS):
            announced = announcements_of(vouch, results, self.claims, self.artifact)[:MAX_ANNOUNCEMENTS]
            if announced:
                found |= {entry.digest: entry for entry in (vouch.entry, *announced)}
        return tuple(found.values())

    def documents(self) -> tuple[SideObject, ...]:
        """The licence texts and documents that publishers name, the conditions of approvals, and small documents of
        vouches. Of publishers: the one to whose name the artifact belongs, or all."""
        published = [p for p in self.claims.publications if p.publisher.id == self.collector.publisher]
        stated = [publication.published for publication in published or self.claims.publications]
        found = [
            item
            for each in stated[:MAX_STATEMENTS]
            for item in each.objects()
            if item not in (each.manifest, each.pieces)
        ]
        conditions = dict.fromkeys(item for entry in self.approvals() for item in entry.statement.objects)
        found += [item for item in conditions if item.size <= MAX_CONDITIONS][:MAX_CONDITION_TEXTS]
        vouched = dict.fromkeys(item for vouch in self.vouches() if (item := vouch.vouched.document) is not None)
        found += [item for item in vouched if item.size <= MAX_DOCUMENT][:MAX_DOCUMENTS]
        return tuple(dict.fromkeys(found))


def best_proofs(
    entry: Entry, candidates: Iterable[InclusionEvidence], bound: tuple[BoundNode, ...], reader: EvidenceReader
) -> list[KeptProof]:
    """Return for each log the proof with most cosigning members; of equals, the one of the larger tree. Proofs that do
    not verify are left out."""
    best: dict[str, tuple[tuple[int, int], KeptProof]] = {}
    for proof in candidates:
        seen, _, _ = prove_entry(entry, (proof,), bound, reader)
        for witnessed in seen:
            priority = (witnessed.cosigning_members, witnessed.size)
            if witnessed.log not in best or priority > best[witnessed.log][0]:
                best[witnessed.log] = priority, KeptProof(entry.line, witnessed.origin, proof, witnessed.log)
    return [kept for _, kept in best.values()]


@frozen
class MissingConsistency:
    """A consistency proof that may show a publication to be older than a rotation: between the cut of the rotation and
    a checkpoint of the log with this verifier key."""

    cut: LogCut
    checkpoint: Checkpoint
    log: str

    @property
    def sizes(self) -> tuple[int, int]:
        """The smaller and the larger size."""
        return min(self.cut.size, self.checkpoint.size), max(self.cut.size, self.checkpoint.size)

    @property
    def roots(self) -> tuple[bytes, bytes]:
        """The roots at these sizes."""
        (_, old), (_, new) = sorted(
            [(self.cut.size, self.cut.root), (self.checkpoint.size, self.checkpoint.root)], key=lambda each: each[0]
        )
        return old, new


def missing_consistency(
    publications: Iterable[Publication], kept: Iterable[KeptProof], reader: EvidenceReader
) -> Iterator[MissingConsistency]:
    """Yield the consistency proofs that could prove a publication older than the retirement of its keys."""
    proofs = tuple(kept)
    for publication in publications:
        chain = publication.chain
        signers = set(chain.signers(publication.entry.envelope))
        cuts = [cut for step in chain.steps if step.before in signers for cut in step.rotation.cut][:MAX_CUTS]
        for item in (item for item in proofs if item.line == publication.entry.line):
            try:
                proven = reader.proof(item.proof.data)
                checkpoint = Checkpoint.parse(proven.checkpoint.text)
            except ComityError:
                continue
            for cut in cuts:
                if cut.origin == checkpoint.origin and proven.index < cut.size != checkpoint.size:
                    yield MissingConsistency(cut, checkpoint, item.log)
