"""What surrounds the machines of an offer: where they stand, who may ask, on which terms, and what runs them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from comity.trust.digest import Digest
from comity.trust.encoding import Json
from comity.trust.errors import Malformed
from comity.trust.fields import Fields
from comity.trust.identity import check_jurisdiction
from comity.trust.offers.capacity import MAX_AMOUNT

ENGINES: Final = ("slurm", "kubernetes", "skypilot", "ssh")
TERMS: Final = ("grant", "price", "reciprocal")
ELIGIBLE: Final = ("anyone", "members", "listed")
MAX_LISTED: Final = 64
_CURRENCY = re.compile(r"[A-Z]{3}\Z")


@dataclass(frozen=True, slots=True)
class Location:
    """Where the machines stand and who may reach them by law: the provider's own words.

    Attributes:
        jurisdiction: ISO 3166-1 alpha-2, or a name that a charter defines.
        operator: who runs them.
        cloud_parent: whose cloud they are; empty where they are nobody's.
        legal_reach: jurisdictions whose courts can order the operator or its parent, the own one included.
    """

    jurisdiction: str
    operator: str
    cloud_parent: str = ""
    legal_reach: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for code in (self.jurisdiction, *self.legal_reach):
            check_jurisdiction(code)
        if list(self.legal_reach) != sorted(set(self.legal_reach)) or len(self.legal_reach) > MAX_LISTED:
            raise Malformed("location is malformed", why=f"at most {MAX_LISTED} jurisdictions, each once, sorted")

    @classmethod
    def read(cls, fields: Fields) -> Location:
        made = cls(
            fields.text("jurisdiction", most=31),
            fields.text("operator", most=200),
            fields.text("cloud_parent", least=0, most=200),
            _texts(fields, "legal_reach", 31),
        )
        fields.done()
        return made

    def to_json(self) -> dict[str, Json]:
        return {
            "jurisdiction": self.jurisdiction,
            "operator": self.operator,
            "cloud_parent": self.cloud_parent,
            "legal_reach": list(self.legal_reach),
        }


@dataclass(frozen=True, slots=True)
class Eligibility:
    """Who may ask: `anyone`, `members` of the provider's federation, or those `listed` by identity. `jurisdictions`,
    where there are any, narrows it to members of these."""

    who: str = "members"
    identities: tuple[Digest, ...] = ()
    jurisdictions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.who not in ELIGIBLE or (self.who == "listed") != bool(self.identities):
            raise Malformed("eligibility is malformed", why=f"one of {', '.join(ELIGIBLE)}; listed ones by identity")
        for code in self.jurisdictions:
            check_jurisdiction(code)
        for items in (self.identities, self.jurisdictions):
            if list(items) != sorted(set(items)) or len(items) > MAX_LISTED:
                raise Malformed("eligibility is malformed", why=f"at most {MAX_LISTED} items a list, each once, sorted")

    @classmethod
    def read(cls, fields: Fields) -> Eligibility:
        made = cls(
            fields.choice("who", ELIGIBLE),
            fields.digests("identities", most=MAX_LISTED),
            _texts(fields, "jurisdictions", 31),
        )
        fields.done()
        return made

    def to_json(self) -> dict[str, Json]:
        return {"who": self.who, "identities": list(self.identities), "jurisdictions": list(self.jurisdictions)}

    def admits(self, identity: Digest, jurisdiction: str | None) -> bool:
        """Whether an identity may ask. `jurisdiction` is its seat's; None for one without a seat."""
        if self.jurisdictions and jurisdiction not in self.jurisdictions:
            return False
        if self.who == "listed":
            return identity in self.identities
        return self.who == "anyone" or jurisdiction is not None


@dataclass(frozen=True, slots=True)
class Terms:
    """A `grant` for nothing; a `price` a unit of the measure, in the currency's smallest unit; or `reciprocal`: it
    counts in the balance of the two members. `text` is for people."""

    kind: str = "grant"
    price: int = 0
    currency: str = ""
    text: str = ""

    def __post_init__(self) -> None:
        priced = self.kind == "price"
        if self.kind not in TERMS or priced != bool(_CURRENCY.match(self.currency)) or (not priced and self.price):
            raise Malformed("terms are malformed", why="a price, and only a price, has a currency of three letters")

    @classmethod
    def read(cls, fields: Fields) -> Terms:
        made = cls(
            fields.choice("kind", TERMS),
            fields.integer("price", most=MAX_AMOUNT),
            fields.text("currency", least=0, most=3),
            fields.text("text", least=0, most=4000, lines=True),
        )
        fields.done()
        return made

    def to_json(self) -> dict[str, Json]:
        return {"kind": self.kind, "price": self.price, "currency": self.currency, "text": self.text}


@dataclass(frozen=True, slots=True)
class Engine:
    """What a grant is handed to. `target` is what people call it there: a partition, a queue, a context, a host."""

    kind: str
    target: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ENGINES:
            raise Malformed("engine is malformed", why=f"one of {', '.join(ENGINES)}")

    @classmethod
    def read(cls, fields: Fields) -> Engine:
        made = cls(fields.choice("kind", ENGINES), fields.text("target", least=0, most=200))
        fields.done()
        return made

    def to_json(self) -> dict[str, Json]:
        return {"kind": self.kind, "target": self.target}


def _texts(fields: Fields, name: str, most: int) -> tuple[str, ...]:
    items = fields.items(name, most=MAX_LISTED)
    each = Fields({str(at): item for at, item in enumerate(items)}, name)
    return tuple(each.text(str(at), most=most) for at in range(len(items)))
