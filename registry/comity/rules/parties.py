"""The parties whose loss is reasoned about: the one list of their kinds, and how a user writes one. Pure.

What a party takes with it is decided where it is asked: copies in `rules.copy_counts`, everything else in
`comity_client.party_drill`.

    member            its nodes and their copies, by id
    publisher         an identity that signs, by id. One that is no member holds no copies, and what it signed is in the
                      logs
    jurisdiction      every member with its seat there
    reach             every copy that the law of this jurisdiction reaches, as far as declared, and every member with
                      its seat there
    cloud             every copy on the platform of this company, as far as declared
    hardware-root     the vendor by whose root evidence of machines is appraised: amd, intel or nvidia
    hub               the service of another hub, by its address
    package-index     the service from which installers fetch what an artifact requires and does not contain
    update-channel    where newer versions of this software come from
    dns               every name in addresses
    ca-store          the authorities whose certificates browsers and operating systems accept
    clock             the time service
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from comity.trust.errors import Malformed
from comity.trust.frozen import frozen

MEMBER: Final = "member"
JURISDICTION: Final = "jurisdiction"
REACH: Final = "reach"
CLOUD: Final = "cloud"
PUBLISHER: Final = "publisher"
HARDWARE_ROOT: Final = "hardware-root"
HUB: Final = "hub"
PACKAGE_INDEX: Final = "package-index"
UPDATE_CHANNEL: Final = "update-channel"
DNS: Final = "dns"
CA_STORE: Final = "ca-store"
CLOCK: Final = "clock"
PARTY_KINDS: Final[Mapping[str, str]] = {
    MEMBER: "member",
    JURISDICTION: "jurisdiction",
    REACH: "law of",
    CLOUD: "cloud",
    PUBLISHER: "publisher",
    HARDWARE_ROOT: "hardware root",
    HUB: "hub",
    PACKAGE_INDEX: "package index",
    UPDATE_CHANNEL: "update channel",
    DNS: "DNS",
    CA_STORE: "CA store",
    CLOCK: "clock",
}
"""Each kind in the order of tables, and how people call it."""
HOLDING_KINDS: Final = (MEMBER, PUBLISHER, JURISDICTION, REACH, CLOUD)
"""Kinds whose loss takes copies: what nodes count (`rules.copy_counts`)."""
UNNAMED_KINDS: Final = frozenset({PACKAGE_INDEX, UPDATE_CHANNEL, DNS, CA_STORE, CLOCK})
"""Kinds of which there is one party, without a name."""
MAX_NAME: Final = 512
"""Characters of a party's name."""


@frozen
class Party:
    """What may vanish at once; `name` is its id, code or name, and empty for one of `UNNAMED_KINDS`."""

    kind: str
    name: str

    def __str__(self) -> str:
        """`reach:US`, `package-index`: as `parse_party` reads it."""
        return f"{self.kind}:{self.name}" if self.name else self.kind


def parse_party(text: str) -> Party:
    """Read `KIND:NAME`, or `KIND` alone for one of `UNNAMED_KINDS`. Raises Malformed (PARTY-FORM)."""
    kind, colon, name = text.partition(":")
    if kind not in PARTY_KINDS:
        raise _malformed(text, f"it begins with one of {', '.join(PARTY_KINDS)}")
    if (kind in UNNAMED_KINDS) == bool(colon) or (colon and not name):
        example = kind if kind in UNNAMED_KINDS else f"{kind}:NAME"
        raise _malformed(text, f"it is written as {example}")
    if len(name) > MAX_NAME or not name.isprintable() or name != name.strip():
        raise _malformed(text, f"its name has at most {MAX_NAME} printable characters, without spaces around")
    return Party(kind, name)


def _malformed(text: str, why: str) -> Malformed:
    shown = text[:64] if text.isprintable() else repr(text[:64])
    hint = "reach:US, member:ID or package-index; comity explain PARTY-FORM"
    return Malformed(f"{shown!r} is no party", why=why, hint=hint, code="PARTY-FORM")
