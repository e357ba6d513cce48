"""Reads an image in an OCI registry as an upstream: its layers are files, or archives of files.

    ENDPOINT https://registry.example/org, NAME tiny, revision v1   →   https://registry.example/v2/org/tiny/manifests/v1

The name of a file is in the annotation of its layer (`TITLES`); its digest and size are the layer's. A layer that packs
files (tar) is fetched as the registry lists it, and then unpacked by `packed_layers`. An image with a layer that is
neither is refused as a whole. The commit is the first 40 hex digits of the SHA-256 of the manifest. A registry finds no
manifest by these: a revision is a tag, or `sha256:` and all digits. Sources: OCI distribution 1.1, OCI image 1.1,
ModelPack model format 0.0.6.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final
from urllib.parse import quote, urlsplit

from comity.trust.artifact import MAX_FILES
from comity.trust.encoding import bare_digest, sha256
from comity.trust.upstream import OCI_IMAGE, Upstream, is_commit
from comity.upstream.guarded import AllowedHosts, Ask, guarded_requests, not_found, require_success, unusable
from comity.upstream.listed_files import (
    MAIN,
    MAX_TOTAL,
    ListedFile,
    RepositoryListing,
    RevisionInfo,
    UpstreamRequest,
    require_host,
)
from comity.upstream.packed_layers import packing_of, refused_layer
from comity.upstream.registry_tokens import RegistryTokens

IMAGE: Final = "application/vnd.oci.image.manifest.v1+json"
TITLES: Final = ("org.cncf.model.filepath", "org.opencontainers.image.title")
LATEST: Final = "latest"
MAX_BODY: Final = 4 * 1024 * 1024
"""Bytes of a manifest that registries accept (OCI distribution 1.1)."""
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}\Z")


def parse_layers(body: bytes) -> dict[str, ListedFile]:
    """The files of an image manifest. Raises Malformed (UPSTREAM-ANSWER, UPSTREAM-PACKED)."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise unusable("the manifest is not JSON") from error
    layers = found.get("layers") if isinstance(found, dict) else None
    if not isinstance(layers, list) or len(layers) > MAX_FILES:
        raise unusable("the manifest is not of an image")
    files: dict[str, ListedFile] = {}
    for layer in layers:
        file = _layer(layer)
        if file.path in files:
            raise unusable(f"two layers are named {file.path[:120]!r}")
        files[file.path] = file
    return files


def _layer(layer: Any) -> ListedFile:
    if not isinstance(layer, dict):
        raise unusable("a layer is not an object")
    kind, digest, size = layer.get("mediaType"), layer.get("digest"), layer.get("size")
    notes = layer.get("annotations")
    titles = [notes[key] for key in TITLES if key in notes] if isinstance(notes, dict) else []
    if not isinstance(kind, str) or not isinstance(digest, str) or not _DIGEST.match(digest):
        raise unusable("a layer has no media type, or no SHA-256")
    if type(size) is not int or not 0 <= size <= MAX_TOTAL:
        raise unusable("a layer has an invalid size")
    bare = bare_digest(digest.removeprefix("sha256:"))
    if packing := packing_of(kind):
        return ListedFile(f"layer-{bare}.{packing.replace('+', '.')}", size, "", bare, packing=packing)
    if not titles or not isinstance(titles[0], str):
        raise refused_layer(f"a layer of type {kind[:80]!r} has no name in its annotations")
    return ListedFile(titles[0], size, "", bare)


