"""Look up what an abbreviated digest or id stands for: on this machine first, then in the lists of the nodes.

What a node lists is a claim and only widens the choice: an abbreviation that several listed digests match is refused,
and the one that is found is resolved and verified as if all its digits had been typed. A node that hides a digest can
make another one unique, so a user who binds a name by an abbreviation is asked first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from comity.trust.charter.document import Body
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, NotFound
from comity.trust.frozen import frozen
from comity.trust.identity import Inception
from comity.trust.names import Abbreviation, Reference, ambiguous, find_id
from comity.trust.statement import Entry
from comity.trust.statement_kinds import PUBLICATION_PREDICATES, PUBLISHED
from comity.wire.client import NodeClient
from comity.wire.found import Lookup
from comity.wire.messages import LocatedEntry

from comity_client.evidence.held_lines import ask_all
from comity_client.evidence.inquiry import Inquiry
from comity_client.session import Answers, Session
from comity_client.trust_store import Bindings

MAX_LISTED: Final = 2000
"""Publications of one node that are listed to find a digest without a name."""
MAX_PAGES: Final = 100


def reference_of(what: str) -> Reference:
    """Parse a reference that is not a folder here. Raises NotFound for text that can only be a folder, Malformed
    (BAD-NAME)."""
    if what in (".", "..") or what.startswith(("/", "./", "../", "~")):
        hint = "comity pull REF --out DIR, or name an existing folder"
        raise NotFound(
            f"no folder {what}", why="it does not exist, and is not a valid reference", hint=hint, code="NO-FOLDER"
        )
    return Reference.parse(what)


async def find_reference(
    session: Session, repository: str | None, digits: Abbreviation, here: Mapping[Digest, str]
) -> Reference:
    """Return the reference whose digest has these digits: among the artifacts `here`, and those that nodes list, under
    the name of `repository` if it is given.

    Raises NotFound (UNKNOWN-ID), Malformed (AMBIGUOUS-ID), also if the nodes list too many artifacts to be sure, and
    Unavailable if nobody answers and the artifact is not here.
    """
    found = {digest: label for digest, label in here.items() if digits.matches(digest)}
    answers = await (session.ask(_listed) if repository is None else _claims(session, repository))
    if not answers.found and not found:
        raise answers.failure(f"{digits.text} cannot be looked up", otherwise="comity search WORD")
    complete = all(done for _, done in answers.found.values())
    for lines, _ in answers.found.values():
        entries = filter(None, map(session.reader.readable, dict.fromkeys(item.line for item in lines)))
        found |= {digest: f"({name})" for digest, name in _artifacts(entries, repository) if digits.matches(digest)}
    if len(found) > 1:
        raise ambiguous(digits, found, "artifact")
    if not complete and not any(digest in here for digest in found):
        why = "a node has more publications than it lists, and others may begin like this"
        hint = "give NAME@sha256: with these digits, or all 64 digits, which this lists: comity search WORD --json"
        raise Malformed(f"{digits.text!r} may be ambiguous", why=why, hint=hint, code="AMBIGUOUS-ID")
    if not found:
        why = "no node and no cache here lists an artifact with these digits"
        raise NotFound(f"no artifact {digits.text!r}", why=why, hint="comity search WORD", code="UNKNOWN-ID")
    return Reference(repository, None, next(iter(found)))


async def _claims(session: Session, repository: str) -> Answers[tuple[Sequence[LocatedEntry], bool]]:
    """What each node lists under a name, and whether that is all."""
    answers = await ask_all(session, Lookup.of_name(repository))
    found = {
        node: (claims, not any(claim.more or claim.others for claim in claims))
        for node, claims in answers.found.items()
    }
    return Answers(found, answers.failed)


async def _listed(node: NodeClient) -> tuple[Sequence[LocatedEntry], bool]:
    """Return what the node lists, and whether that is all."""
    found: list[LocatedEntry] = []
    cursor = ""
    for _ in range(MAX_PAGES):
        page = await node.search("", cursor)
        found += page.found
        if not page.next_cursor:
            return found[:MAX_LISTED], len(found) <= MAX_LISTED
        if len(found) >= MAX_LISTED or page.next_cursor == cursor:
            break
        cursor = page.next_cursor
    return found[:MAX_LISTED], False


def _artifacts(entries: Iterable[Entry], repository: str | None) -> Iterable[tuple[Digest, str]]:
    """Yield the artifacts that the entries claim, each with the claimed name."""
    for entry in entries:
        if entry.statement.predicate not in PUBLICATION_PREDICATES:
            continue
        name = entry.statement.subjects[0].name
        if repository is None or name.partition("@")[0].lower() == repository.lower():
            yield entry.statement.subject, name


@frozen
class FoundIdentity:
    """An identity, the label under which it was found, and whether only nodes claim it."""

    id: Digest
    label: str
    claimed: bool


def known_identities(own: Iterable[Inception], pins: Iterable[Body], bindings: Bindings) -> dict[Digest, str]:
    """Return the identities that this user knows without asking a node, each with a label."""
    bodies = tuple(pins)
    known = {who: f"bound to {name}" for name, who in bindings.publishers.items()}
    known |= dict.fromkeys(bindings.rotations, "pinned to a rotation")
    known |= {member.id: member.name for body in bodies for member in body.members}
    known |= {who: f"publisher of {name}" for body in bodies for name, who in body.namespaces.items()}
    return known | {inception.id: inception.label for inception in own}


async def find_identity(inquiry: Inquiry, namespace: str, text: str, known: Mapping[Digest, str]) -> FoundIdentity:
    """Return the publisher of a namespace that `text` gives in full or abbreviates: one that is `known`, else one whose
    publication under the namespace a node shows and its signature proves.

    Raises Malformed (BAD-ID, AMBIGUOUS-ID), NotFound (UNKNOWN-ID), Unavailable.
    """
    digits = Abbreviation.parse(text)
    if digits is None or any(map(digits.matches, known)):
        found = find_id(text, known, "publisher", "")
        return FoundIdentity(found, known.get(found, ""), claimed=False)
    said = await inquiry.ask(lambda node, held: node.resolve_beside(held, f"{namespace}/"))
    if not said.answers.found:
        raise said.answers.failure(f"{digits.text} cannot be looked up", otherwise=f"comity search {namespace}")
    claimants = _claimants(said.proven.entries, namespace)
    labels = {who: made.label for who, made in said.proven.readings.inceptions.items() if who in claimants}
    matching = find_id(text, labels, "publisher", f"comity search {namespace}")
    return FoundIdentity(matching, labels[matching], claimed=True)


def _claimants(entries: Sequence[Entry], namespace: str) -> set[Digest]:
    """The authors of publications under the namespace."""
    return {
        entry.statement.by.id
        for entry in entries
        if entry.statement.by is not None
        and entry.statement.predicate == PUBLISHED
        and entry.statement.subjects[0].name.partition("/")[0].lower() == namespace.lower()
    }
