"""What is handed over. Titles and names in it are strangers' words; renderers spell them so that nothing obeys them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from comity.trust.digest import Digest
from comity.trust.errors import Malformed

_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}\Z")


@dataclass(frozen=True, slots=True)
class Part:
    """Nodes of one slice from `start` up to `end`, POSIX seconds; `amount` of the measure may be used within it."""

    name: str
    vendor: str
    accelerator: str
    count: int
    nodes: int
    start: int
    end: int
    amount: int
    cpus: int = 0
    ram_gib: int = 0
    disk_gib: int = 0
    attributes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class HandOff:
    """A redemption, put into one value. Raises Malformed (HAND-OFF) for a user name that no system takes.

    Attributes:
        grant: line digest of the grant.
        title, provider, grantee: what the offer and the two sides are called.
        endpoint: the provider's node as a Hub (`HF_ENDPOINT`); empty where it has none.
        artifact, model: the digest of a model that lies beside the machines, and its name, where one is meant.
        user: the account on the provider's machines; empty where the provider has not said.
        note: what the grantee wrote for whoever hands over.
    """

    grant: Digest
    title: str
    provider: str
    grantee: str
    measure: str
    engine: str
    target: str
    parts: tuple[Part, ...]
    endpoint: str = ""
    artifact: Digest | None = None
    model: str = ""
    user: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if self.user and not _USER.match(self.user):
            raise refused(f"{self.user[:40]!r} is no user name of a Unix system")

    @property
    def name(self) -> str:
        """What everything is called that is made for this grant: fit for a label, a job and an account."""
        return f"comity-{self.grant[:12]}"

    @property
    def environment(self) -> tuple[tuple[str, str], ...]:
        """Where jobs find the weights: the variables that Hugging Face clients and vLLM read, and the digest."""
        variables = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_DISABLE_TELEMETRY": "1" if self.endpoint else "",
            "COMITY_ARTIFACT": f"sha256:{self.artifact}" if self.artifact else "",
            "COMITY_MODEL": self.model,
            "COMITY_GRANT": self.grant,
        }
        return tuple((name, value) for name, value in variables.items() if value)

    def sentences(self) -> tuple[str, ...]:
        """What this is, for the head of a file."""
        lines = [
            f"Grant {self.grant}",
            f"of {self.title!r}, lent by {self.provider} to {self.grantee}.",
        ]
        if self.artifact:
            lines.append(f"Model sha256:{self.artifact} {self.model}".rstrip())
        if self.endpoint:
            lines.append(f"Weights are read beside the machines: HF_ENDPOINT={self.endpoint}")
        if self.note:
            lines.append(f"The grantee's note: {self.note}")
        return tuple(lines)


def refused(why: str) -> Malformed:
    return Malformed("this cannot be handed over", why=why, hint="comity grant redeem --help", code="HAND-OFF")
