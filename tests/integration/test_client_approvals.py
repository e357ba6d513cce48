"""Officers approve a model at two nodes of a federation: a pull by a policy that names them, and the lists of
approvals.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from comity.trust.encoding import sha256
from comity.trust.errors import PolicyNotMet
from comity_cli.main import main
from comity_client.approving import ApprovalEnding, ApprovalTerms
from comity_client.client import Client
from comity_client.home import Home
from comity_client.policy_text import write_policy
from comity_client.publishers import Publisher
from support import weights
from support.fakes import FakeFederation

FILES = {
    "LICENSE": b"Apache License\n",
    "README.md": b"# Tiny\n",
    "a.safetensors": weights.safetensors({"a": b"A" * 64}),
}
NAME, SCOPE, WARD = "lab/tiny@v1", "hospital-bern", b"only in the ward\n"
SINCE, UNTIL, AS_OF = 1_795_000_000, 1_800_000_000, "2026-12-24T00:00:00Z"


@pytest.fixture
def client(tmp_path: Path, federation: FakeFederation, monkeypatch: pytest.MonkeyPatch) -> Client:
    """The client of the policy's owner; an artifact is published as NAME."""
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    client = Client(Home(tmp_path / "home"))
    client.pin(federation.file({}))
    (tmp_path / "source").mkdir()
    for path, data in FILES.items():
        (tmp_path / "source" / path).write_bytes(data)
    lab = client.new_publisher("Lab", "CH", "node-ch.example/log")
    client.publish(tmp_path / "source", NAME, publisher=lab, licence="MIT")
    return client


@pytest.fixture
def officers(client: Client) -> dict[str, Publisher]:
    homes = {"Anna": "node-ch.example/log", "Ben": "node-es.example/log", "Carla": "node-es.example/log"}
    return {name: client.new_publisher(name, "CH", home) for name, home in homes.items()}


def policy_file(tmp_path: Path, client: Client, officers: dict[str, Publisher], more: str = "") -> Path:
    path = tmp_path / "policy.toml"
    write_policy(path, client.pins())
    text = path.read_text("utf-8").replace("[time]\n", f"[time]\nas_of = {AS_OF}\n")
    text = text.replace('"key policy", "transparency", "cosigners", ', "")
    named = "".join(f'{name} = "{who.id}"\n' for name, who in officers.items())
    asked = f'[approvals]\nscope = "{SCOPE}"\nat_least = 2\nfour_eyes = true\n{more}\n[approvals.officers]\n{named}'
    path.write_text(text + asked, "utf-8")
    return path


def approve(client: Client, who: Publisher, tmp_path: Path, until: int = UNTIL) -> None:
    (tmp_path / "ward.txt").write_bytes(WARD)
    client.approvals().approve(
        client.approvals().subject(NAME), ApprovalTerms(SCOPE, SINCE, until, tmp_path / "ward.txt"), by=who
    )


def test_one_of_two_is_refused_before_a_byte_and_two_of_two_at_two_nodes_are_pulled(
    tmp_path: Path, client: Client, officers: dict[str, Publisher], capsys: pytest.CaptureFixture[str]
) -> None:
    policy = client.policy(policy_file(tmp_path, client, officers, "conditions = true\nlogged = true"))
    approve(client, officers["Anna"], tmp_path)
    with pytest.raises(PolicyNotMet) as refused:
        client.pull(NAME, to=tmp_path / "model", policy=policy)
    assert refused.value.code == "NOT-APPROVED"
    assert refused.value.hint == f"comity approvals ls {NAME} --policy FILE"
    assert not (tmp_path / "model" / "README.md").exists()
    approve(client, officers["Ben"], tmp_path)
    pulled = client.pull(NAME, to=tmp_path / "model", policy=policy)
    assert pulled.verdict.row("approvals").summary.startswith(f"2 of 2 required for {SCOPE}: Anna, Ben; until ")
    assert (tmp_path / "model/.comity/objects" / sha256(WARD)).read_bytes() == WARD, "the conditions are in the pack"
    assert client.verify(tmp_path / "model", policy=policy).exit_status == 0, "offline, from the pack"
    with pytest.raises(SystemExit):
        main(["approvals", "ls", "--policy", str(tmp_path / "policy.toml"), "--at", "2026-12-24", "--json"])
    listed = json.loads(capsys.readouterr().out)["approvals"]
    assert sorted((each["officer"], each["state"]) for each in listed) == [("Anna", "in force"), ("Ben", "in force")]


@pytest.mark.slow
def test_an_end_at_any_node_is_found_by_the_next_pull(
    tmp_path: Path, client: Client, officers: dict[str, Publisher]
) -> None:
    policy = client.policy(policy_file(tmp_path, client, officers))
    for name in ("Anna", "Ben"):
        approve(client, officers[name], tmp_path)
    assert client.pull(NAME, to=tmp_path / "before", policy=policy).verdict.exit_status == 0
    subject = client.approvals().subject(NAME)
    ending = ApprovalEnding(SCOPE, SINCE + 1, "a new version")
    client.approvals().end(subject, ending, by=officers["Ben"], nodes=["node-ch.example"])
    assert client.verify(tmp_path / "before", policy=policy).exit_status == 0, "an old pack does not have the end"
    with pytest.raises(PolicyNotMet, match="its officer ended it"):
        client.pull(NAME, to=tmp_path / "after", policy=policy)
    with pytest.raises(PolicyNotMet, match="its officer ended it"):
        client.pull(NAME, to=tmp_path / "before", policy=policy)
    approve(client, officers["Carla"], tmp_path)
    assert client.pull(NAME, to=tmp_path / "after", policy=policy).verdict.exit_status == 0
