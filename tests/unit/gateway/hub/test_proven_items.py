"""Items of the Hub's list that are made without the judge are equal to those that the judge makes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from comity.content.blobs import FolderStore
from comity.content.inspections import INSPECTIONS_FILE, KeptInspections
from comity.gateway.console.state import withdrawn as withdrawn_in_console
from comity.gateway.hub.card import Cards
from comity.gateway.hub.catalogue import Catalogue
from comity.gateway.hub.judge import PolicyJudge
from comity.gateway.hub.list_file import KEPT, KeptItem
from comity.gateway.hub.proven_items import ProvenItems
from comity.gateway.hub.views import model_view
from comity.ledger.ledger import Backing, Ledger
from comity.node.members import FoundRecord, Membership, OwnNode
from comity.node.metrics import Metrics
from comity.node.policy_file import PolicyFile
from comity.node.threads import AsyncLedger, Pools
from comity.rules.artifact_kind import KindStated
from comity.rules.signing import sign_content
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError
from comity.trust.identity import InceptionStatement
from comity.trust.keys import HybridSigner
from comity.trust.names import Name
from comity.trust.statement import Author, parse_entry, sign_statement
from comity.trust.statements import ADVISORIES, KEY_COMPROMISE, STATE_SETTING, Advisory, Compromise
from comity_client.evidence.names import withdrawn as withdrawn_for_client
from support.case import nodes, release
from support.logs import LogKeys
from support.observations import observation
from support.rotations import of
from support.world import NOW, Identity, Node, found, identity

HOME, ELSEWHERE = LogKeys(nodes(1)[0].origin, nodes(1)[0].log), LogKeys.generate("node-fr.example/log")
ALGS = ("ed25519",)
ANNA, BEN, CARL, UNKNOWN = (identity(name, "CH", algs=ALGS) for name in ("Anna", "Ben", "Carl", "Unknown"))
README = b"---\nlibrary_name: transformers\n---\n"


class JudgedRepositories:
    """A ledger and a store, the code that makes items of them, and the judge."""

    def __init__(self, folder: Path, backing: Backing | None) -> None:
        (here, *_) = peers = nodes(2)
        membership = self.membership = Membership(
            OwnNode.parse(here.seat.entry.line, here.entry.line), found(peers, namespaces={"bound": BEN.id})
        )
        self.store, self.pools = FolderStore(folder / "blobs"), Pools()
        self.ledger = Ledger.open(folder, lambda: NOW, backing=backing)
        for log in (HOME, ELSEWHERE):
            self.ledger.logs.create(log.origin, log.vkey, own=True)
        ledger, self.judge = AsyncLedger(self.ledger), PolicyJudge(PolicyFile(None), membership, self.clock)
        self._kept = kept = KeptInspections(folder / INSPECTIONS_FILE)
        self.catalogue = Catalogue(ledger, self.store, self.pools, membership, self.judge, Metrics(), kept)
        self._cards = Cards(self.store, self.pools)
        local = self.catalogue.local_artifacts
        self.proven = ProvenItems(ledger, self.pools, self.judge, local, self.store, self.clock)
        self.say(here.seat.entry.line, here.entry.line, *(who.entry.line for who in (ANNA, BEN, CARL)))

    def clock(self) -> float:
        return float(NOW)

    def say(self, *lines: bytes, log: LogKeys = HOME) -> None:
        self.ledger.logs.append(log.vkey, lines)

    def learn(self, of: Node, log: LogKeys) -> None:
        """Follow a record in which the member of this node binds this log."""
        record = replace(of.record, log=log.verifier)
        bound = (HybridSigner((log.key,)), of.cosigner, of.online, HybridSigner((of.tls,)))
        self.membership.learn([FoundRecord(sign_content(record, of.seat.signer, *bound))])

    def line(self, by: Identity, name: str, *files: str) -> bytes:
        """The statement about a model with these files, which are stored."""
        _, entry, manifest, _ = release(dict.fromkeys(files, b"weights"), by=by, name=name)
        self.store.put(sha256(manifest), manifest)
        return entry.line

    def publish(
        self, by: Identity, name: str, *files: str, spdx: str = "MIT", log: LogKeys = HOME, stored: bool = True
    ) -> Digest:
        """A model with these files, by default one that is named as the version."""
        of_files = {file: README if file == "README.md" else b"weights" for file in files or (f"{name[-2:]}.gguf",)}
        published, entry, manifest, _ = release(of_files, by=by, name=name, spdx=spdx)
        if stored:
            self.store.put(sha256(manifest), manifest)
        self.say(entry.line, log=log)
        return published.artifact

    def advise(self, by: Identity, artifact: Digest, kind: str = "yank") -> None:
        said = Advisory(Author("identity", by.id), artifact, kind, "high", "wrong weights")
        self.say(sign_content(said, by.signer).line)

    async def withdrawn(self, name: str, artifact: Digest) -> tuple[bool, bool, bool]:
        """Whether the console, the catalogue and a client that has the same lines call it withdrawn."""
        (candidate,) = (await self.catalogue.repository(name)).candidates
        said = [parse_entry(found.line) for found in self.ledger.proven.about(artifact).found]
        return (
            withdrawn_in_console(self.ledger, artifact, candidate.publisher),
            await self.catalogue.is_withdrawn(name, artifact),
            withdrawn_for_client(candidate.publication, said),
        )

    async def made(self, *names: str) -> dict[str, KeptItem]:
        return {item.name: item for item in await self.proven.make(names)}

    async def judged(self, name: str) -> KeptItem | None:
        """The same item by the judge; None if the repository is not served."""
        try:
            snapshot = await self.catalogue.snapshot(name, "main")
        except ComityError:
            return None
        card, manifest = await self._cards.card(snapshot.artifact, snapshot.manifest), snapshot.manifest
        document = json.dumps(model_view(snapshot, card, siblings=False), separators=(",", ":"))
        until = 0 if await self._cards.complete(manifest) else NOW + KEPT
        author = Digest(str(getattr(snapshot.claim, "by", "")))
        return KeptItem(name.lower(), snapshot.artifact, author, len(manifest.encode()), until, document)

    async def close(self) -> None:
        await self.catalogue.close()
        self.pools.close()
        self.ledger.close()
        self._kept.close()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[JudgedRepositories]:
    made = JudgedRepositories(tmp_path, None)
    yield made
    await made.close()


@pytest.fixture
async def on_either(tmp_path: Path, backing: Backing | None) -> AsyncIterator[JudgedRepositories]:
    made = JudgedRepositories(tmp_path, backing)
    yield made
    await made.close()


@pytest.mark.slow
async def test_items_without_a_judge_are_those_of_the_judge(on_either: JudgedRepositories) -> None:
    node = on_either
    node.store.put(sha256(README), README)
    node.publish(ANNA, "a/one@v1")
    for version in ("v1", "v3", "v2"):
        node.publish(ANNA, f"a/several@{version}", version)
    for version in ("v9", "v10", "v2"):
        node.publish(ANNA, f"a/not-at-home@{version}", version, log=ELSEWHERE)
    node.publish(ANNA, "a/partly-at-home@v1")
    node.publish(ANNA, "a/partly-at-home@v2", "2", log=ELSEWHERE)
    for spdx in ("MIT", "Apache-2.0", "CC-BY-4.0"):
        node.publish(ANNA, "a/corrected@v1", "c", spdx=spdx)
    node.publish(ANNA, "A/Spelled@v1", "README.md", "model.safetensors")
    node.publish(CARL, "a/contested@v1", "first")
    node.publish(ANNA, "a/contested@v2", "second")
    node.publish(CARL, "bound/name@v1", "first")
    node.publish(BEN, "bound/name@v1", "second")
    node.publish(BEN, "bound/other@v1", "second")
    names = [name for name in node.ledger.proven.repositories() if name != "bound/other"] + ["bound/other", "a/none"]
    made = await node.made(*names)
    assert sorted(made) == sorted(set(names) - {"a/none", "a/contested"}), "who was first is to be proven"
    for name, item in made.items():
        assert item == await node.judged(name), name
    assert '"license:cc-by-4.0"' in made["a/corrected"].document
    assert '"comity:v10"' in made["a/not-at-home"].document and '"comity:v2"' in made["a/several"].document
    assert '"transformers"' in made["a/spelled"].document and '"id":"A/Spelled"' in made["a/spelled"].document
    assert made["bound/name"].author == BEN.id


@pytest.mark.parametrize("home", [HOME.origin, HOME.vkey], ids=["by its origin", "by its key"])
async def test_a_log_of_another_member_under_the_origin_of_the_home_log_orders_nothing(
    node: JudgedRepositories, home: str
) -> None:
    inception = replace(ANNA.inception, home=home, label="Dora")
    dora = Identity(inception, ANNA.signer, sign_content(InceptionStatement(inception), ANNA.signer))
    lying = LogKeys.generate(HOME.origin)
    node.learn(nodes(2)[1], lying)
    node.ledger.logs.create(lying.origin, lying.vkey, own=True)
    node.say(dora.entry.line)
    lines = [node.line(dora, f"d/several@{version}", version) for version in ("v1", "v3", "v2")]
    node.say(*lines)
    node.ledger.logs.append(lying.vkey, [*lines[1:], *[lines[0]] * 9])
    made = await node.made("d/several")
    assert '"comity:v2"' in made["d/several"].document
    assert made["d/several"] == await node.judged("d/several")


async def test_a_publisher_with_several_home_logs_is_left_to_the_judge(node: JudgedRepositories) -> None:
    node.learn(nodes(1)[0], LogKeys.generate(HOME.origin))
    node.publish(ANNA, "a/one@v1")
    assert await node.made("a/one") == {}
    assert await node.judged("a/one") is not None


async def test_items_that_need_a_judge_are_left_to_it(node: JudgedRepositories) -> None:
    node.publish(ANNA, "a/withdrawn@v1")
    node.advise(ANNA, node.publish(ANNA, "a/withdrawn@v2", "2"))
    node.advise(CARL, node.publish(ANNA, "a/warned@v1", "w"))
    node.publish(ANNA, "a/disputed@v1", "1")
    node.publish(ANNA, "a/disputed@v1", "other")
    node.publish(ANNA, "a/written@v1", "1")
    node.publish(ANNA, "A/Written@v2", "2")
    node.publish(ANNA, "org/tiny@v1", "1")
    node.say(observation(nodes(1)[0], sha256(b"observed")).line)
    node.publish(ANNA, "a/missing@v1", "gone", stored=False)
    node.publish(UNKNOWN, "a/unknown@v1", "u")
    node.publish(BEN, "b/rotated@v1", "r")
    node.say(of(BEN).to("next")[1].line)
    names = node.ledger.proven.repositories()
    assert len(names) == 9
    assert await node.made(*names) == {}
    shown = await node.judged("a/withdrawn")
    assert shown is not None and '"comity:v1"' in shown.document
    assert await node.judged("a/disputed") is None


@pytest.mark.parametrize("kind", [kind for kind in ADVISORIES if kind != KEY_COMPROMISE])
async def test_console_catalogue_and_client_agree_on_what_is_withdrawn(node: JudgedRepositories, kind: str) -> None:
    """Only what its own publisher yanked or superseded, also with keys that it has retired since."""
    artifacts = {who: node.publish(who, f"{name}/m@v1", name) for who, name in ((ANNA, "anna"), (BEN, "ben"))}
    node.say(of(BEN).to("next")[1].line)
    assert await node.withdrawn("anna/m", artifacts[ANNA]) == (False, False, False)
    node.advise(BEN, artifacts[ANNA], kind)
    own = nodes(1)[0]
    by_node = Advisory(own.record.node, artifacts[ANNA], kind, "high", "wrong weights")
    node.say(sign_content(by_node, own.online).line)
    assert await node.withdrawn("anna/m", artifacts[ANNA]) == (False, False, False)
    node.advise(BEN, artifacts[BEN], kind)
    assert await node.withdrawn("ben/m", artifacts[BEN]) == (kind in STATE_SETTING,) * 3


async def test_items_signed_only_by_keys_of_a_charter_are_left_to_the_judge(node: JudgedRepositories) -> None:
    """The intake accepts them; the evidence of a list has the inception alone."""
    other = identity("Other", "CH", algs=ALGS)
    published, entry, manifest, _ = release({"m": b"weights"}, by=ANNA, name="a/listed@v1")
    node.store.put(sha256(manifest), manifest)
    node.say(sign_statement(entry.statement, other.signer).line)
    assert published.by == ANNA.id and await node.made("a/listed") == {}


async def test_a_file_of_which_the_card_is_read_and_that_is_missing_is_looked_for_again(
    node: JudgedRepositories,
) -> None:
    node.publish(ANNA, "a/one@v1", "README.md", "m.gguf")
    (item,) = (await node.made("a/one")).values()
    assert item.until == NOW + KEPT and item == await node.judged("a/one")


async def test_under_a_policy_of_the_owner_the_judge_makes_every_item(
    node: JudgedRepositories, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.publish(ANNA, "a/one@v1")
    monkeypatch.setattr(PolicyJudge, "by_own_policy", True)
    assert await node.made("a/one") == {}


async def test_many_names_are_read_in_steps_and_names_with_too_many_statements_are_left_to_the_judge(
    node: JudgedRepositories, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        node.publish(ANNA, f"a/m{number}@v1", f"{number}")
    node.publish(ANNA, "a/m4@v2", "more")
    monkeypatch.setattr("comity.gateway.hub.proven_items.MAX_NAMES", 2)
    monkeypatch.setattr("comity.gateway.hub.proven_items.STEP_SECONDS", 0.0)
    names = node.ledger.proven.repositories()
    assert sorted(await node.made(*names)) == names
    monkeypatch.setattr("comity.gateway.hub.proven_items.MAX_PUBLICATIONS", 1)
    assert sorted(await node.made(*names)) == []
    assert sorted(await node.made("a/m0")) == ["a/m0"]


async def test_names_of_an_author_begin_after_any_cursor(node: JudgedRepositories) -> None:
    for name in ("a/one", "b/one", "b/two", "bb/one", "c/one"):
        node.publish(ANNA, f"{name}@v1")
    names = node.ledger.proven.repositories
    assert names() == ["a/one", "b/one", "b/two", "bb/one", "c/one"]
    assert names("", "b/") == names("a/z", "b/") == ["b/one", "b/two"]
    assert names("b/one", "b/") == ["b/two"]
    assert names("b/", "b/") == ["b/one", "b/two"]
    assert names("b/two", "b/") == names("c", "b/") == []


async def test_a_lost_key_decides_no_kind_where_another_key_states_one(node: JudgedRepositories) -> None:
    artifact, kind = node.publish(ANNA, "a/words@v1"), node.catalogue.local_artifacts.kind
    after, rotated = of(ANNA).to("next")

    def stated(word: str, number: int, signer: HybridSigner) -> bytes:
        return sign_content(KindStated(ANNA.id, Name.parse("a/words@v1"), artifact, word, number), signer).line

    node.say(rotated.line, stated("dataset", 0, after.keys[0]), stated("prompt", 9, ANNA.signer))
    assert await kind(artifact, ANNA.id) == "prompt"
    lost = Compromise(ANNA.signer.public.id, HOME.origin, 0)
    said = Advisory(Author("identity", ANNA.id), ANNA.id, KEY_COMPROMISE, "critical", "the laptop is gone", lost)
    node.say(sign_content(said, ANNA.signer).line)
    assert await kind(artifact, ANNA.id) == "dataset"
