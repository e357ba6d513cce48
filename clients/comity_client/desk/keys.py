"""Keys that sign for a member, each with its vote state. Where the secret lies is all that differs between them.

governance.pem  + governance.votes   a key file (`comity.content.keyfile`), and its votes beside it
governance.toml                      a key whose classical half is in a token (`token`), and where its votes are
recovery.pem                         signs rotations only, so it has no votes
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.content import durable
from comity.content.keyfile import read_signer, write_keys
from comity.trust.digest import Digest
from comity.trust.encoding import parse_json
from comity.trust.identity import KeySet
from comity.trust.keys import HybridSigner, Signer, VerifyingKey
from comity.verifier import read_bounded

from comity_client.desk import token
from comity_client.desk.votes import VoteFile, Votes

VOTES: Final = ".votes"
MAX_PUBLIC: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class DeskKey:
    """One governance key: what signs, and the file that remembers what it signed. `path` is how its owner calls it."""

    path: Path
    signer: Signer
    votes: VoteFile

    @property
    def public(self) -> VerifyingKey:
        return self.signer.public

    def sign(self, message: bytes) -> tuple[tuple[Digest, bytes], ...]:
        """As `Signer.sign`. For readings use `signing.sign`, which asks the votes first."""
        return self.signer.sign(message)


def open_key(path: Path) -> DeskKey:
    """The key at `path`: a PEM key file, or the TOML file that describes a token.

    Raises NotFound, Refused (not private; a PIN that the token refuses), Malformed, Unavailable.
    """
    if path.suffix == ".toml":
        signer, votes = token.open_token_key(path)
    else:
        signer, votes = read_signer(path), path.with_suffix(VOTES)
    return DeskKey(path, signer, VoteFile(votes, signer.public))


def read_public(path: Path) -> VerifyingKey:
    """The public key of somebody who signs elsewhere: a JSON file as `write_public` makes it, or a key that is here.

    Raises NotFound, Malformed, and as `open_key` does.
    """
    if path.suffix == ".json":
        return VerifyingKey.from_json(parse_json(read_bounded(path, MAX_PUBLIC), limit=MAX_PUBLIC, what="public key"))
    return open_key(path).public


def write_public(path: Path, key: VerifyingKey) -> None:
    """Raises OutOfSpace, Unavailable."""
    durable.write_file(path, json.dumps(key.to_json(), indent=1).encode() + b"\n", mode=0o644, point="public")


def new_key(path: Path, votes: Votes | None = None) -> DeskKey:
    """Make a hybrid governance key in a new file, and its vote file, so that it is not taken for one that lost it.

    Args:
        votes: what the keys that it follows have signed; a member's first key has nothing to take over.

    Raises Conflict (KEY-EXISTS, VOTES-EXIST), OutOfSpace, Unavailable.
    """
    return keep_key(path, HybridSigner.generate(), votes)


def keep_key(path: Path, signer: HybridSigner, votes: Votes | None = None) -> DeskKey:
    """As `new_key`, for one that was just made in memory."""
    kept = VoteFile(path.with_suffix(VOTES), signer.public)
    kept.create(votes or Votes())  # before the key, which without votes would count as one that lost them
    write_keys(path, signer.keys)
    return DeskKey(path, signer, kept)


def find_keys(folder: Path, keys: KeySet) -> list[DeskKey]:
    """The keys of a member that lie below `folder`, whatever their files are called. Raises as `open_key` does."""
    paths = sorted((*folder.rglob("governance*.pem"), *folder.rglob("governance*.toml")))
    found = (open_key(path) for path in paths)
    return [key for key in found if key.public in keys.keys]
