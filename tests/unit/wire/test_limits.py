"""Every limit of a node is in its status with its use, warns from 80 % on, and is reported when it is reached."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from comity.ledger.ledger import Ledger
from comity.node.capacity import MAX_WARNINGS, CountedParts, Limit, StoredUse, measure, warnings
from comity.node.metrics import Metrics
from comity.node.uploads import MAX_PENDING
from support.logs import LogKeys, statement_lines

FAR = LogKeys.generate("far.example/log")
OWN = LogKeys.generate("own.example/log")

KINDS = {
    "members": "node",
    "nodes": "node",
    "uploads": "node",
    "submissions": "node",
    "wanted copies": "node",
    "side objects": "node",
    "offer lines": "node",
    "audit results": "node",
    "log entries": "ledger",
    "log bytes": "ledger",
    "outside entries": "ledger",
    "outside bytes": "ledger",
    "join requests": "ledger",
    "open files": "ledger",
    "ledger disk": "ledger",
}


def limit(used: int, most: int = 100, kind: str = "uploads") -> Limit:
    return Limit(kind, f"{kind} of somebody", used, most, "do something")


@pytest.mark.parametrize(("used", "said"), [(79, None), (80, "is used to 80 %"), (99, "is used to 99 %"),
                                            (100, "is reached"), (250, "is reached")])  # fmt: skip
def test_a_limit_warns_from_eighty_percent_on_with_the_next_step(used: int, said: str | None) -> None:
    found = list(warnings([limit(used), limit(1)]))
    assert len(found) == (said is not None)
    assert all(said and said in line and "do something" in line and str(used) in line for line in found)


def test_many_full_limits_are_counted_and_the_fullest_are_first() -> None:
    lines = list(warnings(limit(80 + number) for number in range(MAX_WARNINGS + 5)))
    assert len(lines) == MAX_WARNINGS + 1
    assert "100 of 100" in lines[0]
    assert lines[-1].startswith("5 more limits")


def test_a_limit_of_zero_is_reached() -> None:
    assert limit(0, 0).share == 1.0


def test_the_metric_has_the_fullest_limit_of_each_kind() -> None:
    metrics = Metrics()
    measure(metrics, [limit(10), limit(90), limit(30), limit(5, kind="members")])
    shares = [
        metrics.registry.get_sample_value("comity_limit_share", {"limit": kind}) for kind in ("uploads", "members")
    ]
    assert shares == [0.9, 0.05]


def counted(members: int) -> CountedParts:
    def some(**values: object) -> Any:
        return cast(Any, SimpleNamespace(**values))

    seats = [some(name=f"member {number}") for number in range(members)]
    peers = [some(member=seats[0]), some(member=seats[0]), some(member=seats[1])]

    class Pending(SimpleNamespace):
        def __len__(self) -> int:
            return MAX_PENDING

    return CountedParts(
        some(body=some(members=seats), peers=peers),
        cast(Any, Pending(bytes=5, max_bytes=10)),
        some(queue_use=some(used=3, most=4)),
        some(most_missing=7),
        some(line_use=(8, 9)),
        some(most_results=2),
    )


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[StoredUse]:
    ledger = Ledger.open(tmp_path, lambda: 1_000)
    lines = statement_lines(0, 3)
    ledger.logs.create(OWN.origin, OWN.vkey, own=True)
    ledger.logs.append(OWN.origin, lines)
    ledger.logs.create(FAR.origin, FAR.vkey)
    ledger.logs.advance(FAR.origin, 0, lines, FAR.note_over(lines))
    limits = SimpleNamespace(entries_per_origin=4, bytes_per_origin=1 << 20)
    storage = SimpleNamespace(ledger=tmp_path / "ledger.sqlite", blobs=tmp_path, s3=None, reserve_bytes=0)
    yield StoredUse(cast(Any, SimpleNamespace(limits=limits, storage=storage)), ledger)
    ledger.close()


def test_every_limit_of_a_node_is_listed_with_its_use_and_a_next_step(stored: StoredUse) -> None:
    """A new limit must be added to this list, and so to the status."""
    found = {"node": list(counted(3).limits()), "ledger": list(stored.limits())}
    assert {item.kind: where for where, items in found.items() for item in items} == KINDS
    assert all(item.next and item.name for items in found.values() for item in items)


def test_the_use_of_limits_is_counted(stored: StoredUse) -> None:
    used = {item.name: (item.used, item.most) for item in (*counted(3).limits(), *stored.limits())}
    assert used["members of the charter"][0] == 3
    assert used["nodes of member 0"][0] == 2
    assert used["pending submissions"] == (MAX_PENDING, MAX_PENDING)
    assert used["wanted copies of one member"] == (3, 4)
    assert used["lines about offers of one log"] == (8, 9)
    assert used[f"entries of {FAR.origin}"] == used[f"entries of {OWN.origin}"] == (3, 4)
    assert used[f"bytes of {FAR.origin}"][0] > 3 * 1024
    assert used["entries of outsiders"] == (0, 2)
