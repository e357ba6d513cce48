"""What publishers say, under which keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from comity.trust.errors import Conflict
from comity.trust.keys import PrivateKey
from comity.trust.names import Name
from comity.trust.rotation import Cut
from comity.trust.statement import MAX_OBJECT_BYTES
from comity.trust.statements.claims import KEY_COMPROMISE, Advisory, Compromise
from comity.trust.statements.published import Parent
from comity.verifier import read_bounded

from comity_client.api.base import workers
from comity_client.api.looking import Looking
from comity_client.compute.voice import Voice
from comity_client.events import OnEvent, ignore
from comity_client.lineage.graph import with_digests
from comity_client.nodes.session import Session
from comity_client.owner.publishers import Publisher, change_keys, lost_key, new_publisher
from comity_client.publishing.publish import (
    Described,
    Logged,
    Receipt,
    log_keys,
    publish_advisory,
    publish_folder,
)
from comity_client.publishing.vouching import Word, vouch


class Publishing(Looking):
    """What publishers say, under which keys."""

    def new_publisher(self, label: str, jurisdiction: str, home_origin: str) -> Publisher:
        """A new identity. Raises Conflict, Malformed."""
        folder = self.home.ensure(self.home.publishers)
        return new_publisher(folder, label=label, jurisdiction=jurisdiction, home=home_origin)

    def change_keys(
        self,
        publisher: Publisher,
        *,
        recovery: Sequence[Path] = (),
        nodes: Sequence[str] = (),
        on_event: OnEvent = ignore,
    ) -> tuple[Publisher, tuple[Logged, ...]]:
        """New keys for a publisher, by its recovery key; logged like a publication, with a cut of its home log as it is
        now. The new keys are on this disk before anything is logged: on a failure there, publish or call `log_keys`.

        Raises as `publishers.change_keys` and `publish.publish_folder` do.
        """

        cut = [self.cut(publisher.home)] if publisher.home else []
        changed = change_keys(publisher, recovery, cut)
        return changed, self.log_keys(changed, nodes=nodes, on_event=on_event)

    def cut(self, origin: str) -> Cut:
        """How long a log is now: what stands in it below was said before a change of keys that names this. Raises as
        `log_checkpoint` does."""
        seen = self.log_checkpoint(origin).checkpoint
        return Cut(seen.origin, seen.size, seen.root)

    def log_keys(
        self, publisher: Publisher, *, nodes: Sequence[str] = (), on_event: OnEvent = ignore
    ) -> tuple[Logged, ...]:
        """Log a publisher's inception and rotations once more. Raises as `publish` does."""
        return self._with(
            lambda session: log_keys(session, self._memory(), publisher, nodes or [publisher.home], on_event=on_event),
            on_event,
        )

    def publish(
        self,
        folder: Path,
        name: str,
        *,
        publisher: Publisher,
        licence: str,
        licence_file: Path | None = None,
        card: Path | None = None,
        parents: Sequence[Parent] = (),
        model_key: PrivateKey | None = None,
        documents: Mapping[str, Path] | None = None,
        nodes: Sequence[str] = (),
        link: bool = False,
        on_event: OnEvent = ignore,
    ) -> Receipt:
        """Publish a folder as `namespace/name@version`.

        Args:
            parents: those without a digest get that of the artifact which their name stands for now, if it does.
            licence: SPDX expression; its text is archived from `licence_file`, or LICENSE in the folder.
            model_key: writes a `model.sig` into the folder first (`model_signing.own_key` gives the publisher's own).
            documents: files to put beside it, by kind (`published.DOCUMENTS`).
            nodes: where to log it: names or addresses of known nodes, or paths of operators' sockets. The publisher's
                home log's node where none is given.
            link: let the node on this machine take the files by hard link; needs the operator's socket.

        The receipt's inclusion proofs were checked. Raises as `publish.publish_folder` does.
        """
        full = Name.parse(name)

        async def work(session: Session) -> Receipt:
            policy = self.policy()
            named = await with_digests(parents, lambda name: self._resolve(session, name, policy), on_event)
            return await publish_folder(
                session,
                self._memory(),
                folder,
                full,
                publisher,
                Described(licence, licence_file, card, named, model_key, documents or {}),
                nodes or [publisher.home],
                workers=workers(),
                link=link,
                on_event=on_event,
            )

        return self._with(work)

    def advise(
        self,
        reference: str,
        kind: str,
        severity: str,
        text: str,
        *,
        publisher: Publisher,
        nodes: Sequence[str] = (),
        on_event: OnEvent = ignore,
    ) -> Receipt:
        """Log a warning about an artifact. Raises as `publish` does."""

        async def work(session: Session) -> Receipt:
            resolution = await self._resolve(session, reference, self.policy())
            advisory = Advisory(publisher.inception.author, resolution.artifact, kind, severity, text)
            return await publish_advisory(
                session,
                self._memory(),
                resolution.title,
                advisory,
                publisher,
                nodes or [publisher.home],
                on_event=on_event,
            )

        return self._with(work)

    def report_lost_key(
        self,
        publisher: Publisher,
        since: int,
        text: str,
        *,
        key: str = "",
        severity: str = "critical",
        nodes: Sequence[str] = (),
        on_event: OnEvent = ignore,
    ) -> Receipt:
        """Log that a key of a publisher was in other hands from an entry of its home log on.

        Args:
            key: the beginning of the key's digest; the one that was last retired, or the present one, if not given.

        Raises NotFound (WHICH-KEY), Conflict (NO-HOME-LOG), and as `publish` does.
        """
        if not publisher.home:
            why = "the notice names an entry of it, from which on the key counts no more"
            raise Conflict(
                f"{publisher.label} has no home log", why=why, hint="comity publisher rotate --help", code="NO-HOME-LOG"
            )
        lost = Compromise(lost_key(publisher, key), publisher.home, since)
        warning = Advisory(publisher.inception.author, publisher.id, KEY_COMPROMISE, severity, text, lost)
        targets = nodes or [publisher.home]
        return self._with(
            lambda session: publish_advisory(
                session, self._memory(), publisher.label, warning, publisher, targets, on_event=on_event
            )
        )

    def vouch(
        self,
        what: Path | str,
        statement: str,
        *,
        text: str = "",
        document: Path | None = None,
        by: Publisher | Voice,
        nodes: Sequence[str] = (),
        on_event: OnEvent = ignore,
    ) -> Receipt:
        """Log that one rehashed, evaluated or reproduced an artifact: a folder, or what a reference stands for.

        *Rehashed* is logged only after every file that is here was hashed and is as its manifest lists. Raises as
        `vouching.vouch` and `publish` do.

        Args:
            by: a publisher, or a member with its governance keys (`Voice.of_member`).
        """
        voice = Voice.of_publisher(by) if isinstance(by, Publisher) else by
        word = Word(statement, text, read_bounded(document, MAX_OBJECT_BYTES) if document else None)

        async def work(session: Session) -> Receipt:
            return await vouch(
                session,
                self._memory(),
                what,
                word,
                voice,
                nodes or [voice.home],
                resolve=lambda reference: self._resolve(session, reference, self.policy()),
                policy=self.policy(),
                workers=workers(),
                on_event=on_event,
            )

        return self._with(work, on_event)