class OciImage:
    """Reads images of one registry. Blocking; raises as `HubApi` does, and Malformed (UPSTREAM-PACKED)."""

    def __init__(self, allowed_hosts: AllowedHosts, *, read_timeout: float) -> None:
        self._tokens = RegistryTokens(allowed_hosts, read_timeout)
        self.allowed_hosts = self._tokens.allowed_hosts
        self._read_timeout = read_timeout
        self._asked = False

    def revision_info(self, wanted: UpstreamRequest) -> RevisionInfo:
        """The commit of the manifest that a tag or a digest names now."""
        require_host(self.allowed_hosts.endpoint, wanted)
        with guarded_requests(self.allowed_hosts, self._read_timeout) as ask:
            body = self._manifest(ask, wanted.repository, wanted.revision)
        commit = sha256(body)[:40]
        if is_commit(wanted.revision) and wanted.revision != commit:
            raise not_found(f"{wanted}", "a tag of 40 hex digits is no commit here: name the digest of its manifest")
        upstream = Upstream(self.allowed_hosts.endpoint, wanted.repository, commit, wanted.revision, OCI_IMAGE)
        return RevisionInfo(upstream, "", "")

    def listing(self, revision_info: RevisionInfo) -> RepositoryListing:
        """The files of the pinned manifest. Raises NotFound if the tag names another one meanwhile."""
        upstream = revision_info.upstream
        with guarded_requests(self.allowed_hosts, self._read_timeout) as ask:
            body = self._manifest(ask, upstream.repository, upstream.requested)
            if sha256(body)[:40] != upstream.commit:
                raise not_found(upstream.name, "the tag was moved while the manifest was read")
            return RepositoryListing.of(revision_info, parse_layers(body))

    def file_request(self, upstream: Upstream, listed: ListedFile) -> tuple[str, dict[str, str]]:
        """The URL of a layer, with the credentials that the registry accepts now: it is asked for the manifest, because
        a request for a layer may be redirected."""
        if self._tokens.demanded or not self._asked:
            with guarded_requests(self.allowed_hosts, self._read_timeout) as ask:
                self._request(ask, "HEAD", upstream.repository, upstream.requested)
        credentials = self._tokens.headers(self._path(upstream.repository))
        return f"{self._base(upstream.repository)}/blobs/sha256:{listed.lfs}", credentials

    def _manifest(self, ask: Ask, repository: str, revision: str) -> bytes:
        """The manifest of a revision, with the digest that it was requested by."""
        by = LATEST if revision == MAIN else revision
        answer = self._request(ask, "GET", repository, revision)
        if not require_success(answer, repository, self.allowed_hosts.origin):
            raise not_found(f"{repository}@{revision}", f"{self.allowed_hosts.origin} has no such image")
        body = bytes(answer.content)
        if len(body) > MAX_BODY:
            raise unusable(f"the manifest has more than {MAX_BODY} bytes")
        given = str(answer.headers.get("docker-content-digest", f"sha256:{sha256(body)}"))
        if given != f"sha256:{sha256(body)}" or (_DIGEST.match(by) and given != by):
            raise unusable(f"the manifest does not have the digest {given[:80]!r} or the requested one")
        return body

    def _request(self, ask: Ask, method: str, repository: str, revision: str) -> Any:
        """The answer to a request for a manifest, asked for once more after a demand for credentials."""
        by = LATEST if revision == MAIN else revision
        if not _TAG.match(by) and not _DIGEST.match(by):
            raise not_found(
                f"{repository}@{revision}", "it is neither a tag of a registry nor sha256: and 64 hex digits"
            )
        url, path = f"{self._base(repository)}/manifests/{by}", self._path(repository)
        credentials = self._tokens.headers(path)
        answer = ask(method, url, Accept=IMAGE, **credentials)
        if answer.status_code == 401 and self._tokens.learn(answer, path, credentials):
            answer = ask(method, url, Accept=IMAGE, **self._tokens.headers(path))
        self._asked = True
        return answer

    def _base(self, repository: str) -> str:
        parts = urlsplit(self.allowed_hosts.endpoint)
        return f"{parts.scheme}://{parts.netloc}/v2/{quote(self._path(repository))}"

    def _path(self, repository: str) -> str:
        """The name of a repository at its registry: the path of the endpoint is the part before the last segment."""
        above = urlsplit(self.allowed_hosts.endpoint).path
        return f"{above}/{repository.partition('/')[2]}".removeprefix("/")
