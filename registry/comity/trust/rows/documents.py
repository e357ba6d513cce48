"""Which documents its publisher put beside it, whether they are here, and what others say on their own account."""

from __future__ import annotations

from collections.abc import Iterator

from comity.trust.digest import short
from comity.trust.judging.vouching import Vouch, members_behind
from comity.trust.rows.findings import Findings
from comity.trust.rows.wording import who
from comity.trust.statement import SideObject
from comity.trust.statements.published import DOCUMENTS
from comity.trust.verdict import Fact, Row

NAME = "documents"
STEP = 11


def documents_row(found: Findings) -> Row:
    """What the policy asks for has to be named by the publisher, and be here. Nobody reads what is in it."""
    chosen, required = found.chosen, found.policy.documents
    named = chosen.publication.published.documents if chosen else {}
    facts = (*_documents(found), *(_vouched(vouch, found) for vouch in found.vouches))
    counts = members_behind(found.vouches).items()
    behind = "".join(f"; {kind}, {f'say {n} members' if n > 1 else 'says one member'}" for kind, n in counts)
    if not required:
        text = f"the policy names none; named by the publisher: {', '.join(named) or 'none'}{behind}"
        return Row(NAME, "not-checked", text, STEP, facts=facts)
    if lacking := [kind for kind in required if kind not in named]:
        text = f"its publisher names no {' and no '.join(lacking)}{behind}"
        return Row(NAME, "fail" if chosen else "unknown", text, STEP, "short" if chosen else "missing", facts)
    if absent := [kind for kind in required if not _here(named[kind], found)]:
        text = f"named and not here: {', '.join(absent)}{behind}"
        return Row(NAME, "unknown", text, STEP, "missing", facts, hint="comity pull REF")
    return Row(NAME, "pass", f"here: {', '.join(required)}{behind}", STEP, facts=facts)


def _documents(found: Findings) -> Iterator[Fact]:
    if found.chosen is None:
        return
    publication = found.chosen.publication
    for kind in DOCUMENTS:
        item = publication.published.documents.get(kind)
        if item is None:
            yield Fact(f"no {kind} is named", "stale or absent")
            continue
        text = f"{kind}, sha256 {short(item.digest)}, {item.size} bytes"
        yield Fact(f"{text}: named", "claimed", who(publication.publisher), publication.entry.digest)
        here = _here(item, found)
        yield Fact(
            f"{text}: {'here' if here else 'not here'}", "verified here" if here else "stale or absent", "", item.digest
        )


def _vouched(vouch: Vouch, found: Findings) -> Fact:
    said = vouch.said
    document = ""
    if said.document is not None:
        document = f"; document {short(said.document.digest)} {'here' if _here(said.document, found) else 'not here'}"
    return Fact(
        f"{said.statement}{': ' * bool(said.text)}{said.text}{document}", "claimed", vouch.by.name, vouch.entry.digest
    )


def _here(item: SideObject, found: Findings) -> bool:
    """Whether its bytes are among the objects, or a file of the artifact has them."""
    if (data := found.evidence.objects.get(item.digest)) is not None:
        return len(data) == item.size
    return any((file.sha256, file.size) == (item.digest, item.size) for file in found.evidence.files or ())
