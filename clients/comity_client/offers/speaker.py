"""Who speaks when somebody asks for machines, accepts or gives back: a member by its governance keys, or a publisher.

A node never asks for itself: what binds an institution is signed by keys that its people hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from comity.trust.encoding import Digest
from comity.trust.errors import NotFound, Refused
from comity.trust.identity import KeySet
from comity.trust.keys import Signer
from comity.trust.offers.records import Said, said_statement
from comity.trust.rotation import KeyState, follow
from comity.trust.statement import Entry, sign_statement
from comity_client.founding import OFFLINE, own_inception, own_rotations, read_line
from comity_client.publishers import Publisher
from comity_client.signing.votes import Ceremony, GovernanceKey, SigningPanel, find_keys, open_key


@dataclass(frozen=True, slots=True)
class OfferSigner:
    """An identity with the keys to speak for it, or some of them.

    Attributes:
        label: what it calls itself.
        signers: keys that are here, as many as sign together at most.
        keys: all its keys, and how many sign together.
        lines: all that proves by which keys it speaks, to be handed to who may not know it.
        home: the origin of its home log; empty for none.
    """

    identity: Digest
    label: str
    signers: tuple[Signer, ...]
    keys: KeySet
    lines: tuple[bytes, ...]
    home: str = ""

    @classmethod
    def of_publisher(cls, publisher: Publisher) -> OfferSigner:
        """Raises NotFound, Refused, Malformed for the key file."""
        signer = publisher.signer()
        keys = KeySet((signer.public,), 1)
        return cls(publisher.id, publisher.label, (signer,), keys, publisher.lines, publisher.home)

    @classmethod
    def of_member(cls, home: Path, keys: Sequence[Path] = ()) -> OfferSigner:
        """The member whose node's home this is, by governance keys: those named, else those that lie in it.

        Raises NotFound (NO-KEY, NO-HOME), Refused (NOT-A-SIGNER) for keys that are not the member's.
        """
        if not (home / "inception.line").exists():
            hint = "name your member's home: --dir HOME; or a publisher: --publisher NAME"
            raise NotFound(f"{home.absolute()} is no node's home", why="inception.line is missing", hint=hint,
                           code="NO-HOME")  # fmt: skip
        inception, rotations = own_inception(home), own_rotations(home)
        state = follow(KeyState.of_inception(inception), rotations).current
        found = _desk(home, keys, state)
        lines = (read_line(home / "inception.line"), *(entry.line for entry in rotations))
        signers = tuple(key.signer for key in found)
        return cls(inception.id, inception.label, signers, state.keys, lines, inception.home)

    @property
    def whole(self) -> bool:
        """Whether as many keys are here as sign together."""
        return len(self.signers) >= self.keys.threshold

    def say(self, said: Said) -> Entry:
        """Sign it. Whoever calls this has shown what it says. Raises Refused (NOT-A-SIGNER) where keys are missing."""
        if not self.whole:
            why = f"{self.keys.threshold} of its keys sign together, and {len(self.signers)} are here"
            raise Refused("not enough keys", why=why, hint="comity keys show", code="NOT-A-SIGNER")
        return sign_statement(said_statement(said), *self.signers)

    def begin(self, said: Said, charter: bytes) -> Ceremony:
        """Sign it with the keys that are here, to be carried to those who hold the others. `charter` is the body in
        which the member has its seat, for a signer who has nothing but a key. Raises Malformed."""
        ceremony = Ceremony(said_statement(said).encode(), (SigningPanel("governance", self.keys),), objects=(charter,))
        for signer in self.signers:
            ceremony = ceremony.with_signature(signer)
        return ceremony


def _desk(home: Path, keys: Sequence[Path], state: KeyState) -> list[GovernanceKey]:
    named = [open_key(path) for path in keys] or find_keys(home / OFFLINE, state.keys)
    if not named:
        why = f"none of the member's current keys lies below {home / OFFLINE}"
        raise NotFound("no governance key", why=why, hint="bring it, and name it: --key FILE", code="NO-KEY")
    strangers = [key.path.name for key in named if key.public not in state.keys.keys]
    if strangers:
        why = f"{', '.join(strangers)} is none of its current keys"
        raise Refused("these keys do not speak for the member", why=why, hint="comity keys show", code="NOT-A-SIGNER")
    return named[: state.keys.threshold]
