"""Policy files for people: what one means in plain words, what under it could never pass, and one to start from.

What could never pass under a policy, and what in it does nothing: found by reading it, before a model comes.

A policy to start from: every table with a comment, the owner's pins filled in, the undecided commented out.

The federation files that it pins are copied beside it, so that both can be carried to a machine without a network.


A policy in plain words, for whoever has to sign that it is the right one: one paragraph a table of the file.

What a file leaves out is said as well: a default is a decision that its owner should know of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from comity.content import durable
from comity.trust.charter.document import Body
from comity.trust.encoding import Digest
from comity.trust.errors import Conflict
from comity.trust.evidence import KINDS
from comity.trust.policy import PUBLISHER, ROWS, LineageRule, Policy, most_cosigners
from comity.trust.statements import moment
from comity.verifier import read_bounded
from comity_client.reports import QUESTIONS
from comity_client.trust_store import TrustPin


@dataclass(frozen=True, slots=True)
class Finding:
    """`never`: `row` is required and could not pass whatever the evidence. `idle`: a line of the policy that changes
    nothing."""

    kind: Literal["never", "idle"]
    row: str
    text: str


def findings(policy: Policy) -> tuple[Finding, ...]:
    never = (Finding("never", row, text) for row, text in _never(policy) if row in policy.require)
    return (*never, *(Finding("idle", row, text) for row, text in _idle(policy)))


def _never(policy: Policy) -> Iterator[tuple[str, str]]:
    if not policy.pins:
        yield "transparency", "no charter is pinned by [[pin]], so no log is anybody's"
        yield "cosigners", "no charter is pinned by [[pin]], so nobody counts"
    elif (most := most_cosigners(policy.cosigners, policy.pins)) is not None:
        counted, jurisdictions = most
        wanted = f"{policy.cosigners.at_least} cosigners in {max(policy.cosigners.jurisdictions, 1)} jurisdictions"
        have = f"the pinned charters have at most {counted} in {jurisdictions} outside of what is excluded"
        yield "cosigners", f"{wanted} are asked for, and {have}"
    named = policy.publishers or policy.bindings or any(body.namespaces for body in policy.pins)
    if not named:
        yield "key policy", "neither accept or names of [publishers] nor a pinned charter names a publisher"


def _idle(policy: Policy) -> Iterator[tuple[str, str]]:
    if policy.publishers:
        for name, who in sorted(policy.bindings.items()):
            if who not in policy.publishers:
                yield "key policy", f"publishers.names binds {name!r} to somebody whom publishers.accept leaves out"
    known = policy.publishers | set(policy.bindings.values()) | _namespaces(policy)
    for who in sorted(set(policy.rotations) - known):
        if known:
            yield "key policy", f"publishers.rotations holds {who[:16]}, who is not accepted anyway"
    codes = {seat.jurisdiction for body in policy.pins for seat in body.active}
    for code in policy.cosigners.outside:
        if policy.pins and code != PUBLISHER and code not in codes:
            yield "cosigners", f"cosigners.outside names {code}, where no pinned member is"
    if policy.licences and "licence" not in policy.require:
        yield "licence", "licences.accept is judged and shown, and decides nothing: rows.require leaves licence out"
    if policy.lineage != LineageRule() and "lineage" not in policy.require:
        yield "lineage", "lineage is judged and shown, and decides nothing: rows.require leaves lineage out"
    if policy.freshness is not None and "time" not in policy.require:
        yield "time", "time.as_of is judged and shown, and decides nothing: rows.require leaves time out"


def _namespaces(policy: Policy) -> set[str]:
    return {who for body in policy.pins for who in body.namespaces.values()}


_HEAD: Final = """\
# What has to hold before a model may be used here. Keep this file under change control: a report names its SHA-256.
#   comity policy check FILE      does it hold together, and what could never pass?
#   comity policy explain FILE    the same in plain words
schema = "comity/policy/v1"

# Whose words count. A federation file, and the charter body of it that you compared with two members, by voice.
"""
_NO_PIN: Final = """\
# [[pin]]
# file = "federation.json"
# body = "…"
"""
_REST: Final = """
# Whose models. Empty: whoever the names here, or the pinned charters, say.
[publishers]
# accept = ["51aa…"]
# names = { swiss-ai = "51aa…" }

# How many other members must have seen it, and where. "publisher" excludes its jurisdiction and its log's.
[cosigners]
at_least = 2
jurisdictions = 2
outside = ["publisher"]
post_quantum = false

# Licences that you accept, as SPDX expressions. To have it decide, add "licence" to rows.require.
[licences]
# accept = ["apache-2.0", "mit"]

# What it was made from. To have it decide, add "lineage" to rows.require.
[lineage]
# parents_by_digest = true
# refuse_licence_conflicts = true

