"""Identities that certify themselves: nobody assigns one, and nobody can take it away.

An identity's id is the SHA-256 of its *inception record*, which names its first keys, how many of them must sign, and
digests of the recovery keys that alone may rotate it later (`rotation`). Publishers and members are identities.
Source: protocol, section 3.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, Protocol

from comity.trust.encoding import Digest, Fields, Json, canonical, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.keys import PublicKey, Signer, VerifyingKey
from comity.trust.statement import Author, Entry, Envelope, Statement, Subject, sign_statement

SCHEMA: Final = "comity/inception/v1"
KINDS: Final = ("publisher", "member")
MAX_KEYS: Final = 7
_JURISDICTION = re.compile(r"[A-Z]{2}\Z|[a-z][a-z0-9-]{2,30}\Z")


def check_jurisdiction(code: str) -> str:
    """An ISO 3166-1 alpha-2 code, or a lower-case name that a charter defines. Raises Malformed."""
    if not _JURISDICTION.match(code):
        raise Malformed(
            f"{code[:40]!r} is not a jurisdiction", why="two capital letters (CH), or a longer lower-case name"
        )
    return code


class Signed(Protocol):
    """How signatures are judged: `KeySet.signed`, but in simulations of many members."""

    def __call__(self, keys: KeySet, envelope: Envelope, beside: Collection[PublicKey] = (), /) -> bool: ...


class Signatory(Protocol):
    """Who may have signed an envelope: a key set, or an identity through its rotations.

    `signed` tells whether they did, each of the keys `beside` as well, and nobody else (`Envelope.signed_by`).
    """

    def signed(self, envelope: Envelope, beside: Collection[PublicKey] = ()) -> bool: ...


@dataclass(frozen=True, slots=True)
class KeySet:
    """m-of-k: `threshold` of `keys` must sign, and `threshold` is more than half of them."""

    keys: tuple[VerifyingKey, ...]
    threshold: int

    def __post_init__(self) -> None:
        if not 1 <= len(self.keys) <= MAX_KEYS or not len(self.keys) < 2 * self.threshold <= 2 * len(self.keys):
            raise Malformed("bad key set", why=f"1 to {MAX_KEYS} keys, and a threshold of more than half of them")
        halves = [half.id for key in self.keys for half in key.halves]
        if len(set(halves)) != len(halves):
            raise Malformed("bad key set", why="one key appears twice")

    def signed(self, envelope: Envelope, beside: Collection[PublicKey] = ()) -> bool:
        return envelope.signed_by(self.keys, self.threshold, beside)

    @property
    def post_quantum(self) -> bool:
        return all(key.post_quantum for key in self.keys)


@dataclass(frozen=True, slots=True)
class Inception:
    """An inception record.

    `home` is the origin of the log in which this identity's state-setting statements have their order, or empty;
    `label` and `jurisdiction` are its own claims and prove nothing. `id` is the SHA-256 of its JSON.
    """

    kind: str
    keys: KeySet
    recovery: tuple[Digest, ...]
    home: str = ""
    jurisdiction: str = ""
    label: str = ""
    id: Digest = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise Malformed("inception is malformed", why=f"kind must be one of {', '.join(KINDS)}")
        if len(self.recovery) > MAX_KEYS or len(set(self.recovery)) != len(self.recovery):
            raise Malformed("inception is malformed", why=f"at most {MAX_KEYS} recovery digests, each once")
        if self.jurisdiction:
            check_jurisdiction(self.jurisdiction)
        object.__setattr__(self, "id", sha256(canonical(self.to_json())))

    @classmethod
    def from_json(cls, value: Json) -> Inception:
        fields = Fields(value, "inception")
        fields.constant("schema", SCHEMA)
        made = cls(
            kind=fields.choice("kind", KINDS),
            keys=read_key_set(fields),
            recovery=fields.digests("recovery", most=MAX_KEYS),
            home=fields.text("home", least=0, most=255),
            jurisdiction=fields.text("jurisdiction", least=0, most=31),
            label=fields.text("label", least=0, most=200),
        )
        fields.done()
        return made

    def to_json(self) -> dict[str, Json]:
        return {
            "schema": SCHEMA,
            "kind": self.kind,
            "keys": [key.to_json() for key in self.keys.keys],
            "threshold": self.keys.threshold,
            "recovery": list(self.recovery),
            "home": self.home,
            "jurisdiction": self.jurisdiction,
            "label": self.label,
        }

    @property
    def author(self) -> Author:
        return Author("identity", self.id)

    @property
    def display(self) -> str:
        """What to call it in one line; the label is its own claim."""
        return self.label or self.id[:12]


def read_key_set(fields: Fields, name: str = "keys") -> KeySet:
    """Read the list of keys called `name`, and `threshold`."""
    keys = tuple(VerifyingKey.from_json(item) for item in fields.items(name, least=1, most=MAX_KEYS))
    return KeySet(keys, fields.integer("threshold", least=1, most=MAX_KEYS))


def announce(inception: Inception, *signers: Signer) -> Entry:
    """The `inception` statement: the record, signed by all of its first keys."""
    statement = Statement(
        "inception",
        (Subject(inception.label, inception.id),),
        inception.author,
        {"record": inception.to_json()},
    )
    return sign_statement(statement, *signers)


def check_inception(entry: Entry, *, signed: Signed = KeySet.signed) -> Inception:
    """The record that an `inception` statement carries, proven by every one of its keys. Raises Malformed/Untrusted.

    It counts by its signatures, wherever it was found; a log only orders it.

    Args:
        signed: how signatures are judged; simulations of many members pass a cheap one.
    """
    statement = entry.statement
    if statement.predicate != "inception":
        raise Malformed("inception is malformed", why="not an inception statement")
    fields = statement.fields()
    record = fields.take("record")
    fields.done()
    named = Author("identity", sha256(canonical(record)))
    if statement.by != named or statement.sole_subject() != named.id:
        raise Untrusted("inception refused", why="it is not about the record that it carries", code="INCEPTION")
    inception = Inception.from_json(record)
    if not signed(KeySet(inception.keys.keys, len(inception.keys.keys)), entry.envelope):
        raise Untrusted(
            "inception refused", why="not signed by every key that it lists, and no other", code="INCEPTION"
        )
    return inception
