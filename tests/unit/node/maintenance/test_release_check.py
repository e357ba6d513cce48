"""`comity doctor` about the release that runs: only the publisher whom the charter names warns."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from comity.node.maintenance.home_checks import Diagnosis, ExaminedNode
from comity.node.maintenance.release_check import check_release, release_findings
from comity.rules.signing import sign_content
from comity.trust.encoding import Digest
from comity.trust.names import Name
from comity.trust.statement import Author, Entry, SideObject
from comity.trust.statements import Advisory, Licence, Published
from support.fakes import FakeFederation, release
from support.world import Identity, identity, seat
from support.world import found as founded
from support.world import node as member_node

OWNER, OTHER = identity("Comity maintainers", "CH"), identity("Somebody", "KR")
VERSION = "0.1.0"


def published(by: Identity = OWNER, version: str = VERSION, name: str = "comity/comity") -> Entry:
    manifest, pieces = SideObject.of(f"{by.id}{version}".encode()), SideObject.of(b"pieces")
    return sign_content(
        Published(by.id, Name.parse(f"{name}@{version}"), manifest.digest, manifest, pieces, Licence("Apache-2.0")),
        by.signer,
    )


def advisory(about: Entry, by: Identity = OWNER, kind: str = "vulnerability", severity: str = "high") -> Entry:
    said = Advisory(Author("identity", by.id), about.statement.subject, kind, severity, "a way in")
    return sign_content(said, by.signer)


def found(*entries: Entry, bound: Digest | None = OWNER.id) -> list[tuple[str, str]]:
    return [(each.level, each.text) for each in release_findings(entries, VERSION, bound)]


def test_a_warning_of_its_publisher_on_the_running_release_is_told_with_the_next_step() -> None:
    running = published()
    (told,) = release_findings([running, advisory(running)], VERSION, OWNER.id)
    assert told.level == "warn" and told.text.endswith("vulnerability (high): a way in")
    assert told.fix.startswith("comity upgrade fetch")
    assert [level for level, _ in found(running, advisory(running, kind="yank", severity="info"))] == ["warn"]


def test_a_release_whose_name_is_written_in_another_case_is_that_which_runs() -> None:
    running = published(name="Comity/Comity")
    assert [level for level, _ in found(running, advisory(running))] == ["warn"]


def test_a_release_without_a_warning_is_well() -> None:
    running, newer = published(), published(version="0.2.0")
    assert [level for level, _ in found(running, advisory(newer), advisory(running, severity="info"))] == ["ok"]
    assert "comity/comity@0.2.0 is published" in found(running, newer)[1][1]
    assert len(found(running, published(version="0.0.9"))) == 1


def test_a_warning_of_another_counts_for_nothing_and_is_shown() -> None:
    running = published()
    levels = [level for level, _ in found(running, advisory(running, OTHER))]
    assert levels == ["unknown", "ok"]


def test_a_release_of_another_under_the_name_is_not_that_which_runs() -> None:
    false = published(OTHER)
    (told,) = found(false, advisory(false, OTHER))
    assert told[0] == "unknown" and "is not known" in told[1]


def test_where_the_charter_names_nobody_no_warning_counts() -> None:
    false = published(OTHER)
    levels = [level for level, _ in found(false, advisory(false, OTHER), bound=None)]
    assert levels == ["unknown", "unknown"]


def test_a_release_that_nobody_published_is_not_known() -> None:
    for entries in ((), (published(version="0.2.0"),), (published(name="comity/other"),)):
        ((level, text),) = found(*entries)
        assert level == "unknown" and "is not known" in text


def asked(socket: Path, namespaces: dict[str, Digest], status: object) -> list[Diagnosis]:
    config = SimpleNamespace(listen=SimpleNamespace(operator=socket))
    files = SimpleNamespace(federation=founded([member_node(seat("CH"))], namespaces))
    return list(
        check_release(
            ExaminedNode(socket.parent, cast(Any, config), cast(Any, files), cast(Any, status), cast(Any, None))
        )
    )


def test_the_running_node_is_asked_at_its_operator_socket(tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("s")
    status = SimpleNamespace(software=f"comity {VERSION}")
    with FakeFederation().running(folder) as federation:
        node = federation.nodes[0]
        socket = federation.sockets[node.node.record.name]
        (unknown,) = asked(socket, {"comity": federation.publisher.id}, status)
        assert unknown.level == "unknown"
        made = release(
            folder / "r", {"README.md": b"# Comity\n"}, by=federation.publisher, name=f"comity/comity@{VERSION}"
        )
        federation.publish(made)
        warning = advisory(made.entry, federation.publisher)
        node._append(warning.line)
        for namespace in ("comity", "Comity"):
            (told,) = asked(socket, {namespace: federation.publisher.id}, status)
            assert told.level == "warn", namespace
    (stopped,) = asked(folder / "no.sock", {}, None)
    assert (stopped.level, stopped.text[:21]) == ("unknown", "the node does not run")
