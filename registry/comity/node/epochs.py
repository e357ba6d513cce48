"""The epochs that this node holds, and the one branch of them that it follows.

The federation file is where a node starts; what was certified later stands in the ledger. A node never goes back from
an epoch and body that it took up (protocol, 7.7 and 7.9): where two certified bodies follow one, the one that was kept
first is followed, unless the operator's setting names another branch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from comity.ledger.records import EpochName, Epochs, KeptEpoch
from comity.trust.charter.certificate import Certificate
from comity.trust.charter.document import Body
from comity.trust.charter.federation import Federation
from comity.trust.encoding import Digest, short
from comity.trust.errors import NotFound, Untrusted

_BRANCH_HINT: Final = "to follow the file's branch, set [federation] branch to the digest of its newest body"


class EpochStore:
    """Certified epochs, on the ledger. Reads and writes block; the newest body is at hand.

    Args:
        federation: the pinned one; its epochs are kept when the annals are opened.
        branch: the digest of a body that the followed branch must contain, or empty.

    Raises Untrusted (CHARTER-BRANCH) where the file names a body that excludes one that this node took up.
    """

    def __init__(self, epochs: Epochs, federation: Federation, branch: str = "") -> None:
        self._epochs = epochs
        self.branch = branch
        for body, lines in zip(federation.chain, federation.certificates, strict=True):
            epochs.keep(_kept(Certificate(body, lines)))
        self.federation = federation.id
        path = self._path()
        self._digests = path
        self.newest = self._certificate(path[-1]).body
        self._require(federation.chain)

    @property
    def digests(self) -> Sequence[Digest]:
        """Of the followed bodies, by epoch."""
        return self._digests

    def bodies(self) -> Iterator[Body]:
        """Every followed body, oldest first."""
        for digest in self._digests:
            yield self._certificate(digest).body

    def certificate(self, epoch: int) -> Certificate:
        """How a followed body was certified. Raises NotFound (NO-CHARTER)."""
        if not 0 <= epoch < len(self._digests):
            raise NotFound("no such charter", why=f"this node does not hold epoch {epoch}", code="NO-CHARTER")
        return self._certificate(self._digests[epoch])

    def decided(self, epoch: int) -> bool:
        """Whether the operator's branch has decided between rivals for an epoch."""
        return self.branch in self._digests[epoch:]

    def rivals(self) -> list[tuple[Certificate, Certificate]]:
        """Pairs of certified bodies that follow one: the followed one, and another that is kept beside it."""
        return [
            (self.certificate(other.epoch), self._certificate(other.digest))
            for other in self._epochs.all(self.federation)
            if 0 < other.epoch < len(self._digests)
            and other.digest != self._digests[other.epoch]
            and other.prev == self._digests[other.epoch - 1]
        ]

    def keep(self, certificate: Certificate) -> bool:
        """Keep a certificate that was proven; whether its body is the newest now. One that does not follow the newest
        is kept beside."""
        self._epochs.keep(_kept(certificate))
        if certificate.body.prev != self.newest.digest:
            return False
        self._digests.append(certificate.body.digest)
        self.newest = certificate.body
        return True

    def _certificate(self, digest: Digest) -> Certificate:
        kept = self._epochs.get(self.federation, digest)
        return Certificate(Body.parse(kept.body), kept.certificate)

    def _path(self) -> list[Digest]:
        names = self._epochs.all(self.federation)
        after: dict[Digest | None, list[Digest]] = {}
        for name in names:
            after.setdefault(name.prev, []).append(name.digest)
        wanted = self._ancestry(names)
        path: list[Digest] = []
        while choices := after.get(path[-1] if path else None):
            path.append(next((digest for digest in choices if digest in wanted), choices[0]))
        return path

    def _ancestry(self, names: Iterable[EpochName]) -> set[Digest]:
        """The bodies that lead to the one that the operator's setting names, itself included."""
        by_digest = {name.digest: name for name in names}
        at = by_digest.get(Digest(self.branch))
        found: set[Digest] = set()
        while at is not None:
            found.add(at.digest)
            at = by_digest.get(at.prev) if at.prev else None
        return found

    def _require(self, chain: Iterable[Body]) -> None:
        """That the federation file agrees with what this node took up."""
        for body in chain:
            if body.epoch < len(self._digests) and body.digest != self._digests[body.epoch]:
                raise Untrusted(
                    "the federation file is of another branch",
                    why=f"epoch {body.epoch} is {short(self._digests[body.epoch])} here, {short(body.digest)} there",
                    hint=_BRANCH_HINT,
                    code="CHARTER-BRANCH",
                )


def _kept(certificate: Certificate) -> KeptEpoch:
    body = certificate.body
    return KeptEpoch(body.federation, body.epoch, body.digest, body.prev, body.data, certificate.lines)
