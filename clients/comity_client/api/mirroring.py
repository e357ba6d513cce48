"""Bytes: from nodes, from an upstream through a node of one's own, and judged here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from comity.trust.errors import NotFound
from comity.trust.manifest import Manifest
from comity.trust.names import Name, is_segment
from comity.trust.policy import Policy
from comity.trust.verdict import Verdict
from comity.trust.verify import verify
from comity.verifier import examine
from comity.wire.upstream_values import ImportOrder

from comity_client.api.base import Base, Resolution, workers
from comity_client.events import OnEvent, ignore
from comity_client.evidence.mirrored import upstream_of
from comity_client.nodes.session import Session
from comity_client.publishing.importing import Checked, Imported, check_at, import_at
from comity_client.pulling.held import reference_of
from comity_client.pulling.hub_cache import HubPlace, cached, default_cache
from comity_client.pulling.keyless import keyless_for
from comity_client.pulling.place import FolderPlace, Place
from comity_client.pulling.pull import Pulled, Tools, pull


class Mirroring(Base):
    """Bytes: from nodes, from an upstream through a node of one's own, and judged here."""

    def pull(
        self,
        reference: str,
        *,
        to: Path | None = None,
        hub_cache: Path | None = None,
        include: Sequence[str] = (),
        policy: Policy | None = None,
        on_event: OnEvent = ignore,
    ) -> Pulled:
        """Have an artifact on this machine, verified: in folder `to`, or in a Hub cache (the user's own by default).

        Raises what `pull.pull` raises; nothing is placed then, and what is verified stays for the next try.
        """

        async def work(session: Session) -> Pulled:
            judged_by = policy or self._policy_for(reference)
            resolution = await self._resolve(session, reference, judged_by)
            tools = Tools(session, self._memory(), self._placed(), judged_by, self._limits, on_event)
            return await pull(tools, resolution, lambda made: _place(resolution, made, to, hub_cache), include)

        return self._with(work, on_event)

    def verify(
        self,
        what: Path | str,
        *,
        policy: Policy | None = None,
        hub_cache: Path | None = None,
        on_hashed: Callable[[int], None] | None = None,
    ) -> Verdict:
        """Judge a folder with its evidence pack, or what a reference stands for in a Hub cache. Uses no network.

        Raises NotFound where it is not here, Malformed where a pack breaks a bound.
        """
        folder = Path(what)
        if isinstance(what, str) and not folder.is_dir():
            folder = cached(hub_cache or default_cache(), reference_of(what))
        evidence = examine(folder, workers=workers(), on_hashed=on_hashed)
        judged_by = policy or self._policy_for(str(what))
        return verify(evidence, judged_by, keyless=keyless_for(judged_by))

    def import_upstream(
        self,
        source: str | Path,
        node: str,
        *,
        endpoint: str = "",
        hosts: Sequence[str] = (),
        terms: bytes = b"",
        token: str = "",
        claimed: str = "",
        on_event: OnEvent = ignore,
    ) -> Imported:
        """Have a node mirror a repository of a Hub (`hf:org/name[@revision]`), or take in a folder on its machine.

        Args:
            node: the path of its operator's socket.
            endpoint: the Hub's URL; the Hugging Face Hub's where none is given.
            hosts: from where files may come beside the endpoint.
            terms, token: what was accepted upstream, and the token that the endpoint alone is shown.
            claimed: where a folder is from, if its layout does not say.

        Repeating it after a failure goes on from there. Raises as `importing.import_at` does.
        """
        folder = str(source.absolute()) if isinstance(source, Path) else ""
        name = claimed if isinstance(source, Path) else source
        order = ImportOrder(name, endpoint, folder, tuple(hosts), terms, token)
        return self._with(lambda session: import_at(session, self._memory(), node, order, on_event), on_event)

    def check_upstream(self, name: str, node: str, *, token: str = "") -> Checked:
        """Have a node ask again how the upstream of `hf:org/name@commit` stands. Raises as `importing.check_at`."""
        return self._with(lambda session: check_at(session, node, name, token))


def _place(resolution: Resolution, manifest: Manifest, to: Path | None, hub_cache: Path | None) -> Place:
    if to is not None:
        return FolderPlace(to, manifest)
    upstream = upstream_of(resolution.mirroring)
    if upstream and (resolution.reference.mirrored or not resolution.publication):
        namespace, _, repository = upstream.repository.partition("/")
        named = Name(namespace, repository, upstream.requested if is_segment(upstream.requested) else upstream.commit)
        return HubPlace(hub_cache or default_cache(), named, manifest, newest=False, commit=upstream.commit)
    if resolution.publication is None:
        hint = f"comity pull {resolution.reference} --to DIR"
        raise NotFound("an artifact without a name has no place in a Hub cache", hint=hint, code="NO-NAME")
    newest = resolution.reference.version is None and resolution.reference.digest is None
    name = resolution.publication.published.name
    return HubPlace(hub_cache or default_cache(), name, manifest, newest=newest)
