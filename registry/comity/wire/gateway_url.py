"""The URL of a gateway, as an operator writes it, a node tells it, and a shell is given it.

It goes from strangers into command lines and configuration files. So it is held to letters, digits and `:/.-_~[]`, none
of which ends a word, a quotation or a line, and nothing secret has a place in it. Who prints it quotes it all the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from comity.trust.errors import Malformed
from comity.wire.address import Address
from comity.wire.limits import GATEWAY_URL

_PORTS: Final = {"http": 80, "https": 443}
_URL: Final = re.compile(r"(https?)://([^/]+)((?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+)*)\Z")


@dataclass(frozen=True, slots=True)
class GatewayUrl:
    """Only `parse` makes one; `str` gives back what was parsed."""

    text: str
    scheme: str
    address: Address

    @classmethod
    def parse(cls, text: str) -> GatewayUrl:
        """`https://models.example.org`, `http://192.0.2.1:7480/hub`: no user, query, fragment or closing slash. Raises
        Malformed (GATEWAY-URL)."""
        found = _URL.match(text) if len(text) <= GATEWAY_URL else None
        if found is None:
            raise _refused()
        scheme, place, _ = found.groups()
        bare = ":" not in place.rpartition("]")[2]
        try:
            address = Address.parse(f"{place}:{_PORTS[scheme]}" if bare else place)
        except Malformed as error:
            raise _refused() from error
        return cls(text, scheme, address)

    def __str__(self) -> str:
        return self.text


def _refused() -> Malformed:
    """Of what was read nothing is repeated: it may hold a password."""
    why = f"at most {GATEWAY_URL} characters; in its path letters, digits and ._~-; no user, no query"
    return Malformed("not the URL of a gateway", why=why, hint="https://HOST[:PORT][/PATH]", code="GATEWAY-URL")
