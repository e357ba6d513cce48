"""The epochs that this node holds, and the branch of them that the node follows.

The federation file gives the first epochs; certificates that arrive later are stored in the ledger. A node never
goes back behind an adopted epoch and body (protocol, 7.7 and 7.9). If two certified bodies follow one body, the node
follows the one that it stored first, unless the operator's `[federation] branch` setting names another branch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from comity.federation_file import Federation
from comity.ledger.records import EpochName, Epochs, StoredEpoch
from comity.trust.charter.certificate import Certificate
from comity.trust.charter.document import Body
from comity.trust.encoding import Digest, short
from comity.trust.errors import NotFound, Unavailable, Untrusted

_BRANCH_HINT: Final = "to follow the branch of the file, set [federation] branch to the digest of its newest body"


class EpochStore:
    """Certified epochs in the ledger. Blocking, except `newest` and `digests`, which are in memory.

    Args:
        federation: the pinned federation; its epochs are stored on opening.
        branch: the digest of a body that the followed branch must contain, or empty.
        writes: whether this process writes the ledger. If not, another one stores the epochs, and `reread` finds them.

    Raises Untrusted (CHARTER-BRANCH) if the file names a body that excludes one that this node adopted, and Unavailable
    (CHARTER-NOT-STORED) if this process must not write and the ledger lacks an epoch of the file.
    """

    def __init__(self, epochs: Epochs, federation: Federation, branch: str = "", *, writes: bool = True) -> None:
        self._epochs = epochs
        self.branch = branch
        known = {epoch.digest for epoch in epochs.all(federation.id)}
        for body, lines in zip(federation.chain, federation.certificates, strict=True):
            if body.digest not in known:
                if not writes:
                    raise _not_stored(body)
                epochs.add(_record_of(Certificate(body, tuple(lines))))
        self.federation = federation.id
        path = self._path()
        self._digests = path
        self.newest = self._certificate(path[-1]).body
        self._check_branch(federation.chain)

    @property
    def digests(self) -> Sequence[Digest]:
        """Digests of the followed bodies, by epoch."""
        return self._digests

    def bodies(self) -> Iterator[Body]:
        """Every followed body, oldest first."""
        for digest in self._digests:
            yield self._certificate(digest).body

    def certificate(self, epoch: int) -> Certificate:
        """The certificate of a followed body. Raises NotFound (NO-CHARTER)."""
        if not 0 <= epoch < len(self._digests):
            raise NotFound("no such charter", why=f"this node does not hold epoch {epoch}", code="NO-CHARTER")
        return self._certificate(self._digests[epoch])

    def decided(self, epoch: int) -> bool:
        """Whether the operator's `branch` setting decides between rivals for an epoch."""
        return self.branch in self._digests[epoch:]

    def rivals(self) -> list[tuple[Certificate, Certificate]]:
        """Pairs of certificates for one epoch: of the followed body, and of a stored rival."""
        return [
            (self.certificate(other.epoch), self._certificate(other.digest))
            for other in self._epochs.all(self.federation)
            if 0 < other.epoch < len(self._digests)
            and other.digest != self._digests[other.epoch]
            and other.prev == self._digests[other.epoch - 1]
        ]

    def keep(self, certificate: Certificate) -> bool:
        """Store a verified certificate. Returns whether its body is the newest now; one that does not follow the newest
        body is stored as a rival."""
        self._epochs.add(_record_of(certificate))
        if certificate.body.prev != self.newest.digest:
            return False
        self._digests.append(certificate.body.digest)
        self.newest = certificate.body
        return True

    def reread(self) -> list[Body]:
        """Take up the epochs that another process has stored since. Returns their bodies, oldest first.

        Raises Untrusted (CHARTER-BRANCH) if that process follows another branch now.
        """
        path, known = self._path(), len(self._digests)
        if path[:known] != self._digests:
            why = "the process that writes the ledger has changed its branch"
            hint = "start this front end again, with the same [federation] branch as the writer"
            raise Untrusted("the charter is on another branch", why=why, hint=hint, code="CHARTER-BRANCH")
        new = [self._certificate(digest).body for digest in path[known:]]
        if new:
            self._digests, self.newest = path, new[-1]
        return new

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
        """The bodies up to the one that the operator's `branch` setting names, including it."""
        by_digest = {name.digest: name for name in names}
        at = by_digest.get(Digest(self.branch))
        found: set[Digest] = set()
        while at is not None:
            found.add(at.digest)
            at = by_digest.get(at.prev) if at.prev else None
        return found

    def _check_branch(self, chain: Iterable[Body]) -> None:
        """Raise Untrusted (CHARTER-BRANCH) unless the federation file agrees with the adopted bodies."""
        for body in chain:
            if body.epoch < len(self._digests) and body.digest != self._digests[body.epoch]:
                raise Untrusted(
                    "the federation file is on another branch",
                    why=f"epoch {body.epoch} is {short(self._digests[body.epoch])} here, {short(body.digest)} there",
                    hint=_BRANCH_HINT,
                    code="CHARTER-BRANCH",
                )


def _not_stored(body: Body) -> Unavailable:
    return Unavailable(
        "the ledger lacks an epoch of the federation file",
        why=f"it does not have epoch {body.epoch}, {short(body.digest)}",
        hint="start the writer of this node with this federation file first",
        code="CHARTER-NOT-STORED",
    )


def _record_of(certificate: Certificate) -> StoredEpoch:
    body = certificate.body
    return StoredEpoch(body.federation, body.epoch, body.digest, body.prev, body.data, certificate.lines)
