"""Vouching for an artifact: what was really done here comes first, then one signs that one did it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from comity.trust.digest import Digest
from comity.trust.errors import Refused
from comity.trust.policy import Policy
from comity.trust.statement import Author, SideObject
from comity.trust.statements.vouched import Vouched, sign_vouched

from comity_client.compute.voice import Voice
from comity_client.events import OnEvent, Progress
from comity_client.evidence.catalogue import Resolution
from comity_client.evidence.gather import gather
from comity_client.nodes.session import Session
from comity_client.owner.memory import Memory
from comity_client.publishing.publish import Receipt, publish_word
from comity_client.pulling.held import Held, held

REHASHED = "rehashed"


@dataclass(frozen=True, slots=True)
class Word:
    """What is said, and the document that says it at length."""

    statement: str
    text: str = ""
    document: bytes | None = None


async def vouch(
    session: Session,
    memory: Memory,
    what: Path | str,
    word: Word,
    voice: Voice,
    targets: Sequence[str],
    *,
    resolve: Callable[[str], Awaitable[Resolution]],
    policy: Policy,
    workers: int,
    on_event: OnEvent,
) -> Receipt:
    """Log `word` about the folder or reference `what`.

    Raises as `held.held` does where the bytes are needed and are not here, or are not what their manifest lists: a
    folder is always hashed, a reference for *rehashed* alone. Raises Refused (NOT-A-SIGNER) where not enough of a
    member's keys are here. Else as `catalogue.resolve` and `publish_folder` do.
    """
    if not voice.whole:
        why = f"{voice.keys.threshold} of its keys sign together, and {len(voice.signers)} are here"
        raise Refused("not enough keys", why=why, hint="comity keys show", code="NOT-A-SIGNER")
    artifact, title = await _meant(session, what, word.statement, resolve, policy, workers, on_event)
    document = SideObject.of(word.document) if word.document is not None else None
    said = Vouched(Author("identity", voice.identity), artifact, word.statement, word.text, document)
    entry = await asyncio.to_thread(sign_vouched, said, *voice.signers)
    return await publish_word(session, memory, title, entry, voice.lines, word.document, targets, on_event=on_event)


async def _meant(
    session: Session,
    what: Path | str,
    statement: str,
    resolve: Callable[[str], Awaitable[Resolution]],
    policy: Policy,
    workers: int,
    on_event: OnEvent,
) -> tuple[Digest, str]:
    """The artifact, and what to call it. Somebody has to know it: a word about unknown bytes is of no use."""
    if isinstance(what, Path) or Path(what).is_dir():
        here = await _hashed(what, workers, on_event)
        await gather(session, here.artifact, policy)
        return here.artifact, here.title
    resolution = await resolve(what)
    if statement == REHASHED:
        here = await _hashed(f"sha256:{resolution.artifact}", workers, on_event)
        assert here.artifact == resolution.artifact
    return resolution.artifact, resolution.title


async def _hashed(what: Path | str, workers: int, on_event: OnEvent) -> Held:
    told = str(what)
    return await asyncio.to_thread(held, what, workers=workers, on_hashed=lambda count: on_event(Progress(told, count)))
