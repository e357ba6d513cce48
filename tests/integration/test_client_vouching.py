"""Advisories, holds, compromised keys, rival names and active files by the public API, with fake nodes behind the real
wire.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import AsyncGenerator, Collection
from dataclasses import replace
from pathlib import Path

import pytest
from comity.addons.attestations.envelopes import ForeignEnvelope
from comity.addons.attestations.predicates import ForeignStatement
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound, PolicyNotMet, Untrusted
from comity.trust.eval_result import SuiteResult
from comity.trust.policy import SafetyRule
from comity.trust.statement import parse_entry
from comity.wire.messages import LocatedEntry
from comity_cli.main import main
from comity_client.client import Client
from comity_client.publishers import Publisher
from support import weights
from support.fakes import FakeNode

FILES = {
    "LICENSE": b"Apache License\n",
    "README.md": b"# Tiny\n",
    "model.safetensors": weights.safetensors({"a": b"A" * 4096}),
}
NAME = "lab/tiny@v1"


@pytest.fixture
def published(tmp_path: Path, client: Client, publisher: Publisher) -> Path:
    """The folder with what is published as NAME, with an evaluation beside it."""
    source = write(tmp_path / "source")
    (tmp_path / "results.json").write_bytes(b"{}")
    client.publish(
        source, NAME, publisher=publisher, licence="MIT", documents={"evaluation": tmp_path / "results.json"}
    )
    return source


def write(folder: Path, more: dict[str, bytes] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    for path, data in (FILES | (more or {})).items():
        (folder / path).write_bytes(data)
    return folder


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


def test_a_vouch_travels_with_its_document(tmp_path: Path, client: Client, published: Path) -> None:
    lab = client.new_publisher("Evaluation lab", "ES", "node-es.example/log")
    (tmp_path / "scores").write_bytes(b"good")
    client.vouch(NAME, "evaluated", text="ours", document=tmp_path / "scores", by=lab)
    (vouch,) = client.show(NAME).vouches
    assert (vouch.vouched.kind, vouch.vouched.text, vouch.by.id) == ("evaluated", "ours", lab.id)
    pulled = client.pull(NAME, to=tmp_path / "model")
    facts = [fact for fact in pulled.verdict.row("documents").facts if fact.text.startswith("evaluated")]
    assert [(fact.basis, fact.by[:14]) for fact in facts] == [("claimed", "Evaluation lab")]
    assert facts[0].text.endswith(" present")
    assert client.verify(tmp_path / "model").row("documents").facts == pulled.verdict.row("documents").facts
    demanding = replace(client.policy(), documents=("card", "evaluation"))
    assert client.verify(tmp_path / "model", policy=demanding).row("documents").state == "pass"


def test_an_announced_evaluation_is_shown_as_announced_and_exported(
    tmp_path: Path, client: Client, published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = client.new_publisher("Evaluation lab", "ES", "node-es.example/log")
    toml, criteria = tmp_path / "criteria.toml", tmp_path / "criteria.json"
    assert run("evaluation", "new", "--out", str(toml)) == 0
    sign = ("--sign-as", lab.label)
    assert run("evaluation", "announce", NAME, "--criteria", str(toml), "--out", str(criteria), *sign) == 0
    assert run("evaluation", "announce", NAME, "--criteria", str(toml), "--out", str(criteria), *sign) == 1
    result = ("--criteria", str(criteria), "--value", "refusal_rate=0.97")
    assert run("evaluation", "report", NAME, *result, *sign) == 0
    pulled = client.pull(NAME, to=tmp_path / "model")
    facts = [fact for fact in pulled.verdict.row("documents").facts if fact.text.startswith("evaluation refusals")]
    assert [fact.basis for fact in facts] == ["claimed", "verified here"]
    assert facts[0].text.endswith("refusal_rate >= 0.98: 0.97, not met")
    assert "announced first: entry " in facts[1].text and facts[1].text.endswith("of node-es.example/log")
    assert client.verify(tmp_path / "model").row("documents").facts == pulled.verdict.row("documents").facts
    out = tmp_path / "eval.json"
    exported = ("attestation", "export", str(tmp_path / "model"), "--as", "eval-result", "--out", str(out))
    assert run(*exported, *sign) == 0
    said = ForeignStatement.parse(ForeignEnvelope.parse(out.read_bytes()).payload).predicate
    assert isinstance(said, SuiteResult) and not said.claims[0].passed
    assert said.registered is not None and said.registered.value == sha256(criteria.read_bytes())
    assert run(*exported, "--sign-as", "Lab One") == 5
    assert "NO-EVALUATION" in capsys.readouterr().err


def test_a_rehashed_statement_is_signed_only_after_rehashing(
    tmp_path: Path, client: Client, publisher: Publisher, published: Path
) -> None:
    with pytest.raises(NotFound) as absent:
        client.vouch(NAME, "rehashed", by=publisher)
    assert absent.value.hint.startswith("comity pull")
    client.pull(NAME, to=tmp_path / "model")
    receipt = client.vouch(tmp_path / "model", "rehashed", by=publisher)
    assert [vouch.vouched.kind for vouch in client.show(NAME).vouches] == ["rehashed"]
    weights_file = tmp_path / "model" / "model.safetensors"
    weights_file.chmod(0o644)
    weights_file.write_bytes(FILES["model.safetensors"][:-1] + b"B")
    size = receipt.logged[0].size
    with pytest.raises(Untrusted) as refused:
        client.vouch(tmp_path / "model", "rehashed", by=publisher)
    assert refused.value.code == "NOT-AS-LISTED"
    assert client.log_checkpoint("node-ch.example/log").checkpoint.size == size


def test_a_folder_without_a_publication_is_not_vouched_for(
    tmp_path: Path, client: Client, publisher: Publisher, published: Path
) -> None:
    other = write(tmp_path / "other", {"README.md": b"# Other\n"})
    with pytest.raises(NotFound):
        client.vouch(other, "rehashed", by=publisher)
    assert client.vouch(published, "rehashed", by=publisher).artifact == client.resolve(NAME).artifact


def test_a_compromised_key_is_shown_by_every_command(
    tmp_path: Path, client: Client, publisher: Publisher, published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client.bind("lab", publisher.id)
    assert client.pull(NAME, to=tmp_path / "before").verdict.row("key policy").state == "pass"
    client.report_lost_key(publisher, 0, "the laptop is gone")
    (notice,) = client.show(NAME).lost_keys
    assert (notice.key, notice.origin, notice.index) == (publisher.signer().public.id, "node-ch.example/log", 0)
    assert run("pull", NAME, "--to", str(tmp_path / "after")) == 4
    refused = capsys.readouterr().err
    assert "signed after the publisher says its key was stolen" in refused and "wait for more" not in refused
    lax = replace(client.policy(), refuse_lost_keys=False)
    client.pull(NAME, to=tmp_path / "after", policy=lax)
    assert run("verify", str(tmp_path / "after"), "--json") == 4
    rows = {row["row"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["key policy"]["state"] == "fail"
    assert rows["signatures"]["state"] == "pass"
    assert run("show", NAME) == 0
    assert "from entry 0 of node-ch.example/log on" in capsys.readouterr().err


def test_the_compromised_key_can_be_named(client: Client, publisher: Publisher, published: Path) -> None:
    first = publisher.signer().public.id
    changed, _ = client.change_keys(publisher)
    client.report_lost_key(changed, 1_000, "retired, and found later")
    client.report_lost_key(changed, 1_000, "the present one", key=changed.signer().public.id[:16])
    assert [notice.key for notice in client.show(NAME).lost_keys] == [first]
    with pytest.raises(NotFound) as unknown:
        client.report_lost_key(changed, 0, "", key="zz")
    assert unknown.value.code == "WHICH-KEY"


def test_show_and_the_list_of_warnings_read_those_first_whom_the_policy_names(
    tmp_path: Path,
    client: Client,
    published: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At nodes that have no room for the statements of anybody whom the asker does not name."""
    issuer = client.new_publisher("Warnings", "ES", "node-es.example/log")
    client.advise(NAME, "malware", "critical", "it calls home", publisher=issuer)
    everything = FakeNode.claims

    async def flooded(
        node: FakeNode, subject: Digest, named: Collection[Digest] = ()
    ) -> AsyncGenerator[LocatedEntry, None]:
        async for located in everything(node, subject, named):
            by = parse_entry(located.line).statement.by
            if issuer.id in named or by is None or by.id != issuer.id:
                yield replace(located, others=True)

    monkeypatch.setattr(FakeNode, "claims", flooded)
    policy = tmp_path / "policy.toml"
    (tmp_path / "federation.json").write_bytes(client.pins()[0].federation.encode())
    policy.write_text(
        f'schema = "comity/policy/v1"\n[[pin]]\nfile = "federation.json"\n[advisories]\nrefuse_from = ["{issuer.id}"]\n'
    )
    capsys.readouterr()
    assert run("show", NAME) == 0
    without = capsys.readouterr()
    assert "it calls home" not in without.err
    assert "not read" in without.out
    assert "more was said about" in without.out
    assert run("show", NAME, "--policy", str(policy)) == 0
    assert "it calls home" in capsys.readouterr().err
    assert run("show", NAME, "--policy", str(policy), "--json") == 0
    assert json.loads(capsys.readouterr().out)["not_read"]
    assert run("advisory", "ls", NAME) == 0
    without = capsys.readouterr()
    assert "it calls home" not in without.out
    assert "more was said about" in without.out
    assert run("advisory", "ls", NAME, "--policy", str(policy)) == 0
    assert "it calls home" in capsys.readouterr().out