# What in a file may run. Everything else that would run is refused, by the row "file safety". Kinds, paths, sha256:…
[safety]
allow = ["chat-template"]
# formats = ["safetensors", "gguf", "json", "text"]

# Documents that have to come with it. To have it decide, add "documents" to rows.require.
[documents]
# require = ["card"]

# Whose warnings refuse. All others are shown.
[advisories]
# refuse_from = ["51aa…"]

# How fresh the evidence has to be. No clock is read: move the moment on when you review this file.
[time]
# as_of = 2026-01-01T00:00:00Z
# max_age_days = 30

# Which rows of the report have to pass. The others are shown and decide nothing.
[rows]
require = ["artifact", "bytes", "signatures", "key policy", "transparency", "cosigners", "file safety"]
"""


def write_policy(path: Path, pins: Sequence[TrustPin]) -> tuple[Path, ...]:
    """Write a policy to `path`, and beside it the federation files that it pins. Returns what was written: a federation
    file that is there already serves several policies.

    Raises Conflict where the policy, or another file under the name of a federation's, is there already; OutOfSpace,
    Unavailable.
    """
    beside = {path.parent / f"federation-{pin.id[:8]}.json": pin for pin in pins}
    if path.exists():
        hint = f"comity policy new --out OTHER{path.suffix}"
        raise Conflict(f"{path} exists", why="a policy is not overwritten", hint=hint)
    copies = {file: pin.federation.encode() for file, pin in beside.items()}
    new = {file: data for file, data in copies.items() if not _holds(file, data)}
    for file, data in new.items():
        durable.write_file(file, data, mode=0o644, point="policy")
    pinned = (f'[[pin]]\nfile = "{file.name}"\nbody = "{pin.body}"\n' for file, pin in beside.items())
    durable.write_file(path, (_HEAD + ("\n".join(pinned) or _NO_PIN) + _REST).encode(), mode=0o644, point="policy")
    return (path, *new)


def _holds(file: Path, data: bytes) -> bool:
    """Whether an earlier policy in the same folder has left this copy. Raises Conflict where it is another file."""
    if not file.exists():
        return False
    if file.stat().st_size != len(data) or read_bounded(file, len(data)) != data:
        why = "it is not the federation file that is pinned, and is not overwritten"
        raise Conflict(f"{file} exists", why=why, hint="write the policy into a folder of its own")
    return True


@dataclass(frozen=True, slots=True)
class Rule:
    """What one table of the policy (`pin`, `cosigners`) means, in sentences."""

    table: str
    title: str
    says: tuple[str, ...]


def explain(policy: Policy) -> tuple[Rule, ...]:
    """All rules, in the order of the report's rows."""
    return tuple(Rule(table, title, says) for table, title, tell in _TABLES if (says := tell(policy)))


def _pins(policy: Policy) -> tuple[str, ...]:
    if not policy.pins:
        return ("No federation is pinned: nobody's log and nobody's cosignature can be believed.",)
    return tuple(_pin(body) for body in policy.pins)


def _pin(body: Body) -> str:
    seats = ", ".join(f"{seat.name} ({seat.jurisdiction})" for seat in body.active)
    return (
        f"Only these members count, as epoch {body.epoch} of federation {body.federation[:16]} lists them: {seats}. "
        f"The charter is held to body {body.digest[:16]}; whatever charters travel with an artifact change nothing."
    )


def _publishers(policy: Policy) -> tuple[str, ...]:
    says = [f"Only models of these publishers are accepted, whatever they are called: {_ids(policy.publishers)}."]
    if not policy.publishers:
        says = [
            "No publisher is named here: who may publish under a name is what the pinned charters and the names say."
        ]
    says += [f"{name}/… is the name of publisher {who[:16]}." for name, who in sorted(policy.bindings.items())]
    if policy.publishers and policy.bindings:
        says.append("The names decide nothing about acceptance while accept lists publishers.")
    says += [
        f"Publisher {who[:16]} is held to its change of keys {rotation[:16]}: what older keys signed counts only if it "
        "was logged before."
        for who, rotation in sorted(policy.rotations.items())
    ]
    return tuple(says)


def _cosigners(policy: Policy) -> tuple[str, ...]:
    rule = policy.cosigners
    if rule.at_least == 0:
        return ("Nobody but the log's own member needs to have seen the statement.",)
    what = f"{rule.at_least} members" if rule.at_least > 1 else "1 member"
    says = [f"At least {what} other than the one whose log it is must have seen the statement there and signed for it."]
    if rule.jurisdictions > 1:
        says.append(f"They must be in at least {rule.jurisdictions} jurisdictions.")
    if PUBLISHER in rule.outside:
        says.append("Members in the publisher's jurisdiction, or in that of the log's member, do not count.")
    if codes := [code for code in rule.outside if code != PUBLISHER]:
        says.append(f"Members in these jurisdictions do not count: {', '.join(codes)}.")
    if rule.post_quantum:
        says.append("Only signatures that would stand without classical cryptography count.")
    return tuple(says)


