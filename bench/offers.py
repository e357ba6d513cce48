"""Compute offers: how long a node takes to find one among thousands, and what checking a chain costs by its length.

    python bench/offers.py [--offers 10000] [--grants 100000]

Chains of growing length are checked by themselves, under hybrid keys, as a client does: every line parsed, every
signature verified, the book kept; the exponent is that of the best fit of seconds to records^x. Then one node's log
with that many offers and grants, in a real ledger, is read into the node's books and searched, with the lines read from
its database. Its lines bear made-up signatures, and none is looked at: no search does. Seconds are CPU of all threads.
Writes results/offers.json.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import resource
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import harness
from comity.content.secrets import read_signer
from comity.ledger.ledger import Ledger
from comity.node.config import NodeConfig
from comity.node.home import OpenedHome
from comity.node.offers.index import OfferIndex
from comity.node.offers.provider import OfferController
from comity.node.operator_acts import OperatorActs
from comity.node.replication.setup import ReplicationTasks
from comity.node.services.offer import OfferServicer
from comity.node.supervisor import Supervisor
from comity.node.uploads import Uploads
from comity.rules.offers.chain import ChainState
from comity.rules.offers.log_reader import OfferLogReader
from comity.rules.offers.offer import (
    Eligibility,
    Engine,
    Granularity,
    Offer,
    OfferLocation,
    Slice,
    SliceAllocation,
    Terms,
    Window,
)
from comity.rules.offers.records import (
    Acceptance,
    Accepted,
    ChainLink,
    Grant,
    GrantRequest,
    Offered,
    PartyStatement,
    Record,
)
from comity.rules.signing import statement_of
from comity.trust.encoding import Digest
from comity.trust.identity import Inception, KeySet
from comity.trust.keys import HybridSigner, Signer, VerifyingKey
from comity.trust.statement import Author, Entry, parse_entry, sign_statement
from comity.wire.offer import GrantQuery, OfferQuery
from comity_client.node_home import ListenSettings, NewNode, init_node

HOUR = 3600
START = 1_800_000_000
HOURS = 2000
MODELS = ("H100", "A100", "MI300X", "L40S", "H200")
COUNTRIES = ("CH", "ES", "KR", "SG", "BR")
LENGTHS = (125, 250, 500, 1000, 2000)
ROUNDS = 9
HERE, HERE_TOO = "127.0.0.1:9", "127.0.0.1:10"  # nothing listens


class Unsigned:
    """Signs nothing, fast."""

    def __init__(self, public: VerifyingKey) -> None:
        self.public = public

    def sign(self, message: bytes) -> tuple[tuple[Digest, bytes], ...]:
        return ((self.public.halves[0].id, bytes(64)),)


class Books(OfferIndex):
    """A node's chain states, from lines without signature checks."""

    def _genuine(self, log: str, entry: Entry) -> bool:
        return True


