"""Generated histories of artifacts: publishers whose keys are changed, lost and stolen, what they and others say about
what they publish, and what members do with their copies.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from comity.content.blobs import FolderStore
from comity.rules.signing import sign_content
from comity.trust.approvals import ApprovalEnded, Approved
from comity.trust.copies import WITHDRAWAL_REASONS
from comity.trust.encoding import Digest, sha256
from comity.trust.identity import Inception, InceptionStatement, KeySet
from comity.trust.keys import HybridSigner
from comity.trust.rotation import KeyState, Rotation, rotate
from comity.trust.statement import Author, Entry
from comity.trust.statements import KEY_COMPROMISE, Advisory, Compromise, Licence, Parent, Published, Vouched
from comity.trust.tlog.note import Checkpoint, SignedNote
from comity.wire.audit import HoldOrder
from comity.wire.client import NodeClient
from support.derivations import derived_line
from support.federation import NodeHome, until
from support.publisher import Publisher, Release, release, send
from support.world import identity

KINDS = ("publish", "publish", "rotate", "dispute", "lose", "yank", "warn", "vouch", "derive", "approve", "end", "base")
COPY_KINDS = ("test", "test", "withdraw", "withdraw", "restore", "damage")
SCOPE = "site"
DAY = 86_400
STRANGER = identity("Checking lab", "ES")
OFFICER = identity("Anna")
SHARED = "shared.txt"
"""A file that all artifacts of one history have."""


@dataclass
class Owner:
    """A publisher whose keys may be changed, and of which an old key may be stolen."""

    label: str
    keys: list[HybridSigner] = field(default_factory=list)
    spare: list[HybridSigner] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    state: KeyState | None = None
    former: KeyState | None = None
    inception: Inception | None = None

    def begin(self, home: str) -> None:
        key, spare = HybridSigner.generate(), HybridSigner.generate()
        self.inception = Inception("publisher", KeySet((key.public,), 1), (spare.public.id,), home, "CH", self.label)
        self.keys, self.spare = [key], [spare]
        self.lines = [sign_content(InceptionStatement(self.inception), key).line]
        self.state = KeyState.of_inception(self.inception)

    @property
    def id(self) -> Digest:
        assert self.inception is not None
        return self.inception.id

    @property
    def author(self) -> Author:
        return Author("identity", self.id)

    def rotated(self) -> bytes:
        assert self.state is not None
        key, spare = HybridSigner.generate(), HybridSigner.generate()
        line, state = self._rotation(self.state, key, spare, recovery=self.spare[-1])
        self.former, self.state = self.state, state
        self.keys.append(key)
        self.spare.append(spare)
        self.lines.append(line)
        return line

    def disputed(self) -> bytes | None:
        """Another rotation of the state that the last one replaced, by who stole its recovery key; None if there is no
        such state."""
        if self.former is None:
            return None
        key, spare = HybridSigner.generate(), HybridSigner.generate()
        return self._rotation(self.former, key, spare, recovery=self.spare[-2])[0]

    def _rotation(
        self, state: KeyState, key: HybridSigner, spare: HybridSigner, *, recovery: HybridSigner
    ) -> tuple[bytes, KeyState]:
        keys = KeySet((key.public,), 1)
        rotation = Rotation(self.id, (state.seq or 0) + 1, state.digest, keys, (spare.public.id,), "", ())
        line = rotate(state, rotation, [recovery], [key]).line
        return line, KeyState(self.id, keys, rotation.recovery, state.home, rotation.seq)

    def release(self, folder: Path, name: str, key: HybridSigner, spdx: str, lineage: tuple[Parent, ...]) -> Release:
        assert self.inception is not None
        made = release(Publisher(key, self.inception, self.lines[0]), folder, name)
        stated = Published.parse(made.entry.statement)
        published = replace(stated, licence=Licence(spdx, stated.licence.text), lineage=lineage)
        return replace(made, entry=sign_content(published, key))


@dataclass
class History:
    """What is logged about the artifacts of one publisher, one step after the other, as `draw` decides. Some are made
    from an artifact of another publisher, `base`.

    Attributes:
        homes: the nodes; the first one logs what publishers and others say.
        versions: with their artifacts.
        warned: texts of the warnings of both publishers.
        lost: the publishers who said that a key of theirs was stolen.
        withdrew: by artifact, the nodes that withdrew their copies.
    """

    homes: tuple[NodeHome, ...]
    node: NodeClient
    owner: Owner
    base: Owner
    draw: random.Random
    sources: Path
    repository: str
    versions: dict[str, Digest] = field(default_factory=dict)
    releases: dict[Digest, Release] = field(default_factory=dict)
    approvals: list[Entry] = field(default_factory=list)
    warned: set[str] = field(default_factory=set)
    lost: set[Digest] = field(default_factory=set)
    withdrew: dict[Digest, set[str]] = field(default_factory=dict)
    _base: Parent | None = None

    @property
    def artifacts(self) -> list[Digest]:
        return list(self.releases)

    async def begin(self) -> None:
        for owner in (self.base, self.owner):
            await self.node.submit(owner.lines, ())
        made = self.base.release(self.source("base"), f"{self.repository}-base@v1", self.base.keys[0], "MIT", ())
        await send(self.node, made)
        self._base = Parent("finetune", f"{self.repository}-base@v1", made.artifact)
        await self.publish("v1")

    async def step(self, number: int) -> None:
        artifact = self.draw.choice(list(self.versions.values()))
        kind = self.draw.choice(KINDS)
        if kind == "publish":
            await self.publish(f"v{len(self.versions) + 1}")
        elif kind == "rotate" and len(self.owner.keys) < 3:
            await self.node.submit((self.owner.rotated(),), ())
        elif kind == "dispute" and (line := self.owner.disputed()) is not None:
            await self.node.submit((line,), ())
        elif kind == "lose":
            await self.lose_a_key(self.owner, f"lost {number}")
        elif kind in ("yank", "warn", "vouch", "derive"):
            await self.node.submit((STRANGER.entry.line, self.said(kind, artifact, f"{kind} {number}")), ())
        elif kind in ("approve", "end"):
            await self.approve(artifact, end=kind == "end")
        elif kind == "base":
            await self.change_base(number)

    def source(self, content: str) -> Path:
        """A folder of files: some of its own, and one that all artifacts of this history have."""
        source = self.sources / content
        if not source.exists():
            source.mkdir(parents=True)
            (source / "config.json").write_text(f"{self.repository} {content}\n")
            (source / SHARED).write_text(f"{self.repository}\n")
        return source

    async def publish(self, version: str) -> None:
        """A version with new bytes or old ones, by the newest key or an older one."""
        source = self.source(self.draw.choice(["a", "b", version]))
        own = [Parent("finetune", f"{self.repository}@base", each) for each in self.versions.values()]
        key, chosen = self.draw.choice(self.owner.keys), self.draw.choice([None, self._base, *own])
        name, spdx = f"{self.repository}@{version}", self.draw.choice(["MIT", "Apache-2.0"])
        made = self.owner.release(source, name, key, spdx, ())
        if chosen is not None and chosen.digest != made.artifact:
            made = self.owner.release(source, name, key, spdx, (chosen,))
        await send(self.node, made)
        self.versions[version] = made.artifact
        self.releases.setdefault(made.artifact, made)

    async def change_base(self, number: int) -> None:
        """The publisher of the base changes its keys, says that one was stolen, or warns of the base."""
        what = self.draw.choice(["rotate", "lose", "yank"])
        if what == "rotate" and len(self.base.keys) < 3:
            await self.node.submit((self.base.rotated(),), ())
        elif what == "lose":
            await self.lose_a_key(self.base, f"base lost {number}")
        elif what == "yank" and self._base is not None and self._base.digest is not None:
            said = Advisory(self.base.author, self._base.digest, "yank", "high", f"base yank {number}")
            await self.node.submit((sign_content(said, self.base.keys[-1]).line,), ())
            self.warned.add(said.text)

    async def lose_a_key(self, owner: Owner, text: str) -> None:
        origin = self.homes[0].origin
        note = await self.node.checkpoint(origin)
        size = Checkpoint.parse(SignedNote.parse(note).text).size
        lost = Compromise(self.draw.choice(owner.keys).public.id, origin, max(0, size - self.draw.randrange(8)))
        said = Advisory(owner.author, owner.id, KEY_COMPROMISE, "critical", text, lost)
        await self.node.submit((sign_content(said, owner.keys[-1]).line,), ())
        self.warned.add(text)
        self.lost.add(owner.id)

    def said(self, kind: str, artifact: Digest, text: str) -> bytes:
        """A statement about an artifact: a yank of its publisher, or what a stranger says."""
        if kind == "yank":
            self.warned.add(text)
            return sign_content(Advisory(self.owner.author, artifact, kind, "high", text), self.owner.keys[-1]).line
        author, key = STRANGER.inception.author, STRANGER.signer
        if kind == "warn":
            return sign_content(Advisory(author, artifact, "malware", "high", text), key).line
        if kind == "vouch":
            return sign_content(Vouched(author, artifact, "rehashed", text), key).line
        return derived_line(artifact, sha256(text.encode()), by=STRANGER)

    async def approve(self, artifact: Digest, *, end: bool) -> None:
        now = int(time.time())
        if not end:
            approved = Approved(OFFICER.id, artifact, SCOPE, now - DAY, now + DAY, now)
            self.approvals.append(sign_content(approved, OFFICER.signer))
            await self.node.submit((OFFICER.entry.line, self.approvals[-1].line), ())
        elif self.approvals:
            entry = self.draw.choice(self.approvals)
            ended = ApprovalEnded(OFFICER.id, entry.statement.subject, entry.statement_digest, now - DAY, "")
            await self.node.submit((sign_content(ended, OFFICER.signer).line,), ())

    async def copied(self) -> None:
        """Wait until every node shows a copy of every artifact at every node."""
        for home in self.homes:
            async with home.client() as client:
                for artifact in self.artifacts:
                    await until(partial(self._all_hold, client, artifact), what="every copy to be claimed")

    async def _all_hold(self, client: NodeClient, artifact: Digest) -> bool:
        listed = (await client.audits.copies(artifact)).artifacts
        return sum(len(each.copies) for each in listed) == len(self.homes)

    async def copy_step(self) -> None:
        """A node tests the copies of others, withdraws its own or wants it back, or has damaged it and is tested."""
        artifact, kind = self.draw.choice(self.artifacts), self.draw.choice(COPY_KINDS)
        gone = self.withdrew.setdefault(artifact, set())
        holders = [home for home in self.homes if home.name not in gone]
        others = [home for home in self.homes if home.name in gone]
        home = self.draw.choice(holders)
        if kind == "restore" and others:
            await self.restore(self.draw.choice(others), artifact)
        elif kind == "test":
            await tested(home, artifact)
        elif kind == "withdraw" and len(holders) > 1:
            reason, keep = self.draw.choice(WITHDRAWAL_REASONS), self.draw.random() < 0.5
            await decide(home, HoldOrder(artifact, reason, "order 12", keep=keep, force=True))
            gone.add(home.name)
        elif kind == "damage" and len(holders) > 1:
            await self.damage(home, next(each for each in holders if each is not home), artifact)

    async def restore(self, home: NodeHome, artifact: Digest) -> None:
        await decide(home, HoldOrder(artifact, again=True))
        async with home.client() as client:

            async def holds() -> bool:
                listed = (await client.audits.copies(artifact)).artifacts
                return any(copy.copy.node == home.record.node.id and copy.counts for copy in listed[0].copies)

            await until(holds, what=f"{home.name} to hold it again")
        self.withdrew[artifact].discard(home.name)

    async def damage(self, home: NodeHome, tester: NodeHome, artifact: Digest) -> None:
        """Overwrite the file that no other artifact has, test the copy, and wait until the node has repaired it."""
        (digest,) = (digest for digest, path in self.releases[artifact].blobs.items() if path.name != SHARED)
        path = FolderStore(home.config().storage.blobs).path(digest)
        path.chmod(0o644)
        path.write_bytes(bytes(path.stat().st_size))
        await tested(tester, artifact)
        await until(lambda: path.exists() and sha256(path.read_bytes()) == digest, what=f"{home.name} to repair it")


async def decide(home: NodeHome, order: HoldOrder) -> None:
    async with home.operator() as operator:
        await operator.audits.decide(order)


async def tested(home: NodeHome, artifact: Digest) -> None:
    """A node tests the copies of all others."""
    async with home.operator() as operator:
        async for _ in operator.audits.check(artifact):
            pass


async def logged_history(
    homes: tuple[NodeHome, ...], owner: Owner, base: Owner, seed: int, sources: Path, steps: int
) -> History:
    async with homes[0].client() as node:
        history = History(homes, node, owner, base, random.Random(seed), sources, f"lab-{seed}/tiny")
        await history.begin()
        for number in range(steps):
            await history.step(number)
        await history.copied()
        for _ in range(steps // 2):
            await history.copy_step()
        return history
