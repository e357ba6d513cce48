"""Check of `comity doctor`: what the node's own ledger has about the release that it runs.

A publication under the name of the product is anybody's claim. Only the publisher to whom the node's charter gives the
namespace warns here; what others say is shown, and counts for nothing. The running node is asked; nothing is fetched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from comity.node.maintenance.home_checks import Diagnosis, ExaminedNode
from comity.trust.encoding import Digest, short
from comity.trust.errors import Malformed, NotFound
from comity.trust.resolution import version_order
from comity.trust.statement import Entry, parse_entry
from comity.trust.statement_kinds import ADVISORY, PUBLISHED
from comity.trust.statements import INFO, Advisory, Published
from comity.wire.client import NodeClient
from comity.wire.messages import LocatedEntry

NAMESPACE: Final = "comity"
NAME: Final = f"{NAMESPACE}/comity"
TIMEOUT: Final = 10.0
MAX_SHOWN: Final = 3
FETCH: Final = "comity upgrade fetch --policy FILE"


def check_release(node: ExaminedNode) -> Iterator[Diagnosis]:
    """No warning is known about the release that runs."""
    if node.status is None or not node.config.listen.operator.is_socket():
        text = "the node does not run, so nothing was asked about warnings on its release"
        yield Diagnosis("release", "unknown", text)
        return
    version = node.status.software.removeprefix("comity ")
    federation = node.files.federation if node.files is not None else None
    bound = federation.body.bound_publisher(NAMESPACE) if federation is not None else None
    entries = asyncio.run(_ask(node.config.listen.operator, version, bound))
    yield from release_findings(entries, version, bound)


async def _ask(socket: Path, version: str, bound: Digest | None) -> tuple[Entry, ...]:
    """The publications under the name, and all that is said of the artifacts of this version."""
    async with NodeClient.operator(socket) as client:
        asking, named = client.with_timeout(TIMEOUT), (bound,) if bound else ()
        try:
            found = list(_read(await asking.resolve(NAME, None, bound, named)))
        except NotFound:
            return ()
        running = {each.artifact for each in _published(found, bound) if each.name.version == version}
        for artifact in sorted(running)[:MAX_SHOWN]:
            found += _read(await asking.claims(artifact, named))
        return tuple({entry.digest: entry for entry in found}.values())


def _read(located: Iterable[LocatedEntry]) -> Iterator[Entry]:
    for each in located:
        try:
            yield parse_entry(each.line)
        except Malformed:
            continue


def release_findings(entries: Sequence[Entry], version: str, bound: Digest | None) -> Iterator[Diagnosis]:
    """What these statements, which the node has proven, say about a version of the product.

    Args:
        bound: the identity to which the charter gives the namespace of the product; None if it gives it to nobody.
    """
    published = _published(entries, bound)
    running = [each for each in published if each.name.version == version]
    if not running:
        by = "the publisher whom the charter names" if bound else "anybody"
        text = f"no publication of {NAME}@{version} by {by} is known here: whether there is a warning is not known"
        yield Diagnosis("release", "unknown", text)
        return
    own = {(each.artifact, each.by) for each in running}
    warned = [each for each in _advisories(entries) if each.artifact in {artifact for artifact, _ in own}]
    told = [each for each in warned if bound is not None and each.by.id == bound]
    for each in told[:MAX_SHOWN]:
        yield Diagnosis("release", "warn", f"its publisher warns of {NAME}@{version}: {_text(each)}", FETCH)
    for each in [each for each in warned if each not in told][:MAX_SHOWN]:
        who = f"{each.by.kind} {short(each.by.id)}" + (
            ", who published it" if (each.artifact, each.by.id) in own else ""
        )
        yield Diagnosis("release", "unknown", f"{who}, warns of {NAME}@{version}: {_text(each)}")
    if not told and bound is None:
        text = f"the charter gives the namespace {NAMESPACE} to nobody: no warning on {NAME}@{version} counts"
        yield Diagnosis("release", "unknown", text)
    elif not told:
        yield Diagnosis("release", "ok", f"no warning of its publisher on {NAME}@{version} is known here")
    newer = {each.name.version for each in published if version_order(each.name.version) > version_order(version)}
    if bound is not None and newer:
        newest = max(newer, key=version_order)
        yield Diagnosis("release", "ok", f"{NAME}@{newest} is published: {FETCH}")


def _published(entries: Iterable[Entry], bound: Digest | None) -> list[Published]:
    found = [each for each in _contents(entries, PUBLISHED) if isinstance(each, Published)]
    return [each for each in found if each.name.repository.lower() == NAME and bound in (None, each.by)]


def _advisories(entries: Iterable[Entry]) -> list[Advisory]:
    found = [each for each in _contents(entries, ADVISORY) if isinstance(each, Advisory)]
    return [each for each in found if each.severity != INFO or each.withdraws_for(each.by.id)]


def _contents(entries: Iterable[Entry], kind: str) -> Iterator[Advisory | Published]:
    for entry in entries:
        if entry.statement.predicate == kind:
            try:
                yield (Advisory if kind == ADVISORY else Published).parse(entry.statement)
            except Malformed:
                continue


def _text(advisory: Advisory) -> str:
    return f"{advisory.kind} ({advisory.severity}): {advisory.text}"
