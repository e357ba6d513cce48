"""By which name a statement about an artifact is shown: that of its author, however many others publish the bytes."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attackers.forging import Identity, Release
from comity.gateway.console.state import MAX_VERSIONS, StateReader
from comity.ledger.ledger import Ledger
from comity.rules.precedence import Precedence
from comity.trust.encoding import Digest, sha256
from comity.trust.statement import parse_entry
from support.logs import LogKeys

LOG = LogKeys.generate("node.example/log")
OWNER, MEMBER, ADVISER = (Identity.made(name) for name in ("owner", "member", "adviser"))


@pytest.mark.parametrize(
    ("by", "name"),
    [
        (OWNER, "owner/model@v1, v2"),
        (MEMBER, "member/model@v1"),
        (ADVISER, "member/model@v1"),
    ],
)
def test_many_who_publish_the_same_bytes_displace_no_name_of_the_author(
    tmp_path: Path, by: Identity, name: str
) -> None:
    release = Release(b"weights")
    with closing(Ledger.open(tmp_path, lambda: 1_000)) as ledger:
        ledger.logs.create(LOG.origin, LOG.vkey, own=True)
        strangers = [Identity.made(f"stranger {number}") for number in range(2 * MAX_VERSIONS)]
        lines = [MEMBER.publish("member/model@v1", release)]
        lines += [each.publish(f"junk/{number}@v1", release) for number, each in enumerate(strangers)]
        lines += [OWNER.publish(f"owner/model@{version}", release) for version in ("v1", "v2")]
        ledger.logs.append(LOG.vkey, lines)
        membership = SimpleNamespace(precedence=Precedence(members=frozenset({Digest(MEMBER.id)})))
        home: Any = SimpleNamespace(
            ledger=SimpleNamespace(tables=ledger), pools=None, membership=membership, clock=lambda: 1_000.0
        )
        unused: Any = None
        reader = StateReader(home, unused, unused, unused)
        entry = parse_entry(by.advise(sha256(release.manifest), "it has a fault"))
        assert reader.subject(entry)[0] == name
