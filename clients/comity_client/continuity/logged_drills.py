"""Logs a signed drill report, and waits for a proof that members cosigned, which shows by when the report was there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from comity.rules.continuity.drill_report import LEAST_COSIGNERS, DrillReport
from comity.trust.encoding import sha256
from comity.trust.errors import ComityError
from comity.trust.statement import Entry
from comity.trust.tlog.proof import TlogProof

from comity_client.client import Client
from comity_client.continuity.drill_files import cosigned_note
from comity_client.events import OnEvent
from comity_client.evidence.logs import prove_line
from comity_client.publish import LogTargets, publish_statement
from comity_client.publishers import Publisher
from comity_client.session import Session

COSIGN_SECONDS: Final = 30.0
"""Seconds for which cosignatures are waited; the next round of the other nodes brings them."""
POLL_SECONDS: Final = 0.5


def log_drill(
    api: Client, report: DrillReport, entry: Entry, publisher: Publisher, nodes: Sequence[str], on_event: OnEvent
) -> bytes:
    """Log the statement with the report at `nodes`. Returns the proof that most members had cosigned when enough had,
    or after some seconds. Raises as `publish_statement` does."""

    async def work(targets: LogTargets) -> bytes:
        data = report.encode()
        await publish_statement(targets, report.kit, entry, publisher.lines, {sha256(data): data})
        ends = asyncio.get_running_loop().time() + COSIGN_SECONDS
        while True:
            proof, cosigners = await _best_proof(targets.session, entry)
            if cosigners >= LEAST_COSIGNERS or asyncio.get_running_loop().time() > ends:
                return proof
            await asyncio.sleep(POLL_SECONDS)

    return api.log(work, nodes, on_event)


async def _best_proof(session: Session, entry: Entry) -> tuple[bytes, int]:
    """The proof with most members' cosignatures, and how many they are; none before a node gives one."""
    records, best = [node.record for node in session.nodes], (b"", -1)
    try:
        proven = await prove_line(session, entry.digest)
    except ComityError:
        return best  # no node proves it yet
    for each in proven:
        found = cosigned_note(TlogProof.parse(each.proof).checkpoint, records)
        if found is not None and len(found.times) > best[1]:
            best = each.proof, len(found.times)
    return best
