"""An identity that signs with the keys that are here: a publisher, or a member with its governance keys.

It signs vouches, approvals, announced evaluations, and statements about offers. A node never signs these for itself:
keys that people hold sign what binds an institution.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from comity.rules.offers.records import PartyStatement
from comity.rules.signing import statement_of
from comity.trust.encoding import Digest
from comity.trust.errors import NotFound, Refused
from comity.trust.frozen import frozen
from comity.trust.identity import KeySet
from comity.trust.keys import Signer
from comity.trust.rotation import KeyState, follow
from comity.trust.statement import Entry, sign_statement

from comity_client.node_home import OFFLINE, own_inception, own_rotations, read_line
from comity_client.publishers import Publisher
from comity_client.signing.votes import Ceremony, GovernanceKey, SigningPanel, find_keys, open_key


@frozen
class IdentitySigner:
    """An identity with all or some of its private keys.

    Attributes:
        label: the name that the identity gives itself.
        signers: the private keys that are available, at most the threshold.
        keys: all public keys, and the threshold of signatures.
        lines: lines that prove the keys of the identity, for readers that do not know it.
        home: origin of its home log; empty for none.
    """

    identity: Digest
    label: str
    signers: tuple[Signer, ...]
    keys: KeySet
    lines: tuple[bytes, ...]
    home: str = ""

    @classmethod
    def of(cls, by: Publisher | IdentitySigner) -> IdentitySigner:
        """`by` itself, or the publisher with its key. Raises as `of_publisher` does."""
        return cls.of_publisher(by) if isinstance(by, Publisher) else by

    @classmethod
    def of_publisher(cls, publisher: Publisher) -> IdentitySigner:
        """A publisher with its key. Raises NotFound, Refused, Malformed for the key file."""
        signer = publisher.signer()
        keys = KeySet((signer.public,), 1)
        return cls(publisher.id, publisher.label, (signer,), keys, publisher.lines, publisher.home)

    @classmethod
    def of_member(cls, home: Path, keys: Sequence[Path] = ()) -> IdentitySigner:
        """The member of the node with this home. Keys: the files in `keys`, else the governance keys in the home.

        Raises NotFound (NO-KEY, NO-HOME), Refused (NOT-A-SIGNER) for keys that do not belong to the member.
        """
        if not (home / "inception.line").exists():
            hint = "give the home of your member's node: --node HOME, or a publisher: --publisher NAME"
            raise NotFound(f"{home.absolute()} is not the home of a node", why="inception.line is missing", hint=hint,
                           code="NO-HOME")  # fmt: skip
        inception, rotations = own_inception(home), own_rotations(home)
        state = follow(KeyState.of_inception(inception), rotations).current
        found = _load_keys(home, keys, state)
        lines = (read_line(home / "inception.line"), *(entry.line for entry in rotations))
        signers = tuple(key.signer for key in found)
        return cls(inception.id, inception.label, signers, state.keys, lines, inception.home)

    @property
    def complete(self) -> bool:
        """Whether enough keys are available to sign alone."""
        return len(self.signers) >= self.keys.threshold

    def require_complete(self) -> None:
        """Raise Refused (NOT-A-SIGNER) if too few keys are available to sign alone."""
        if not self.complete:
            why = f"{self.keys.threshold} of its keys must sign, but {len(self.signers)} are here"
            raise Refused("not enough keys", why=why, hint="comity keys show", code="NOT-A-SIGNER")

    def sign(self, content: PartyStatement) -> Entry:
        """Sign a statement about an offer; the caller must show it first. Raises as `require_complete` does."""
        self.require_complete()
        return sign_statement(statement_of(content), *self.signers)

    def begin_ceremony(self, content: PartyStatement, charter: bytes) -> Ceremony:
        """Sign with the available keys, for transfer to the holders of the others. `charter` is the charter body with
        the member's seat, for a signer that only has a key. Raises Malformed."""
        payload = statement_of(content).encode()
        ceremony = Ceremony(payload, (SigningPanel("governance", self.keys),), objects=(charter,))
        for signer in self.signers:
            ceremony = ceremony.with_signature(signer)
        return ceremony


def _load_keys(home: Path, keys: Sequence[Path], state: KeyState) -> list[GovernanceKey]:
    named = [open_key(path) for path in keys] or find_keys(home / OFFLINE, state.keys)
    if not named:
        why = f"no current key of the member is in {home / OFFLINE}"
        raise NotFound("no governance key", why=why, hint="give the key file: --key FILE", code="NO-KEY")
    unknown = [key.path.name for key in named if key.public not in state.keys.keys]
    if unknown:
        why = f"{', '.join(unknown)}: not a current key of the member"
        raise Refused("these keys cannot sign for the member", why=why, hint="comity keys show", code="NOT-A-SIGNER")
    return named[: state.keys.threshold]
