"""How far one publication gets: its publisher, the logs that hold it, who cosigned. Steps (3) to (6) of `verify`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from comity.trust.digest import sha256
from comity.trust.errors import ComityError
from comity.trust.evidence import Proof
from comity.trust.judging.reading import Publication
from comity.trust.judging.tenure import Growths, Tenure, tenure
from comity.trust.judging.witnessing import Bound, Witnessed, witness
from comity.trust.policy import Policy
from comity.trust.remark import Remark
from comity.trust.statement import Entry
from comity.trust.tlog.proof import TlogProof


@dataclass(frozen=True, slots=True)
class Standing:
    """How far one publication gets: accepted by the key policy, proven in logs, cosigned.

    `named` is True for whom the owner pinned or a pinned charter binds, False for somebody else, None where nobody is
    named. `jurisdictions` are the publisher's: its own claim, and what pinned bodies say of a seat with its id.
    """

    publication: Publication
    named: bool | None
    tenure: Tenure
    jurisdictions: frozenset[str]
    witnessed: tuple[Witnessed, ...]
    broken: tuple[Remark, ...]
    unbound: tuple[Remark, ...]

    @property
    def accepted(self) -> bool | None:
        """`named`, but False where the policy pins a rotation and nothing here shows that these keys count after it."""
        return self.named if self.tenure.accepted else False

    def best(self, policy: Policy) -> Witnessed | None:
        def merit(seen: Witnessed) -> tuple[bool, int, int]:
            counted = seen.counted(policy.cosigners, self.jurisdictions)
            return seen.satisfies(policy.cosigners, self.jurisdictions), len(counted), -seen.index

        return max(self.witnessed, key=merit, default=None)

    def merit(self, policy: Policy) -> tuple[bool, bool, bool, bool, int]:
        """What makes one publication the one to show. More evidence for any of them can only raise the highest (I4)."""
        best = self.best(policy)
        cosigned = best is not None and best.satisfies(policy.cosigners, self.jurisdictions)
        counted = len(best.counted(policy.cosigners, self.jurisdictions)) if best else 0
        return self.accepted is not False, best is not None, cosigned, self.accepted is True, counted


def stand(
    publication: Publication, proofs: tuple[Proof, ...], growths: Growths, bound: tuple[Bound, ...], policy: Policy
) -> Standing:
    entry, publisher = publication.entry, publication.publisher
    seen, broken, unbound = prove_entry(entry, proofs, bound)
    own = (proof.data for proof in proofs if proof.line == entry.digest)
    kept = tenure(entry, publication.chain, policy.rotations.get(publisher.id), own, growths)
    seats = (body.member(publisher.id) for body in policy.pins)
    jurisdictions = frozenset({publisher.jurisdiction} | {seat.jurisdiction for seat in seats if seat})
    return Standing(publication, _named(publication, policy), kept, jurisdictions, seen, broken, unbound)


def prove_entry(
    entry: Entry, proofs: Iterable[Proof], bound: tuple[Bound, ...]
) -> tuple[tuple[Witnessed, ...], tuple[Remark, ...], tuple[Remark, ...]]:
    """Try each proof that is said to prove `entry`. Returns what it shows, what was broken, what is bound to nobody."""
    seen: list[Witnessed] = []
    broken: list[Remark] = []
    unbound: list[Remark] = []
    for proof in proofs:
        if proof.line != entry.digest:
            continue
        try:
            witnessed = witness(TlogProof.parse(proof.data), entry.line, bound)
            seen += [replace(each, proof=sha256(proof.data)) for each in witnessed]
        except ComityError as error:
            if error.code == "LOG-UNBOUND":
                unbound.append(Remark(str(error), sha256(proof.data)))
            else:
                broken.append(Remark(f"its proof does not hold: {error}", sha256(proof.data)))
    return tuple(seen), tuple(broken), tuple(unbound)


def _named(publication: Publication, policy: Policy) -> bool | None:
    if policy.publishers:
        return publication.publisher.id in policy.publishers
    bound = policy.bound_publisher(publication.published.name.namespace)
    return None if bound is None else publication.publisher.id == bound
