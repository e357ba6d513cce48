"""Files for the engine that runs the jobs of a redeemed grant. Those for SSH are made here, those for schedulers by
add-ons.

People read the files and pass them on; Comity runs nothing, and they contain no secret. Titles and names come from
others: they are quoted so that a shell, YAML and comments read them only as text.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from comity.installed_addons import from_addons
from comity.trust.encoding import Digest, format_moment, printable
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen

LABEL: Final = "label/"
"""Begins the names of attributes of a slice that are labels of its nodes."""
_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}\Z")


@frozen
class Part:
    """Nodes of one slice from `start` up to `end`, POSIX seconds, with at most `amount` of the measure."""

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


@frozen
class HandOff:
    """The data of one redemption for an engine. Raises Malformed (HAND-OFF) for an invalid user name.

    Attributes:
        grant: line digest of the grant.
        title, provider, grantee: names of the offer and of both sides.
        endpoint: the provider's node as a Hub (`HF_ENDPOINT`); empty for none.
        artifact, model: digest and name of a model that is stored near the machines, if any.
        user: account on the provider's machines; empty if not known.
        note: the grantee's text for the provider.
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
            raise handoff_error(f"{self.user[:40]!r} is not a valid Unix user name")

    @property
    def name(self) -> str:
        """Name of all objects for this grant; valid as a label, a job and an account."""
        return f"comity-{self.grant[:12]}"

    @property
    def environment(self) -> tuple[tuple[str, str], ...]:
        """Environment of jobs: variables that Hugging Face clients and vLLM read, and the digest."""
        variables = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_DISABLE_TELEMETRY": "1" if self.endpoint else "",
            "COMITY_ARTIFACT": f"sha256:{self.artifact}" if self.artifact else "",
            "COMITY_MODEL": self.model,
            "COMITY_GRANT": self.grant,
        }
        return tuple((name, value) for name, value in variables.items() if value)

    def header_lines(self) -> tuple[str, ...]:
        """Description for the head of a file."""
        lines = [
            f"Grant {self.grant}",
            f"of {self.title!r}, lent by {self.provider} to {self.grantee}.",
        ]
        if self.artifact:
            lines.append(f"Model sha256:{self.artifact} {self.model}".rstrip())
        if self.endpoint:
            lines.append(f"Weights are served near the machines: HF_ENDPOINT={self.endpoint}")
        if self.note:
            lines.append(f"The grantee's note: {self.note}")
        return tuple(lines)


Files: TypeAlias = dict[str, str]
Renderer: TypeAlias = Callable[[HandOff], Files]


def handoff_error(why: str) -> Malformed:
    return Malformed("no files for this hand-off", why=why, hint="comity grant redeem --help", code="HAND-OFF")


def to_shell(value: str) -> str:
    """One POSIX shell word on one line; line breaks are escaped."""
    return shlex.quote(printable(value))


def to_comments(lines: Iterable[str], sign: str = "# ") -> str:
    """One comment line for each of `lines`, with escaped content."""
    return "".join(f"{sign}{printable(line)}\n" for line in lines)


def render_ssh(handoff: HandOff) -> dict[str, str]:
    """Files by name."""
    lines = [
        *handoff.header_lines(),
        f"Account: {handoff.user or 'to be agreed'}   Host: {handoff.target or 'to be agreed'}",
    ]
    for part in handoff.parts:
        machine = f"{part.count} x {part.accelerator}" if part.count else f"{part.cpus} CPUs"
        lines.append(
            f"{part.nodes} nodes of {machine} ({part.name}), from {_when(part.start)} up to {_when(part.end)}, "
            f"at most {part.amount} {handoff.measure}"
        )
    lines.append(
        "Agree on access directly. Do not send passwords or private keys through Comity: they would be logged."
    )
    exports = "".join(f"export {name}={to_shell(value)}\n" for name, value in handoff.environment)
    return {"README.txt": to_comments(lines, ""), "environment.sh": exports}


def _when(seconds: int) -> str:
    return format_moment(seconds, "%Y-%m-%d %H:%M:%S UTC")


def renderers() -> dict[str, Renderer]:
    """What makes the files, by engine: of add-ons, which declare `handoff_renderers`, and for SSH."""
    added = [item for renderers_of in from_addons("handoff_renderers") for item in renderers_of().items()]
    return {**dict(added), "ssh": render_ssh}


def render(handoff: HandOff, engine: str = "") -> Files:
    """Files by name, for `engine` or the engine of the offer. Raises Malformed (HAND-OFF) for an engine for which
    nothing that is installed makes files, and for values that the engine does not accept."""
    wanted = engine or handoff.engine
    renderer = renderers().get(wanted)
    if renderer is None:
        raise handoff_error(f"nothing that is installed here makes files for {wanted}; --engine ssh does without")
    return renderer(handoff)