class Writer:
    """Lines of one provider, linked by its chain states."""

    def __init__(self, log: str, provider: Digest, online: Signer, holder: Signer) -> None:
        self.log, self.provider, self.online, self.holder = log, provider, online, holder
        self.node = Author("node", online.public.id)
        self.inception = Inception("publisher", KeySet((self.holder.public,), 1), (), "", "", "grantee")

    def chain(self, number: int, grants: int, *, accepted: bool = False) -> Iterator[Entry]:
        """An offer with its requests and grants, as many as are allowed."""
        offer = self.offer(number)
        state = ChainState(offer.id)
        yield self.record(state, Offered(_link(offer.id), offer))
        for nth in range(grants):
            hour = nth % (HOURS - 1)
            wanted = (SliceAllocation("gpu", 1, START + hour * HOUR, START + (hour + 1) * HOUR, 1),)
            asked = self.say(GrantRequest(self.inception.id, offer.id, wanted, nth))
            yield asked
            grant = Grant(_link(offer.id), asked.digest, self.inception.id, wanted, START + 10**8)
            granted = self.record(state, grant)
            yield granted
            if accepted:
                said = self.say(Acceptance(self.inception.id, offer.id, granted.digest))
                yield said
                yield self.record(state, Accepted(_link(offer.id), granted.digest, said.digest))

    def offer(self, number: int) -> Offer:
        part = Slice("gpu", "NVIDIA", MODELS[number % 5], 8, 80, "NVLink", 64, 96, 1024, 8000, "", 100_000)
        where = COUNTRIES[number // 5 % 5]
        return Offer(
            self.provider,
            self.log,
            f"Offer {number}",
            "accelerator-hours",
            (part,),
            Window(START, START + HOURS * HOUR),
            Granularity(),
            OfferLocation(where, "Institute", "", (where,)),
            Eligibility("anyone"),
            Terms(),
            Engine("slurm"),
            86_400,
        )

    def say(self, said: PartyStatement) -> Entry:
        return sign_statement(statement_of(said), self.holder)

    def record(self, state: ChainState, record: Record) -> Entry:
        linked = state.link(record, START)
        entry = sign_statement(statement_of(linked, self.node), self.online)
        state.append(linked, entry.envelope, entry.line)
        return entry


def _link(chain: Digest) -> ChainLink:
    return ChainLink(chain, 0, None, 0, ())


def check(lines: list[bytes], writer: Writer) -> OfferLogReader:
    """The check of a chain by a reader who has its lines: parsed, every signature verified, the chain state
    computed.
    """
    log = OfferLogReader(writer.log)
    for index, line in enumerate(lines):
        entry = parse_entry(line)
        by_node = entry.statement.by == writer.node
        signer = writer.online if by_node else writer.holder
        log.read(index, entry, entry.envelope.verified_by(signer.public))
    (chain,) = log.chains.values()
    assert chain.fault is None
    return log


def chains(writer: Writer) -> dict[str, object]:
    rows = []
    for length in LENGTHS:
        lines = [entry.line for entry in writer.chain(length, length // 2, accepted=True)]
        taken = []
        for _ in range(2):
            began = time.process_time()
            log = check(lines, writer)
            taken.append(time.process_time() - began)
        (chain,) = log.chains.values()
        rows.append({"records": chain.state.seq + 1, "lines": len(lines), "seconds": round(min(taken), 3)})
        print(f"  chain of {chain.state.seq + 1} records: {min(taken):.2f} s")
    exponent = _slope([(math.log(row["records"]), math.log(row["seconds"])) for row in rows])
    per_record = 1000 * rows[-1]["seconds"] / rows[-1]["records"]
    print(f"  seconds grow with records^{exponent:.2f}; {per_record:.2f} ms a record and the line that it answers")
    return {"chains": rows, "exponent": round(exponent, 3), "ms_per_record": round(per_record, 3)}


def _slope(points: list[tuple[float, float]]) -> float:
    xs, ys = zip(*points, strict=True)
    mean_x, mean_y = statistics.mean(xs), statistics.mean(ys)
    above = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return float(above / sum((x - mean_x) ** 2 for x in xs))


def fill(config: NodeConfig, writer: Writer, origin: str, offers: int, grants: int) -> int:
    """Put everything into the log of a stopped node. Returns how many entries."""
    ledger = Ledger.open(config.storage.ledger.parent, time.time)
    try:
        ledger.logs.create(origin, writer.log, own=True)
        batch: list[bytes] = []
        count = 0
        for number in range(offers):
            batch += [entry.line for entry in writer.chain(number, grants // offers)]
            if len(batch) > 4000 or number == offers - 1:
                ledger.logs.append(origin, batch)
                count, batch = count + len(batch), []
        return count
    finally:
        ledger.close()


async def search(config: NodeConfig, offers: int, grants: int) -> dict[str, object]:
    node = OpenedHome.open(config, time.time)
    try:
        supervisor = Supervisor(node.metrics)
        uploads = Uploads(node.ledger, node.store, node.pools, node.metrics)
        controller = OfferController(node, ReplicationTasks(node, uploads, supervisor).own_log, supervisor)
        controller.index = Books(node.ledger, node.pools, node.membership, config.limits.offer_lines_per_origin)
        began, behind = time.process_time(), True
        while behind:
            behind = await controller.index.read()
        read = time.process_time() - began
        service = OfferServicer(node.ledger, controller, OperatorActs(node.audit_log, node.pools))
        found = [chain for _, chain in controller.index.chains()]
        assert not controller.index.take_new_faults()
        assert len(found) == offers
        assert sum(len(chain.state.grants) for chain in found) == grants // offers * offers
        asked = found[len(found) // 2].state.offer.id
        queries = {
            "accelerator, country, hours; 20 shown": OfferQuery("h100", 500, ("CH",), limit=20),
            "nothing matches": OfferQuery("B200"),
            "everything; 1,000 shown": OfferQuery(),
        }
        rows = {}
        for name, query in queries.items():
            rows[name] = await _timed(partial(_found, service, query))
        rows["grants of one offer"] = await _timed(lambda: _all(service.grants(GrantQuery(offer=asked))))
        rows["one offer with its lines"] = await _timed(lambda: _all(service.offer(asked)))
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(f"  read and judged in {read:.0f} s; {rss} MiB at most")
        harness.show(rows)
        return {"read_seconds": round(read, 1), "peak_rss_mib": rss, "searches_ms": rows}
    finally:
        node.close()


async def _found(service: OfferServicer, query: OfferQuery) -> int:
    return await _all(service.search(query))


async def _all(items: AsyncIterator[object]) -> int:
    return len([item async for item in items])


async def _timed(call: Callable[[], Awaitable[int]]) -> dict[str, float]:
    taken = []
    for _ in range(ROUNDS):
        began = time.process_time()
        count = await call()
        taken.append(1000 * (time.process_time() - began))
    return {"items": count, "median_ms": round(statistics.median(taken), 1), "max_ms": round(max(taken), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--offers", type=int, default=10_000)
    parser.add_argument("--grants", type=int, default=100_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "node"
        card = init_node(
            home,
            NewNode(
                node_name="node.example",
                jurisdiction="CH",
                org="Bench",
                mutual=HERE,
                open_=HERE_TOO,
                listeners=ListenSettings(http=""),
            ),
        )
        config = NodeConfig.load(home / "node.toml", environ={})
        online, holder = read_signer(home / "keys" / "online.pem"), HybridSigner.generate()
        named = str(card.record.log), card.inception.id
        print("chains")
        checked = chains(Writer(*named, online, holder))
        print(f"{arguments.offers} offers, {arguments.grants} grants")
        writer = Writer(*named, Unsigned(online.public), Unsigned(holder.public))
        entries = fill(config, writer, card.record.origin, arguments.offers, arguments.grants)
        searched = asyncio.run(search(config, arguments.offers, arguments.grants))
    harness.write("offers", offers=arguments.offers, grants=arguments.grants, entries=entries, **checked, **searched)


if __name__ == "__main__":
    main()