def test_rival_claimants_are_listed(
    tmp_path: Path, client: Client, publisher: Publisher, published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rival = client.new_publisher("Rival", "SG", "node-sg.example/log")
    other = write(tmp_path / "other", {"README.md": b"# Better\n"})
    client.publish(other, NAME, publisher=rival, licence="MIT", nodes=["node-sg.example"])
    assert run("show", NAME) == 0, "a later claim changes no name"
    client.bind("lab", publisher.id)
    capsys.readouterr()
    assert run("show", NAME) == 0
    assert f"Rival [{rival.id}] claims {NAME} too" in capsys.readouterr().err
    row = client.pull(NAME, to=tmp_path / "model").verdict.row("disputes and advisories")
    assert [fact.text.partition(" [")[0] for fact in row.facts] == ["Rival"]


def test_an_active_file_is_never_placed_by_the_default_policy(
    tmp_path: Path, client: Client, publisher: Publisher, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "source", {"pytorch_model.bin": pickle.dumps({"a": 1})})
    client.publish(source, NAME, publisher=publisher, licence="MIT")
    with pytest.raises(PolicyNotMet) as refused:
        client.pull(NAME, to=tmp_path / "model")
    assert "pytorch_model.bin: pickle" in refused.value.why
    assert not (tmp_path / "model" / "pytorch_model.bin").exists()
    lax = replace(client.policy(), safety=SafetyRule(kinds=frozenset({"pickle"})))
    assert client.pull(NAME, to=tmp_path / "model", policy=lax).verdict.row("file safety").state == "pass"
    assert run("verify", str(tmp_path / "model")) == 4
    assert "! file safety: pytorch_model.bin: pickle" in capsys.readouterr().err


def test_an_active_file_is_refused_by_its_name_before_a_byte_is_fetched(
    tmp_path: Path, client: Client, publisher: Publisher
) -> None:
    source = write(tmp_path / "source", {"modeling_tiny.py": b"import os\n"})
    client.publish(source, NAME, publisher=publisher, licence="MIT")
    with pytest.raises(PolicyNotMet, match="policy is not met"):
        client.pull(NAME, to=tmp_path / "model")
    assert not (tmp_path / "model").exists()