def _model_signing(policy: Policy) -> tuple[str, ...]:
    rule = policy.model_signing
    says = [f"A model.sig counts if it is signed by key {key.hint[:16]}." for key in rule.keys]
    says += [f"A model.sig counts if its certificates lead to one of {len(rule.roots)} roots."] if rule.roots else []
    says += [f"A keyless model.sig counts if it is signed as {identity}." for identity in rule.identities]
    if rule.unsigned:
        says.append(f"These need not be signed in it: {', '.join(rule.unsigned)}.")
    if rule.require:
        says.append("Without a model.sig that counts, the row signatures does not pass.")
    return tuple(says)


def _licences(policy: Policy) -> tuple[str, ...]:
    if not policy.licences:
        return ("Any licence, and none, is accepted: the licence is shown, not judged.",)
    return (f"The licence that the publisher claims must be one of: {', '.join(sorted(policy.licences))}.",)


def _lineage(policy: Policy) -> tuple[str, ...]:
    says = []
    if policy.lineage.by_digest:
        says.append("A parent that is named without a digest fails the row lineage.")
    if policy.lineage.no_conflicts:
        says.append("Licences that conflict along the lineage, as claimed, fail the row lineage.")
    return tuple(says) or ("What it was made from is shown, and nothing in it is refused.",)


def _safety(policy: Policy) -> tuple[str, ...]:
    rule = policy.safety
    says = ["Files in which something would run are refused, and headers that make no sense."]
    says += [f"Accepted all the same: {kind}, {KINDS[kind]}." for kind in sorted(rule.kinds)]
    if exempt := [*rule.paths, *(f"the file {digest[:16]}" for digest in sorted(rule.files))]:
        says.append(f"Accepted whatever is in them: {', '.join(exempt)}.")
    if rule.formats:
        says.append(f"Files of other formats than these are refused: {', '.join(sorted(rule.formats))}.")
    return tuple(says)


def _documents(policy: Policy) -> tuple[str, ...]:
    if not policy.documents:
        return ("No document is asked for; those that the publisher names are shown.",)
    return (f"The publisher must name these documents, and they must be here: {', '.join(policy.documents)}.",)


def _upstream(policy: Policy) -> tuple[str, ...]:
    if not policy.upstream.corroborated:
        return ()
    return (
        f"An artifact that no accepted publisher published counts if nodes of {policy.upstream.corroborated} members "
        "mirrored the same bytes from one commit of its upstream.",
    )


def _advisories(policy: Policy) -> tuple[str, ...]:
    if not policy.refuse_from:
        return ("Warnings are shown and refuse nothing, whoever gives them.",)
    return (f"A warning by one of these refuses the artifact: {_ids(policy.refuse_from)}. Others are shown.",)


def _time(policy: Policy) -> tuple[str, ...]:
    if policy.freshness is None:
        return ("How old the evidence may be is not asked.",)
    days = policy.freshness.max_age // 86_400
    return (
        f"Judged as of {moment(policy.freshness.as_of)}: the cosigners must have seen the log within {days} days "
        "before. No clock is asked, so move this date on when you review the policy.",
    )


def _rows(policy: Policy) -> tuple[str, ...]:
    asked = [f"{row} ({QUESTIONS[row].rstrip('?')})" for row in policy.require]
    shown = [row for row in ROWS[:-1] if row not in ("artifact", *policy.require)]
    says = [f"Required to pass: {'; '.join(asked) or 'only that there is a manifest'}."]
    if shown:
        says.append(f"Shown, and deciding nothing: {', '.join(shown)}.")
    return tuple(says)


def _ids(identities: frozenset[Digest]) -> str:
    return ", ".join(identity[:16] for identity in sorted(identities))


_TABLES: Final[tuple[tuple[str, str, Callable[[Policy], tuple[str, ...]]], ...]] = (
    ("pin", "Whom it believes", _pins),
    ("publishers", "Whose models", _publishers),
    ("model_signing", "Signatures in the form of OpenSSF", _model_signing),
    ("cosigners", "Who else must have seen it", _cosigners),
    ("licences", "Licences", _licences),
    ("lineage", "What it was made from", _lineage),
    ("safety", "What may run", _safety),
    ("documents", "Documents", _documents),
    ("upstream", "What nobody published here", _upstream),
    ("advisories", "Warnings", _advisories),
    ("time", "Freshness", _time),
    ("rows", "What has to pass", _rows),
)
