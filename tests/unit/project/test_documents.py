"""Documents that print a dataclass as it is: programs read every field of it, so this test lists the fields, and fails
when one is added, removed or renamed.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from comity.trust.encoding import Digest
from comity.trust.upstream import Observed
from comity_cli.commands import import_, log, search, whereis
from comity_cli.commands.import_ import ImportDocument
from comity_cli.commands.publish import show_receipt
from comity_cli.document import members
from comity_cli.main import command
from comity_cli.output import Output
from comity_client.evidence.artifact_info import Replica
from comity_client.evidence.logs import LogCheck, ProvenIn
from comity_client.evidence.search import FoundArtifacts
from comity_client.importing import Imported, UpstreamState
from comity_client.publish import Logged, PublishReceipt
from comity_client.trust_store import CharterChange
from support.case import nodes
from support.observations import observation

X, Y = Digest("5" * 64), Digest("7" * 64)


def printed(monkeypatch: pytest.MonkeyPatch, module: Any, *arguments: str, asks: str = "client", **answers: Any) -> Any:
    """The output of `comity ARGUMENTS --json` if the client's calls return `answers`; `asks` names the client in
    `module`.
    """
    api = SimpleNamespace(**{name: lambda *_, answer=answer, **__: answer for name, answer in answers.items()})
    monkeypatch.setattr(module, asks, lambda: api)
    ran = CliRunner().invoke(command, [*arguments, "--json"], obj=Output())
    assert ran.exit_code == 0, ran.output
    return json.loads(ran.stdout)


def test_copies_say_whether_they_are_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Replica("node-ch", "CH", "CH", claimed=True, held=2, files=3)
    assert printed(monkeypatch, whereis, "whereis", "a/b", asks="user", whereis=[told]) == {
        "schema": "comity.dev/replicas/v1",
        "replicas": [
            {"node": "node-ch", "member": "CH", "jurisdiction": "CH", "claimed": True, "held": 2, "files": 3, "why": "",
             "withdrawn": "", "audits": [], "place": None, "state": "", "known_since": None,
             "complete": False, "reach": []}
        ],
    }  # fmt: skip


def test_search_results_say_whether_they_are_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    told = FoundArtifacts("a/b@v1", X, Y, "Institute", "mit", proven=True)
    (found,) = printed(monkeypatch, search, "search", "b", search=[told])["found"]
    assert found == {
        "name": "a/b@v1", "artifact": X, "publisher": Y, "label": "Institute", "licence": "mit", "proven": True,
        "near": False, "withdrawn": False, "known_since": None, "kind": None,
    }  # fmt: skip


def test_proofs_and_roots_are_text(monkeypatch: pytest.MonkeyPatch) -> None:
    told = ProvenIn("node-ch/log", 3, 9, ("node-es/cosigner",), b"c2sp.org/tlog-proof@v1\n")
    assert printed(monkeypatch, log, "log", "proof", X, log_proof=[told]) == {
        "schema": "comity.dev/proofs/v1",
        "line": X,
        "proofs": [
            {"origin": "node-ch/log", "index": 3, "size": 9, "cosigners": ["node-es/cosigner"],
             "proof": "c2sp.org/tlog-proof@v1\n"}
        ],
    }  # fmt: skip
    whole = LogCheck("node-ch/log", 9, bytes(32), (), "node-es", continues=4, seen=4)
    assert printed(monkeypatch, log, "log", "check", "node-ch/log", log_check=whole) == {
        "schema": "comity.dev/log-check/v1", "origin": "node-ch/log", "size": 9, "root": "0" * 64, "cosigners": [],
        "node": "node-es", "continues": 4, "seen": 4,
    }  # fmt: skip


def test_a_receipt_lists_its_logs(capsys: pytest.CaptureFixture[str]) -> None:
    where = Logged("node-ch", "node-ch/log", 3, 9, Y, ("node-es/cosigner",), "node-ch/log+id+key")
    show_receipt(Output(as_json=True), PublishReceipt("a/b@v1", X, (where,), 1, 2, (".git",)), ())
    assert json.loads(capsys.readouterr().out) == {
        "schema": "comity.dev/receipt/v1", "title": "a/b@v1", "artifact": X, "files": 1, "bytes": 2,
        "ignored": [".git"], "model_key": None, "uncovered": [], "image": None, "kind": None,
        "logged": [{"node": "node-ch", "origin": "node-ch/log", "index": 3, "size": 9, "line": Y,
                    "cosigners": ["node-es/cosigner"], "log": "node-ch/log+id+key"}],
    }  # fmt: skip


def test_an_import_says_what_was_obtained_and_where_it_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    (publisher,) = nodes(1)
    observed = Observed.parse(observation(publisher, X).statement)
    where = Logged("node-ch", "node-ch/log", 3, 9, Y, ())
    Output(as_json=True).answer(ImportDocument.of(Imported(observed, where, before=True)))
    printed_import = json.loads(capsys.readouterr().out)
    assert printed_import.pop("matched") == observed.matched.to_json()
    assert printed_import == {
        "schema": "comity.dev/import/v1", "name": observed.name, "artifact": X, "endpoint": observed.upstream.endpoint,
        "requested": observed.upstream.requested, "obtained": observed.obtained.how,
        "unchecked": list(observed.unchecked), "licence": "", "licence_is_listed": None, "gated": "", "before": True,
        "logged": {"node": "node-ch", "origin": "node-ch/log", "index": 3},
    }  # fmt: skip


def test_an_upstream_that_was_asked_again_has_a_state(monkeypatch: pytest.MonkeyPatch) -> None:
    found = UpstreamState("hf:org/name@1", "gone", lost="commit", index=4)
    monkeypatch.setattr("comity_client.own_node.own_socket", lambda _: "operator.sock")
    assert printed(monkeypatch, import_, "import", "hf:org/name@1", "--recheck", check_upstream=found) == {
        "schema": "comity.dev/upstream-check/v1", "name": "hf:org/name@1", "state": "gone", "successor": "",
        "lost": "commit",
    }  # fmt: skip


def test_changes_of_a_charter_have_a_before_and_an_after() -> None:
    changed = {"what": "policy", "name": "min_copies", "before": "3", "after": "4"}
    assert members(CharterChange("policy", "min_copies", "3", "4")) == changed
