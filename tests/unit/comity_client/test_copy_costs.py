"""What copies would need: files that are here need nothing, shared files count once, rules are charged whole sizes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attackers.forging import Identity, Release
from comity.rules.mirror_rules import MirrorClaim, parse_mirror_rules
from comity.trust.artifact import Manifest
from comity.trust.encoding import Digest, Json, canonical, sha256
from comity.trust.errors import NotFound
from comity.wire.artifact import SearchPage
from comity.wire.blob import BlobStat
from comity.wire.messages import LocatedEntry
from comity.wire.node_status import NodeStatus, Quota, StoreStatus, UsageStatus
from comity_cli.commands import mirror_cost as command_module
from comity_cli.commands.mirror_cost import command
from comity_client import copy_costs as module
from comity_client import own_node
from comity_client.copy_costs import (
    CopyCandidate,
    CopyEstimate,
    candidate_of,
    candidates,
    in_namespaces,
    measured_rate,
    newly_by,
)
from support.run_command import printed, run, said

RULES = parse_mirror_rules(
    b"""
default = "skip"
quota_bytes = 1000
[[rule]]
name = "small"
do = "copy"
max_bytes = 50
quota_bytes = 100
[[rule]]
name = "later"
do = "copy"
repositories = ["lab/*"]
min_age_hours = 5
"""
)


def manifest(**files: int) -> bytes:
    """Each file has its name as its bytes' digest."""
    listed: list[Json] = [
        {"path": name, "sha256": sha256(name.encode()), "size": size} for name, size in sorted(files.items())
    ]
    return canonical({"files": listed, "schema": "comity/manifest/v1", "size": sum(files.values())})


class Node:
    """What a node has: manifests and blobs by digest, and the publications that it lists."""

    def __init__(self, *manifests: bytes, have: Sequence[str] = (), lines: Sequence[bytes] = ()) -> None:
        self.data = {sha256(each): each for each in manifests}
        self.have = {sha256(name.encode()) for name in have}
        self.lines = list(lines)
        self.asked: list[str] = []

    async def objects(self, digests: Sequence[Digest]) -> AsyncGenerator[tuple[Digest, bytes], None]:
        for digest in digests[::2]:  # the others are too large for this call
            if digest in self.data:
                yield digest, self.data[digest]

    async def object(self, digest: Digest) -> bytes:
        if digest not in self.data:
            raise NotFound("no such object")
        return self.data[digest]

    async def stat(self, digests: Sequence[Digest]) -> tuple[BlobStat, ...]:
        return tuple(BlobStat(digest, digest in self.have, 0) for digest in digests)

    async def search(self, query: str, cursor: str = "") -> SearchPage:
        self.asked.append(query)
        at = int(cursor or 0)
        more = str(at + 1) if at + 1 < len(self.lines) else ""
        return SearchPage(tuple(LocatedEntry("log", at, line) for line in self.lines[at : at + 1]), more)


def candidate(data: bytes, name: str = "lab/x@v1") -> CopyCandidate:
    digest = sha256(data)
    return CopyCandidate(digest, name, digest, MirrorClaim(name.partition("@")[0], "v1", Digest("a" * 64), "MIT"))


def estimate(node: Any, select: Any) -> CopyEstimate:
    return CopyEstimate(node, select)


FIRST, SECOND, HELD = manifest(shared=100, one=10), manifest(shared=100, two=7), manifest(here=3)


async def test_files_count_once_and_what_is_here_needs_nothing() -> None:
    node = Node(FIRST, SECOND, HELD, have=("here", "one"))
    found = estimate(node, in_namespaces(["lab"]))
    other = candidate(manifest(elsewhere=1), "other/x@v1")
    await found.add([*map(candidate, (FIRST, SECOND, HELD, FIRST)), other, candidate(b"lost")])
    costs = found.costs
    assert (costs.artifacts, costs.held, costs.size, costs.needed, costs.unknown) == (2, 1, 217, 107, 1)
    assert [(each.needed, each.size) for each in costs.largest] == [(100, 110), (7, 107)]
    assert not costs.at_most
    await found.add([candidate(b"lost")])
    assert costs.unknown == 1


async def test_too_many_files_to_tell_apart_give_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILES", 2)
    found = estimate(Node(FIRST, SECOND), in_namespaces(["lab"]))
    await found.add([*map(candidate, (FIRST, SECOND))])
    assert (found.costs.needed, found.costs.at_most) == (117, True)


async def test_rules_select_what_the_present_ones_do_not_and_are_charged_whole_sizes() -> None:
    small, large = manifest(here=40, new=2), manifest(big=5000)
    found = estimate(Node(small, large, have=("here",)), newly_by(RULES, None))
    await found.add([candidate(small, "x/small@v1"), candidate(large, "x/large@v1"), candidate(FIRST)])
    assert {name: (cost.artifacts, cost.charged) for name, cost in found.costs.by_rule.items()} == {"small": (1, 42)}
    assert (found.costs.needed, found.costs.unknown) == (2, 1)
    same = estimate(Node(small, FIRST), newly_by(RULES, RULES))
    await same.add([candidate(small, "x/small@v1"), candidate(FIRST)])
    assert same.costs.artifacts == 0
    later = estimate(Node(FIRST), newly_by(RULES, None))
    await later.add([candidate(FIRST)])
    assert list(later.costs.by_rule) == ["later"]


