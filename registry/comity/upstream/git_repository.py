"""Reads a git repository with LFS over HTTPS as an upstream.

    ENDPOINT https://git.example.org/org, NAME tiny   →   https://git.example.org/org/tiny.git

    GET  …/info/refs?service=git-upload-pack    what the server can do (protocol version 2)
    POST …/git-upload-pack                      the commit of a branch or tag; then one pack with the commit, its
                                                folders and its files of at most `MAX_BLOB` bytes, and no history
    POST …/info/lfs/objects/batch               from where the bytes of an LFS file come; asked before each request

No git program and no clone: the answers are parsed by `git_objects`, and every request goes through `guarded`, as those
to other upstreams. So a server can lead nowhere but to hosts that the operator named, a limit on requests is obeyed as
elsewhere, and no hook, helper or configuration of git is read, neither this machine's nor the repository's
(`.lfsconfig`). The SHA-1 of the commit, of its folders and of its files are computed here: the commit names this list.
An LFS file has the SHA-256 in its pointer. Links, submodules, and larger files outside LFS are refused with the whole
commit. Sources: gitprotocol-http, gitprotocol-v2, Git LFS batch API.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Final
from urllib.parse import quote

from comity.trust.errors import Malformed
from comity.trust.upstream import GIT_REPOSITORY, Upstream, is_commit
from comity.upstream.git_objects import (
    BLOB,
    LINK_MODE,
    MAX_PACKED,
    GitObject,
    PackReader,
    TreeEntry,
    commit_entries,
    listed_blob,
    packet,
    packet_lines,
)
from comity.upstream.guarded import AllowedHosts, Ask, Origin, guarded_requests, not_found, require_success, unusable
from comity.upstream.listed_files import (
    MAIN,
    ListedFile,
    RepositoryListing,
    RevisionInfo,
    UpstreamRequest,
    require_host,
)

MAX_BLOB: Final = 32 * 1024 * 1024
"""Bytes of a file outside LFS. GitHub warns above 50 MB, and takes none above 100 MB."""
MAX_ANSWER: Final = MAX_PACKED + 4 * 1024 * 1024
"""Bytes of all answers to one question: a pack, and what surrounds it."""
MAX_BATCH: Final = 1024 * 1024
SHOWN: Final = 60
"""Characters of an unusable answer that are shown."""
PROTOCOL: Final = {"Git-Protocol": "version=2"}
LFS_TYPE: Final = "application/vnd.git-lfs+json"
_REF: Final = re.compile(r"([0-9a-f]{40}) ([!-~]{1,300})((?: [!-~]{1,300})*)\Z")
_HEADER: Final = re.compile(r"[ -~]{1,4096}\Z")
_PACK: Final = 1
_ERROR: Final = 3


def parse_refs(body: bytes) -> dict[str, str]:
    """The commits of branches and tags by their full names; of an annotated tag, the commit that it names. Raises
    Malformed (UPSTREAM-ANSWER)."""
    found: dict[str, str] = {}
    for line in _lines(body):
        match = _REF.match(line)
        if match is None:
            raise unusable("a line of its branches and tags is malformed")
        peeled = [word.removeprefix("peeled:") for word in match[3].split() if word.startswith("peeled:")]
        found[match[2]] = peeled[0] if peeled and is_commit(peeled[0]) else match[1]
    return found


def parse_pack_answer(body: bytes) -> dict[str, GitObject]:
    """The objects in an answer to `fetch`. Raises Malformed (UPSTREAM-ANSWER)."""
    parts, inside = list[bytes](), False
    for line in packet_lines(body):
        if isinstance(line, int):
            continue
        if not inside:
            inside = line == b"packfile\n"
        elif line[:1] == bytes([_PACK]):
            parts.append(line[1:])
        elif line[:1] == bytes([_ERROR]):
            raise unusable(f"it says {line[1:200]!r}")
    return PackReader(b"".join(parts)).objects()


def parse_batch(body: bytes, listed: ListedFile) -> tuple[str, dict[str, str]] | None:
    """Where an LFS file is, and the headers of its request; None if the server has it not. Raises Malformed
    (UPSTREAM-ANSWER)."""
    try:
        answer = json.loads(body)
        (item,) = answer["objects"]
        if (item["oid"], item["size"]) != (listed.lfs, listed.size) or answer.get("transfer", "basic") != "basic":
            raise unusable("the LFS server answers for another object, or with another way to transfer it")
        if "error" in item:
            return None
        download = item["actions"]["download"]
        href, given = download["href"], download.get("header") or {}
        headers = {name.title(): value for name, value in given.items() if name.lower() in ("authorization", "accept")}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise unusable("the answer of the LFS server is malformed") from error
    if not isinstance(href, str) or not all(isinstance(v, str) and _HEADER.match(v) for v in headers.values()):
        raise unusable("the answer of the LFS server has no URL, or an invalid header")
    return href, headers


class GitRepository:
    """Reads repositories of one server. Blocking; raises as `HubApi` does, and Malformed (UPSTREAM-ENTRY)."""

    def __init__(self, allowed_hosts: AllowedHosts, *, read_timeout: float) -> None:
        self.allowed_hosts = replace(allowed_hosts, token="")
        self._read_timeout = read_timeout
        user, colon, secret = allowed_hosts.token.rpartition(":")
        basic = base64.b64encode(f"{user if colon else 'git'}:{secret}".encode()).decode()
        self._authorization = {"Authorization": f"Basic {basic}"} if secret else {}

    def revision_info(self, wanted: UpstreamRequest) -> RevisionInfo:
        """The commit of a branch, a tag or a commit; `main` is the default branch where no branch has this name."""
        require_host(self.allowed_hosts.endpoint, wanted)
        with self._requests(MAX_ANSWER) as ask:
            server = _GitServer(ask, self._base(wanted.repository), f"{wanted}", self.allowed_hosts.origin)
            if is_commit(commit := wanted.revision):
                if commit not in server.fetch(commit, "tree:0"):
                    raise unusable(f"it did not send the commit {commit}")
            else:
                commit = server.resolve(wanted.revision)
        upstream = Upstream(self.allowed_hosts.endpoint, wanted.repository, commit, wanted.revision, GIT_REPOSITORY)
        return RevisionInfo(upstream, "", "")

    def listing(self, revision_info: RevisionInfo) -> RepositoryListing:
        """Every file of the pinned commit; those outside LFS with their bytes."""
        upstream = revision_info.upstream
        with self._requests(MAX_ANSWER) as ask:
            server = _GitServer(ask, self._base(upstream.repository), upstream.name, self.allowed_hosts.origin)
            objects = server.fetch(upstream.commit, f"blob:limit={MAX_BLOB + 1}")
            files: dict[str, ListedFile] = {}
            for entry in commit_entries(objects, upstream.commit):
                if entry.path in files:
                    raise unusable(f"it lists {entry.path[:120]!r} twice")
                files[entry.path] = _file(entry, objects)
            return RepositoryListing.of(revision_info, files)

    def file_request(self, upstream: Upstream, listed: ListedFile) -> tuple[str, dict[str, str]]:
        """Where the LFS server says that a file is: at the endpoint, or at a host that the operator named. Raises
        Untrusted (UPSTREAM-REDIRECT) for another host."""
        wanted = {
            "operation": "download",
            "transfers": ["basic"],
            "hash_algo": "sha256",
            "objects": [{"oid": listed.lfs, "size": listed.size}],
        }
        url = f"{self._base(upstream.repository)}/info/lfs/objects/batch"
        headers = {"Accept": LFS_TYPE, "Content-Type": LFS_TYPE}
        with self._requests(MAX_BATCH) as ask:
            answer = ask("POST", url, json.dumps(wanted).encode(), **headers)
            found = None
            if require_success(answer, upstream.name, self.allowed_hosts.origin):
                found = parse_batch(answer.content, listed)
            if found is None:
                why = f"{self.allowed_hosts.origin} has the pointer of this file, and not its bytes"
                raise not_found(f"{listed.path[:200]} of {upstream.name}", why)
        target = self.allowed_hosts.redirect(url, found[0])
        own = self._authorization if Origin.of(target) == self.allowed_hosts.origin else {}
        return target, own | found[1]

    @contextmanager
    def _requests(self, most: int) -> Iterator[Ask]:
        """What sends requests with the user's credentials, which the guard lets go to the endpoint alone."""
        with guarded_requests(self.allowed_hosts, self._read_timeout, most) as ask:
            yield partial(ask, **self._authorization)

    def _base(self, repository: str) -> str:
        return f"{self.allowed_hosts.endpoint}/{quote(repository.partition('/')[2])}.git"


