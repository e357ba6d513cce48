"""`comity grant` for the borrower: requests and grants by state, and amounts that a grant does not have."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.content.secrets import write_keys
from comity_cli.commands.grant import command
from comity_client.home import Home
from comity_client.offers.bundle import OfferBundle
from comity_client.trust_store import TrustStore
from support.fair import Stall
from support.run_command import printed, refused, run, said
from support.world import Identity


class Scene:
    """A chain that was carried here, with a request, a grant and an accepted grant of 8 hours each."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.stall = folder, Stall()
        TrustStore(Home(folder / "owner").ensure(folder / "owner" / "trust")).pin(self.stall.federation.encode())
        self.chain = self.stall.post()
        self.requested = self.stall.ask(self.chain)
        self.granted = self.stall.grant(self.chain)
        self.accepted = self.stall.grant(self.chain)
        self.stall.accept(self.chain, self.accepted)
        self.carry()

    def carry(self) -> None:
        self.stall.bundle().write(self.folder / "chain")

    def reading(self, *words: object) -> tuple[object, ...]:
        return (*words, "--offline", "--from", self.folder / "chain")

    def signing(self, *words: object, who: Identity | None = None) -> tuple[object, ...]:
        owner = who or self.stall.customer
        home = self.folder / owner.id[:8]
        if not home.exists():
            (home / "offline").mkdir(parents=True)
            (home / "inception.line").write_bytes(owner.entry.line + b"\n")
            write_keys(home / "offline" / "governance.pem", owner.signer.keys)
        return (*self.reading(*words), "--node", home, "--out", self.folder / "said", "--yes")


@pytest.fixture(name="scene")
def _scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "owner"))
    return Scene(tmp_path)


def test_requests_and_grants_are_listed_with_their_state(scene: Scene) -> None:
    document = printed(command, *scene.reading("ls"))
    assert [(row["line"], row["state"]) for row in document["grants"]] == [
        (scene.requested.digest, "requested"),
        (scene.granted.digest, "granted"),
        (scene.accepted.digest, "accepted"),
    ]
    assert document["more_offers"] == 0
    text = said(command, *scene.reading("ls"))
    assert f"comity grant approve {scene.requested.digest[:12]} --node HOME" in text and text.count("Next:") == 1


@pytest.mark.parametrize(("state", "count"), [("requested", 1), ("granted", 1), ("accepted", 1), ("rejected", 0)])
def test_one_state_is_listed_alone(scene: Scene, state: str, count: int) -> None:
    rows = printed(command, *scene.reading("ls", "--state", state))["grants"]
    assert [row["state"] for row in rows] == [state] * count
    if not count:
        assert said(command, *scene.reading("ls", "--state", state)) == "No request is known."
    assert run(command, *scene.reading("ls", "--state", "lost")).exit_code == 2


def test_an_offer_is_listed_alone(scene: Scene) -> None:
    other = scene.stall.post(title="another offer")
    asked = scene.stall.ask(other)
    scene.carry()
    rows = printed(command, *scene.reading("ls", "--offer", other[:12]))["grants"]
    assert [row["line"] for row in rows] == [asked.digest]
    assert len(printed(command, *scene.reading("ls"))["grants"]) == 4


def test_a_grant_is_shown_with_the_next_step(scene: Scene) -> None:
    document = printed(command, *scene.reading("show", scene.granted.digest[:12]))
    assert f"comity grant accept {scene.granted.digest[:12]}" in document["next"] and document["said"] == []
    text = said(command, *scene.reading("show", scene.accepted.digest[:12]))
    assert text.startswith(f"grant {scene.accepted.digest[:12]}: accepted") and "comity grant redeem" in text
    refused(command, *scene.reading("show", "ffffffff"))


@pytest.mark.parametrize(("amount", "taken"), [(8, True), (1, True), (9, False)])
def test_no_more_is_redeemed_than_is_left(scene: Scene, amount: int, taken: bool) -> None:
    words = scene.signing("redeem", scene.accepted.digest[:12], "--amount", amount)
    if taken:
        assert f"now {amount}" in said(command, *words)
        assert len(OfferBundle.read(scene.folder / "said").unplaced) == 2
    else:
        assert refused(command, *words).code == "OVER-REDEEMED" and not (scene.folder / "said").exists()


def test_all_that_is_left_is_redeemed_by_default(scene: Scene) -> None:
    assert "now 8" in said(command, *scene.signing("redeem", scene.accepted.digest[:12]))
    assert run(command, *scene.signing("redeem", scene.accepted.digest[:12], "--amount", -1)).exit_code == 2


def test_a_grant_that_is_not_accepted_is_not_redeemed(scene: Scene) -> None:
    error = refused(command, *scene.signing("redeem", scene.granted.digest[:12], "--amount", 1))
    assert error.code == "OVER-REDEEMED" and "it is granted" in str(error)


@pytest.mark.parametrize("verb", ["accept", "redeem"])
def test_what_is_not_proven_is_not_accepted(scene: Scene, verb: str) -> None:
    scene.stall.bundle(proven=False).write(scene.folder / "chain")
    refused(command, *scene.signing(verb, scene.accepted.digest[:12]))
    assert not (scene.folder / "said").exists()


def test_a_default_is_said_with_its_reason(scene: Scene) -> None:
    assert run(command, *scene.signing("default", scene.accepted.digest[:12])).exit_code == 2
    text = said(command, *scene.signing("default", scene.accepted.digest[:12], "--text", "nobody came"))
    assert "nobody came" in text and "comity grant answer" in text


def test_a_stranger_signs_nothing(scene: Scene) -> None:
    stranger = scene.stall.nodes[2].seat
    for verb in ("accept", "redeem", "release"):
        assert refused(command, *scene.signing(verb, scene.accepted.digest[:12], who=stranger)).code == "NOT-YOURS"
    assert not (scene.folder / "said").exists()