def test_a_namespace_or_a_repository_is_selected_in_any_case() -> None:
    select = in_namespaces(["Lab", "hf:google/gemma/"])
    names = {"lab/x@v1": True, "LAB/y@v1": True, "labs/x@v1": False, "hf:google/gemma@1": True, "hf:google/t5@1": False}
    for name, expected in names.items():
        decision = select(candidate(b"", name), None)
        assert decision is not None and decision.copy is expected, name


async def test_publications_are_read_page_by_page_and_other_lines_left_out() -> None:
    line = Identity.made("a").publish("lab/x@v1", Release(b"1"))
    node: Any = Node(lines=[line, b"junk", line])
    pages = [page async for page in candidates(node, "lab")]
    assert [[each.name for each in page] for page in pages] == [["lab/x@v1"], [], ["lab/x@v1"]]
    assert node.asked == ["lab"] * 3
    assert candidate_of(LocatedEntry("log", 0, b"junk")) is None


STATUS = NodeStatus(
    "t", "node.example/log", 0, (), (), StoreStatus(1, 1, 1_000, 0), 0, 0, (), (), usage=UsageStatus(99, 1, 1, 500, 50)
)


def test_a_rate_is_measured_only_where_enough_was_copied() -> None:
    assert measured_rate(STATUS) == 10
    for usage in (None, UsageStatus(99, 1, 1, 500, 9), UsageStatus(99, 1, 1, 0, 50)):
        assert measured_rate(replace(STATUS, usage=usage)) is None


@pytest.fixture(name="home")
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "node.toml").write_text("[replication]\nrules = 'mirror.toml'\n")
    (tmp_path / "mirror.toml").write_text('default = "skip"\n')
    (tmp_path / "new.toml").write_text(
        'default = "skip"\nquota_bytes = 900\n[[rule]]\nname = "lab"\ndo = "copy"\nrepositories = ["lab/*"]\n'
        "quota_bytes = 150\n"
    )
    identity = Identity.made("a")
    release = Release(b"x" * 100)
    node = Node(release.manifest, lines=[identity.publish("lab/x@v1", release)])

    def ask(socket: Any, question: Any) -> Any:
        import asyncio

        return asyncio.run(question(node))

    quotas = (Quota("mirror rule 'lab'", 30, 150), Quota("all that is mirrored", 100, 900))
    monkeypatch.setattr(own_node, "own_socket", lambda named: Path("socket"))
    monkeypatch.setattr(own_node, "ask_own_node", ask)
    monkeypatch.setattr(own_node, "operator_status", lambda socket: replace(STATUS, quotas=quotas))
    info = SimpleNamespace(artifact=sha256(release.manifest), current=None, manifest=Manifest.parse(release.manifest))
    monkeypatch.setattr(command_module, "client", lambda: SimpleNamespace(show=lambda reference: info))
    return tmp_path


def test_the_command_says_bytes_time_and_what_is_left(home: Path) -> None:
    text = said(command, "--rules", home / "new.toml", "--node", home)
    assert "1 artifact of 100 B, of which 100 B are not here" in text
    assert "10 B a second, as this node measured while it copied: 10 s" in text
    assert "rule 'lab'" in text and "20 B (16 %)" in text and "700 B (87 %)" in text and "900 B (90 %)" in text
    document = printed(command, "--rules", home / "new.toml", "--node", home)
    assert (document["seconds"], document["rate_from"], document["fits"]) == (10, "measured", True)
    (rule,) = document["rules"]
    assert (rule["charged_bytes"], rule["quota_bytes"], rule["used_bytes"]) == (100, 150, 30)
    assert printed(command, "--namespace", "lab", "--node", home, "--rate", "50")["seconds"] == 2
    assert printed(command, "lab/x@v1", "--node", home)["needed_bytes"] == 100
    assert printed(command, "--namespace", "other", "--node", home)["artifacts"] == 0


def test_too_little_room_is_status_8_and_what_is_not_known_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = replace(STATUS, store=StoreStatus(1, 1, 99, 0), usage=None)
    monkeypatch.setattr(own_node, "operator_status", lambda socket: full)
    result = run(command, "--namespace", "lab", "--node", home)
    assert (result.exit_code, "1 B too little" in result.output) == (8, True)
    assert "How long that takes is not known" in result.output
    unknown = replace(full, store=StoreStatus(1, 1, None, 0))
    monkeypatch.setattr(own_node, "operator_status", lambda socket: unknown)
    assert printed(command, "--namespace", "lab", "--node", home)["fits"] is None
    nothing = printed(command, "--namespace", "other", "--node", home)
    assert (nothing["seconds"], nothing["rate_from"]) == (0, "unknown")
    for words in ((), ("lab/x@v1", "--namespace", "lab")):
        assert "name artifacts" in str(run(command, *words, "--node", home).exception)
