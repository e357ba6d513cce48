"""Who speaks when somebody asks for machines, accepts or gives back: a member by its governance keys, or a publisher.

A node never asks for itself: what binds an institution is signed by keys that its people hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from comity.trust.digest import Digest
from comity.trust.errors import NotFound, Refused
from comity.trust.keys import Signer
from comity.trust.offers.parties import Said, said_statement
from comity.trust.rotation import KeyState, follow
from comity.trust.statement import Entry, sign_statement

from comity_client.desk.keys import DeskKey, find_keys, open_key
from comity_client.founding import OFFLINE
from comity_client.node_home import own_inception, own_rotations, read_line
from comity_client.publishers import Publisher


@dataclass(frozen=True, slots=True)
class Voice:
    """An identity with the keys to speak for it.

    Attributes:
        label: what it calls itself.
        lines: all that proves by which keys it speaks, to be handed to who may not know it.
        home: the origin of its home log; empty for none.
    """

    identity: Digest
    label: str
    signers: tuple[Signer, ...]
    lines: tuple[bytes, ...]
    home: str = ""

    @classmethod
    def of_publisher(cls, publisher: Publisher) -> Voice:
        """Raises NotFound, Refused, Malformed for the key file."""
        return cls(publisher.id, publisher.label, (publisher.signer(),), publisher.lines, publisher.home)

    @classmethod
    def of_member(cls, home: Path, keys: Sequence[Path] = ()) -> Voice:
        """The member whose node's home this is, by governance keys: those named, else those that lie in it.

        Raises NotFound (NO-KEY, NO-HOME), Refused (NOT-A-SIGNER) for keys that are not the member's, or too few.
        """
        if not (home / "inception.line").exists():
            hint = "name your member's home: --dir HOME; or a publisher: --publisher NAME"
            raise NotFound(f"{home.absolute()} is no node's home", why="inception.line is missing", hint=hint,
                           code="NO-HOME")  # fmt: skip
        inception, rotations = own_inception(home), own_rotations(home)
        state = follow(KeyState.of_inception(inception), rotations).current
        found = _desk(home, keys, state)
        lines = (read_line(home / "inception.line"), *(entry.line for entry in rotations))
        return cls(inception.id, inception.label, tuple(key.signer for key in found), lines, inception.home)

    def say(self, said: Said) -> Entry:
        """Sign it. Whoever calls this has shown what it says. Raises Malformed."""
        return sign_statement(said_statement(said), *self.signers)


def _desk(home: Path, keys: Sequence[Path], state: KeyState) -> list[DeskKey]:
    named = [open_key(path) for path in keys] or find_keys(home / OFFLINE, state.keys)
    if not named:
        why = f"none of the member's current keys lies below {home / OFFLINE}"
        raise NotFound("no governance key", why=why, hint="bring it, and name it: --key FILE", code="NO-KEY")
    strangers = [key.path.name for key in named if key.public not in state.keys.keys]
    if strangers or len(named) < state.keys.threshold:
        why = f"{', '.join(strangers)} is none of its current keys" if strangers else (
            f"{state.keys.threshold} of its keys sign together, and {len(named)} are here")  # fmt: skip
        raise Refused("these keys do not speak for the member", why=why, hint="comity keys show", code="NOT-A-SIGNER")
    return named[: state.keys.threshold]