class _GitServer:
    """One repository of a server, by protocol version 2.

    Args:
        what: what is requested, for errors.
    """

    def __init__(self, ask: Ask, base: str, what: str, origin: Origin) -> None:
        self._ask = ask
        self._base = base
        self._what = what
        self._origin = origin
        self._features = self._read_features()

    def _read_features(self) -> dict[str, str]:
        """What the server can do: names of commands, with what each accepts."""
        answer = self._ask("GET", f"{self._base}/info/refs?service=git-upload-pack", **PROTOCOL)
        if not require_success(answer, self._what, self._origin):
            raise not_found(self._what, f"{self._origin} has no such repository")
        lines = [line for line in _lines(answer.content) if not line.startswith("# service=")]
        if not lines or lines[0] != "version 2":
            first = repr(lines[0][:SHOWN]) if lines else "nothing"
            raise unusable(f"it is no git server that speaks version 2 of the protocol: it begins with {first}")
        features = {name: value for name, _, value in (line.partition("=") for line in lines[1:])}
        if features.get("object-format", "sha1") != "sha1":
            raise unusable("the repository has ids of another form than SHA-1")
        return features

    def resolve(self, revision: str) -> str:
        """The commit of a tag or a branch. Raises NotFound (UPSTREAM-NOT-FOUND)."""
        names = [f"refs/tags/{revision}", f"refs/heads/{revision}", *(["HEAD"] if revision == MAIN else [])]
        refs = parse_refs(self._command("ls-refs", "peel", *(f"ref-prefix {name}" for name in names)))
        commit = next((refs[name] for name in names if name in refs), None)
        if commit is None:
            raise not_found(self._what, f"{self._origin} has no such branch or tag")
        return commit

    def fetch(self, commit: str, limit: str) -> dict[str, GitObject]:
        """The objects of a commit without its history, as far as `limit` allows where the server knows limits."""
        accepted = self._features.get("fetch", "").split()
        limits = ["deepen 1"] * ("shallow" in accepted) + [f"filter {limit}"] * ("filter" in accepted)
        body = self._command("fetch", "no-progress", "ofs-delta", *limits, f"want {commit}", "done")
        if b"not our ref" in body[:200]:
            raise not_found(self._what, f"{self._origin} has no such commit")
        return parse_pack_answer(body)

    def _command(self, name: str, *arguments: str) -> bytes:
        if name not in self._features:
            raise unusable(f"it does not offer {name!r}")
        lines = b"".join(packet(argument) for argument in arguments)
        body = packet(f"command={name}") + b"0001" + lines + b"0000"
        headers = {
            "Content-Type": "application/x-git-upload-pack-request",
            "Accept": "application/x-git-upload-pack-result",
        }
        answer = self._ask("POST", f"{self._base}/git-upload-pack", body, **PROTOCOL, **headers)
        if not require_success(answer, self._what, self._origin):
            raise not_found(self._what, f"{self._origin} has no such repository")
        return bytes(answer.content)


def _lines(body: bytes) -> Iterator[str]:
    """The lines of an answer as text, without the packets that divide it."""
    for line in packet_lines(body):
        if not isinstance(line, int):
            yield line.decode("utf-8", "replace").removesuffix("\n")


def _file(entry: TreeEntry, objects: Mapping[str, GitObject]) -> ListedFile:
    blob = objects.get(entry.id)
    if entry.is_file and blob is not None and blob.kind == BLOB and len(blob.data) <= MAX_BLOB:
        return listed_blob(entry.path, blob)
    kind = "a link" if entry.mode == LINK_MODE else "a submodule or another entry"
    raise Malformed(
        "the repository has entries that are not files",
        why=f"{entry.path[:120]!r} is {f'a file of more than {MAX_BLOB} bytes outside LFS' if entry.is_file else kind}",
        hint="name a revision without it, or publish the folder: comity publish --help",
        code="UPSTREAM-ENTRY",
    )
