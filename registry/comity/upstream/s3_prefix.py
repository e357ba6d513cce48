"""Reads the objects below a prefix of an S3 bucket as an upstream.

    ENDPOINT https://s3.example.org/BUCKET[/PREFIX], NAME tiny   →   the objects BUCKET/PREFIX/tiny/…

The bucket is in the path of the endpoint (path style). The objects are listed, and each is asked for its size, ETag,
version and checksum. A SHA-256 that the service keeps of the whole object (`x-amz-checksum-sha256`) is compared with
the bytes. Where there is none, nothing is compared: not every service computes an ETag in the same way. The ETag still
pins the object: a file is requested in the listed version, and only if its ETag is the listed one. The commit is the
first 40 hex digits of a SHA-256 of the paths with these checksums, or else with ETags, versions and sizes.

A public bucket is read without keys. The token of an import may be `ACCESS_KEY:SECRET_KEY`: it signs URLs and is sent
to nobody. All answers come through `guarded`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree

from comity.trust.artifact import MAX_FILES
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, NotFound, Unavailable
from comity.trust.upstream import S3_PREFIX, Upstream, is_commit
from comity.upstream.guarded import AllowedHosts, Ask, guarded_requests, not_found, require_success, unusable
from comity.upstream.listed_files import (
    MAIN,
    ListedFile,
    RepositoryListing,
    RevisionInfo,
    UpstreamRequest,
    check_paths,
    list_commit,
    require_host,
)

MAX_OBJECTS: Final = 10_000
"""Objects below one prefix: each is asked for its checksum by one request."""
MAX_PAGE: Final = 4 * 1024 * 1024
"""Bytes of one page of a listing: 1,000 keys of at most 1,024 bytes, and a margin."""
SIGNED_SECONDS: Final = 3600
_CHECKSUM: Final = "x-amz-checksum-mode"
_ETAG: Final = re.compile(r'"[!#-~]{1,128}"\Z')
_VERSION: Final = re.compile(r"[!-~]{1,1024}\Z")
_SIZE: Final = re.compile(r"[0-9]{1,15}\Z")
_REGION: Final = re.compile(r"s3[.-]([a-z]{2}(?:-[a-z]+)+-[0-9])\.amazonaws\.com\Z")


def parse_page(body: bytes) -> tuple[list[str], str]:
    """The keys on a page of `ListObjectsV2`, and the token of the next page; empty on the last one.

    Raises Malformed (UPSTREAM-ANSWER).
    """
    if len(body) > MAX_PAGE or b"<!" in body:  # a document type is never in a listing, and could define entities
        raise unusable("a page of the listing is too large, or has a document type")
    try:
        page = ElementTree.fromstring(body)
    except ElementTree.ParseError as error:
        raise unusable("a page of the listing is not XML") from error
    keys = [key.text or "" for key in page.findall("{*}Contents/{*}Key")]
    more = page.findtext("{*}IsTruncated") == "true"
    token = page.findtext("{*}NextContinuationToken") or ""
    if more and not token:
        raise unusable("a page of the listing is followed by others, and does not say by which")
    return keys, token if more else ""


def parse_object(path: str, headers: Any) -> ListedFile:
    """An object, by the headers of the answer to HEAD. `version` is its ETag, and its version if it has one. Raises
    Malformed (UPSTREAM-ANSWER)."""
    size, etag = str(headers.get("content-length", "")), str(headers.get("etag", ""))
    if not _SIZE.match(size) or not _ETAG.match(etag):
        raise unusable(f"{path[:120]!r} has no size or no ETag")
    version = str(headers.get("x-amz-version-id", "null"))
    if not _VERSION.match(version):
        raise unusable(f"{path[:120]!r} has an invalid version")
    pinned = etag if version == "null" else f"{etag} {version}"
    return ListedFile(path, int(size), "", _checksum(path, headers), version=pinned)


def _checksum(path: str, headers: Any) -> Digest | None:
    """The SHA-256 of the whole object; None if there is none, or one of the hashes of its parts (`…-3`)."""
    given = str(headers.get("x-amz-checksum-sha256", ""))
    if not given or "-" in given or headers.get("x-amz-checksum-type", "FULL_OBJECT") != "FULL_OBJECT":
        return None
    try:
        raw = base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise unusable(f"{path[:120]!r} has an invalid SHA-256")
    return Digest(raw.hex())


def prefix_commit(files: Iterator[ListedFile]) -> str:
    """The commit of the listed objects."""
    return list_commit({file.path: file.lfs or f"{file.size} {file.version}" for file in files})


class S3Prefix:
    """Reads prefixes below one endpoint. Blocking; raises as `HubApi` does."""

    def __init__(self, allowed_hosts: AllowedHosts, *, read_timeout: float) -> None:
        self._key, _, self._secret = allowed_hosts.token.partition(":")
        self.allowed_hosts = replace(allowed_hosts, token="")
        self._read_timeout = read_timeout
        parts = urlsplit(allowed_hosts.endpoint)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._region = found[1] if (found := _REGION.match(parts.hostname or "")) else "us-east-1"
        self._bucket, _, above = parts.path.strip("/").partition("/")
        self._above = f"{above}/" if above else ""
        if not self._bucket:
            raise Malformed(
                f"{allowed_hosts.endpoint} names no bucket",
                why="expected https://host/bucket, with a prefix after it or none",
                hint="comity import s3://host/bucket/NAME",
                code="BAD-ENDPOINT",
            )

    def revision_info(self, wanted: UpstreamRequest) -> RevisionInfo:
        """The commit of the objects that are there now."""
        require_host(self.allowed_hosts.endpoint, wanted)
        commit = prefix_commit(iter(self._objects(wanted.repository)))
        if wanted.revision not in (MAIN, commit):
            kind = "commit" if is_commit(wanted.revision) else "branch or tag"
            raise not_found(f"{wanted}", f"the objects there are now {commit}, and a bucket has no {kind} beside it")
        upstream = Upstream(self.allowed_hosts.endpoint, wanted.repository, commit, wanted.revision, S3_PREFIX)
        return RevisionInfo(upstream, "", "")

    def listing(self, revision_info: RevisionInfo) -> RepositoryListing:
        """The pinned objects. Raises NotFound if others are there meanwhile."""
        upstream = revision_info.upstream
        files = {file.path: file for file in self._objects(upstream.repository)}
        if prefix_commit(iter(files.values())) != upstream.commit:
            raise not_found(upstream.name, "objects were replaced while they were listed")
        return RepositoryListing.of(revision_info, files)

    def file_request(self, upstream: Upstream, listed: ListedFile) -> tuple[str, dict[str, str]]:
        """The signed URL of an object in its listed version, on the condition that its ETag is the listed one."""
        etag, _, version = listed.version.partition(" ")
        query = {"versionId": version} if version else {}
        key = self._prefix(upstream.repository) + listed.path
        return self._signed("GET", self._url(key, query), {"If-Match": etag}), {"If-Match": etag}

    def _objects(self, repository: str) -> list[ListedFile]:
        prefix = self._prefix(repository)
        with guarded_requests(self.allowed_hosts, self._read_timeout) as ask:
            keys = list(self._keys(ask, prefix))
            if not keys:
                what = f"{self._origin}/{self._bucket}/{prefix}"
                raise NotFound(f"{what} has no objects", why="there is nothing to mirror", code="UPSTREAM-NOT-FOUND")
            check_paths(key.removeprefix(prefix) for key in keys)  # before any object is requested
            return [self._object(ask, prefix, key) for key in keys]

    def _keys(self, ask: Ask, prefix: str) -> Iterator[str]:
        """Every key below the prefix; names of folders, which end in `/`, are no objects with content."""
        token, count = "", 0
        while True:
            query = {"list-type": "2", "prefix": prefix, **({"continuation-token": token} if token else {})}
            answer = ask("GET", self._signed("GET", self._url("", query), {}))
            if not require_success(answer, f"{self._bucket}/{prefix}", self.allowed_hosts.origin):
                raise not_found(f"{self._bucket}/{prefix}", f"{self.allowed_hosts.origin} has no such bucket")
            keys, token = parse_page(answer.content)
            if any(not key.startswith(prefix) for key in keys):
                raise unusable("it lists keys outside of the prefix")
            count += len(keys)
            if count > min(MAX_OBJECTS, MAX_FILES) or (token and not keys):
                raise unusable(f"it lists more than {MAX_OBJECTS} objects, or an empty page before the last")
            yield from (key for key in keys if not key.endswith("/"))
            if not token:
                return

    def _object(self, ask: Ask, prefix: str, key: str) -> ListedFile:
        mode = {_CHECKSUM: "ENABLED"}
        answer = ask("HEAD", self._signed("HEAD", self._url(key, {}), mode), **mode)
        if not require_success(answer, key, self.allowed_hosts.origin):
            raise not_found(key, "the bucket lists the object and has it not")
        return parse_object(key.removeprefix(prefix), answer.headers)

    def _prefix(self, repository: str) -> str:
        return f"{self._above}{repository.partition('/')[2]}/"

    def _url(self, key: str, query: dict[str, str]) -> str:
        tail = f"?{urlencode(query, quote_via=quote)}" if query else ""
        return f"{self._origin}/{quote(f'{self._bucket}/{key}' if key else self._bucket)}{tail}"

    def _signed(self, method: str, url: str, headers: dict[str, str]) -> str:
        """The URL with a signature of its query and these headers; unchanged without keys."""
        if not self._key:
            return url
        try:
            from botocore.auth import S3SigV4QueryAuth
            from botocore.awsrequest import AWSRequest
            from botocore.credentials import Credentials
        except ImportError as error:
            hint = "pip install 'comity[s3]'"
            raise Unavailable("URLs cannot be signed", why=str(error), hint=hint, code="NO-IMPORTER") from error
        request = AWSRequest(method, url, headers=headers)
        S3SigV4QueryAuth(Credentials(self._key, self._secret), "s3", self._region, SIGNED_SECONDS).add_auth(request)
        return str(request.url)
