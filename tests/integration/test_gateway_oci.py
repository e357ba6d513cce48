"""A node as an OCI registry: the requests of distribution clients, and what they are refused."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from comity.addons.oci import manifests, registry
from comity.addons.oci.manifests import Referrers, Statements, make_referrers, make_statements
from comity.content.gateway_tokens import TOKENS_FILE, TokenFile
from comity.gateway.hub import judge
from comity.node.importing.importer import ImportCounter
from comity.rules.image_signature import sign_image
from comity.rules.model_pack import Document
from comity.rules.signing import sign_content
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Untrusted
from comity.trust.names import Name
from comity.trust.statement import parse_entry
from comity.trust.statement_kinds import HOLD, HOLDS
from comity.trust.statements import Advisory, Compromise
from comity.trust.tlog.proof import TlogProof
from comity.upstream.guarded import AllowedHosts
from comity.upstream.listed_files import UpstreamRequest
from comity.upstream.mirror import MirrorOrder, MirrorResult, fetch_repository, list_repository, pin_revision
from support.federation import until
from support.gateway import GatewayNode, gateway_node
from support.publisher import Publisher, Release, model
from support.waiting import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="module")

REPOSITORY = "tests/Tiny"
LOWER = "tests/tiny"
IMAGE = "application/vnd.oci.image.manifest.v1+json"
ACCEPT = {"Accept": f"{IMAGE}, application/vnd.docker.distribution.manifest.v2+json"}
STATEMENT = "application/vnd.in-toto+json"
PROOF = "application/vnd.c2sp.tlog-proof.v1"
SIGSTORE = "application/vnd.dev.sigstore.bundle.v0.3+json"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayNode]:
    """Publishes the artifacts of `ready`; tests must not change it."""
    async with gateway_node(tmp_path_factory.mktemp("node")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ready(node: GatewayNode, tmp_path_factory: pytest.TempPathFactory) -> Release:
    return await published(node, tmp_path_factory.mktemp("ready"))


@pytest_asyncio.fixture(loop_scope="module")
async def own(tmp_path: Path) -> AsyncIterator[GatewayNode]:
    """A node that the test may change."""
    async with gateway_node(tmp_path) as running:
        yield running


async def published(node: GatewayNode, tmp_path: Path, version: str = "v1", weights: int = 400_000) -> Release:
    folder = model(tmp_path / version, weights=weights)
    (folder / "README.md").write_text(f"Version {version}\n")
    (folder / "model.sig").write_text("{}")
    (folder / "tiny.cdx.json").write_text('{"bomFormat":"CycloneDX"}')
    return await node.publish(folder, f"{REPOSITORY}@{version}")


def client(node: GatewayNode) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=node.url, follow_redirects=True, timeout=PATIENCE)


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def image(http: httpx2.AsyncClient, reference: str = "v1") -> tuple[dict[str, Any], str]:
    """An image manifest, checked as registry clients do, and its digest."""
    answer = await http.get(f"/v2/{LOWER}/manifests/{reference}", headers=ACCEPT)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == IMAGE
    assert answer.headers["Docker-Content-Digest"] == digest(answer.content)
    return json.loads(answer.content), digest(answer.content)


async def proven(http: httpx2.AsyncClient, subject: str) -> None:
    """Wait until a checkpoint covers the publication."""

    async def listed() -> bool:
        return bool(await referrers(http, subject, PROOF))

    await until(listed, what="the proof of the publication")


async def visible(http: httpx2.AsyncClient, version: str) -> None:
    """Wait until the gateway has read the log again."""

    async def tagged() -> bool:
        return version in (await http.get(f"/v2/{LOWER}/tags/list")).json()["tags"]

    await until(tagged, what=f"the version {version}")


async def referrers(http: httpx2.AsyncClient, subject: str, kind: str = "") -> list[dict[str, Any]]:
    answer = await http.get(f"/v2/{LOWER}/referrers/{subject}", params={"artifactType": kind} if kind else {})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/vnd.oci.image.index.v1+json"
    assert answer.headers.get("OCI-Filters-Applied") == ("artifactType" if kind else None)
    found: list[dict[str, Any]] = answer.json()["manifests"]
    return found


async def test_a_model_is_a_modelpack_whose_layers_are_its_files(node: GatewayNode, ready: Release) -> None:
    release = ready
    async with client(node) as http:
        ping = await http.get("/v2/")
        assert (ping.status_code, ping.headers["Docker-Distribution-Api-Version"]) == (200, "registry/2.0")
        document, by_tag = await image(http)
        again, by_digest = await image(http, by_tag)
        assert (again, by_digest) == (document, by_tag), "the same manifest by its digest"
        head = await http.head(f"/v2/{LOWER}/manifests/{by_tag}")
        assert (head.status_code, head.headers["Docker-Content-Digest"]) == (200, by_tag)
        assert document["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
        assert document["annotations"]["dev.comity.artifact"] == f"sha256:{release.ingested.manifest.digest}"
        layers = {layer["annotations"]["org.cncf.model.filepath"]: layer for layer in document["layers"]}
        assert set(layers) == {entry.path for entry in release.ingested.manifest.files}
        for entry in release.ingested.manifest.files:
            layer = layers[entry.path]
            assert (layer["digest"], layer["size"]) == (f"sha256:{entry.sha256}", entry.size)
            assert layer["mediaType"].endswith(".v1.raw")
            blob = await http.get(f"/v2/{LOWER}/blobs/{layer['digest']}")
            assert blob.content == release.ingested.files[entry.path].read_bytes()
            first = blob.history[0] if blob.history else blob
            assert first.headers["Docker-Content-Digest"] == digest(blob.content) == layer["digest"]
        config = await http.get(f"/v2/{LOWER}/blobs/{document['config']['digest']}")
        assert digest(config.content) == document["config"]["digest"]
        assert config.json() == {  # the members that the specification has, in its spelling (docs/config.md, modelfs)
            "descriptor": {},
            "config": {},
            "modelfs": {"type": "layers", "diffIds": [layer["digest"] for layer in document["layers"]]},
        }


async def test_a_version_without_a_file_for_ollama_is_a_modelpack_for_every_client(
    node: GatewayNode, ready: Release
) -> None:
    async with client(node) as http:
        _, by_tag = await image(http)
        for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}):
            for tag in ("v1", "latest"):
                answer = await http.get(f"/v2/{LOWER}/manifests/{tag}", headers=headers)
                assert (answer.status_code, answer.headers["Content-Type"]) == (200, IMAGE)
                assert answer.headers["Docker-Content-Digest"] == by_tag
        quantised = await http.get(f"/v2/{LOWER}/manifests/q4_k_m")
        assert quantised.status_code == 404 and "no GGUF file" in quantised.text


async def test_a_range_of_a_blob_resumes_a_pull(node: GatewayNode, ready: Release) -> None:
    release = ready
    entry = max(release.ingested.manifest.files, key=lambda each: each.size)
    async with client(node) as http:
        address = f"/v2/{LOWER}/blobs/sha256:{entry.sha256}"
        assert (await http.head(address)).headers["Content-Length"] == str(entry.size)
        part = await http.get(address, headers={"Range": "bytes=300000-"})
        assert part.status_code == 206
        assert part.content == release.ingested.files[entry.path].read_bytes()[300_000:]
        empty = f"/v2/{LOWER}/blobs/{digest(b'')}"
        whole = await http.get(empty, headers={"Range": "bytes=0-0"})
        assert (whole.status_code, whole.content, whole.headers["Content-Length"]) == (200, b"", "0")


async def test_tags_are_the_versions_in_pages(own: GatewayNode, tmp_path: Path) -> None:
    node = own
    for version in ("v1", "v2", "v3"):
        await published(node, tmp_path, version, weights=100)
    async with client(node) as http:
        assert (await http.get(f"/v2/{LOWER}/tags/list")).json()["tags"] == ["latest", "v1", "v2", "v3"]
        found, address = list[str](), f"/v2/{LOWER}/tags/list?n=3"
        while address:
            answer = await http.get(address)
            found += answer.json()["tags"]
            address = answer.links["next"]["url"] if "next" in answer.links else ""
        assert found == ["latest", "v1", "v2", "v3"]
        assert (await http.get(f"/v2/{LOWER}/tags/list?n=0")).json()["tags"] == []
        assert (await http.get(f"/v2/{LOWER}/tags/list?n=2&last=v1")).json()["tags"] == ["v2", "v3"]
        assert (await http.get(f"/v2/{LOWER}/tags/list?n=x")).status_code == 400
        assert await image(http, "latest") == await image(http, "v3")
        assert (await http.get("/v2/_catalog")).json() == {"repositories": [LOWER]}


async def test_a_withdrawn_version_is_no_tag_and_its_referrers_say_so(own: GatewayNode, tmp_path: Path) -> None:
    """A tag list has no marks, and clients take the highest version of it. By its name it is served, with a warning."""
    node = own
    await published(node, tmp_path, "v1", weights=100)
    second = await published(node, tmp_path, "v2", weights=200)
    yank = Advisory(node.publisher.inception.author, second.artifact, "yank", "high", "broken")
    async with client(node) as http:
        _, subject = await image(http, "v2")
        assert "annotations" not in (await http.get(f"/v2/{LOWER}/referrers/{subject}")).json()
        async with node.home.client() as wire:
            await wire.submit([sign_content(yank, node.publisher.signer).line])

        async def withdrawn() -> bool:
            tags: list[str] = (await http.get(f"/v2/{LOWER}/tags/list")).json()["tags"]
            return tags == ["latest", "v1"]

        await until(withdrawn, what="the withdrawal in the tag list")
        assert await image(http, "latest") == await image(http, "v1")
        for reference in ("v2", subject):  # a digest in somebody's own list is not safer than a tag
            answer = await http.get(f"/v2/{LOWER}/manifests/{reference}", headers=ACCEPT)
            assert (answer.status_code, "yank (high): broken" in answer.headers.get("Warning", "")) == (200, True)

        async def proven() -> bool:
            """Once a checkpoint covers the withdrawal, its proof is a referrer."""
            index = (await http.get(f"/v2/{LOWER}/referrers/{subject}")).json()
            assert index["annotations"] == {"dev.comity.state": "withdrawn by its publisher"}
            kinds = [each["annotations"].get("dev.comity.advisory") for each in index["manifests"]]
            return kinds.count("yank (high)") == 1

        await until(proven, what="the proof of the withdrawal among the referrers")
        _, first = await image(http, "v1")
        assert "annotations" not in (await http.get(f"/v2/{LOWER}/referrers/{first}")).json()
        tags = (await http.get(f"/api/models/{REPOSITORY}/refs")).json()["tags"]
        assert {tag["name"]: tag.get("withdrawn") for tag in tags} == {"v1": None, "v2": True}


async def test_a_list_of_referrers_says_that_it_has_not_all_statements(
    own: GatewayNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await published(own, tmp_path, weights=100)
    async with client(own) as http:
        _, subject = await image(http)
        monkeypatch.setattr(manifests, "MAX_STATEMENTS", 0)
        await published(own, tmp_path, "v2", weights=200)
        await visible(http, "v2")
        _, subject = await image(http, "v2")
        index = (await http.get(f"/v2/{LOWER}/referrers/{subject}")).json()
        assert index["annotations"] == {"dev.comity.unread": "unknown: more statements than were read"}
        assert not [each for each in index["manifests"] if each["artifactType"] == STATEMENT]


async def test_a_manifest_of_an_older_version_is_found_by_its_digest(own: GatewayNode, tmp_path: Path) -> None:
    node = own
    await published(node, tmp_path, "v1", weights=100)
    async with client(node) as http:
        older, by_digest = await image(http, "v1")
        release = await published(node, tmp_path, "v2", weights=200)
        await visible(http, "v2")
        newer, _ = await image(http, "v2")
        assert newer != older
        assert (await image(http, by_digest))[0] == older
        entry = release.ingested.manifest.by_path["README.md"]
        assert (await http.get(f"/v2/{LOWER}/blobs/sha256:{entry.sha256}")).text == "Version v2\n"


async def test_statements_proofs_signature_and_bill_of_materials_refer_to_the_model(
    node: GatewayNode, ready: Release
) -> None:
    release = ready
    async with client(node) as http:
        subject = (await image(http))[1]
        await proven(http, subject)
        found = await referrers(http, subject)
        kinds = {each["artifactType"] for each in found}
        assert kinds == {STATEMENT, PROOF, SIGSTORE, "application/vnd.cyclonedx+json"}
        blobs: dict[str, bytes] = {}
        titles: list[str] = []  # oras writes a layer to the file of this name, and none without
        for each in found:
            document, by_digest = await image(http, each["digest"])
            assert by_digest == each["digest"]
            assert document["subject"]["digest"] == subject
            (layer,) = document["layers"]
            titles.append(layer["annotations"]["org.opencontainers.image.title"])
            blob = await http.get(f"/v2/{LOWER}/blobs/{layer['digest']}")
            assert digest(blob.content) == layer["digest"]
            blobs.setdefault(
                document["annotations"].get("in-toto.io/predicate-type", each["artifactType"]), blob.content
            )
        assert len(set(titles)) == len(titles)
        line = blobs["urn:comity:published:v1"]
        assert parse_entry(line).statement.subject == release.ingested.manifest.digest
        TlogProof.parse(blobs[PROOF]).verify(line, node.home.record.log)
        assert blobs[SIGSTORE] == b"{}"
        assert [each["artifactType"] for each in await referrers(http, subject, STATEMENT)] == [STATEMENT] * sum(
            each["artifactType"] == STATEMENT for each in found
        )
        assert await referrers(http, subject, "application/x-nothing") == []
        assert await referrers(http, f"sha256:{sha256(b'unknown')}") == []


@pytest.mark.slow
async def test_a_proof_that_was_listed_is_served_after_the_log_has_grown(own: GatewayNode, tmp_path: Path) -> None:
    node = own
    await published(node, tmp_path, "v1", weights=100)
    async with client(node) as http:
        subject = (await image(http))[1]
        await proven(http, subject)
        (listed,) = await referrers(http, subject, PROOF)
        await published(node, tmp_path, "v2", weights=100)
        await visible(http, "v2")
        document, _ = await image(http, listed["digest"])
        blob = await http.get(f"/v2/{LOWER}/blobs/{document['layers'][0]['digest']}")
        assert digest(blob.content) == document["layers"][0]["digest"]


@pytest.mark.slow
async def test_who_asks_for_digests_that_nobody_has_makes_no_referrers_again_whenever_a_log_grows(
    own: GatewayNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, made, with_proofs = own, list[str](), list[str]()

    def statements(subject: Document, *about: Any) -> Statements:
        made.append(subject.digest)
        return make_statements(subject, *about)

    def referrers(subject: Document, *about: Any) -> Referrers:
        with_proofs.append(subject.digest)
        return make_referrers(subject, *about)

    monkeypatch.setattr(registry, "make_statements", statements)
    monkeypatch.setattr(registry, "make_referrers", referrers)
    monkeypatch.setattr(judge, "CHECK_INTERVAL", 0.0)
    versions = [await published(node, tmp_path, f"v{number}", weights=100 + number) for number in range(3)]
    other = Publisher.generate()

    async def claimed() -> bool:
        """Whether the node's own claims of its copies are proven: they are statements about the versions, too."""
        async with node.home.client() as reader:
            lines = [located.line for version in versions for located in await reader.claims(version.artifact)]
        return sum(parse_entry(line).statement.predicate in (HOLD, HOLDS) for line in lines) == len(versions)

    await until(claimed, what="claims of all copies")
    async with client(node) as http:
        for number in range(4):
            answer = await http.get(f"/v2/{LOWER}/blobs/{digest(bytes([number]))}")
            assert answer.status_code == 404
            await node.publish(model(tmp_path / f"other{number}", weights=200 + number), f"other/one@v{number}", other)
    assert len(made) == len(set(made)) == len(versions)
    assert len(set(with_proofs)) == 1


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        (f"{LOWER}/manifests/v9", 404, "MANIFEST_UNKNOWN"),
        ("tests/nothing/manifests/v1", 404, "NAME_UNKNOWN"),
        (f"{LOWER}/manifests/sha256:{'0' * 64}", 404, "MANIFEST_UNKNOWN"),
        (f"{LOWER}/blobs/sha256:{'0' * 64}", 404, "BLOB_UNKNOWN"),
        (f"{LOWER}/blobs/sha512:{'0' * 128}", 400, "DIGEST_INVALID"),
        (f"{LOWER}/manifests/sha256:short", 400, "DIGEST_INVALID"),
        (f"{LOWER}/referrers/latest", 400, "DIGEST_INVALID"),
        ("tests/nothing/tags/list", 404, "NAME_UNKNOWN"),
    ],
)
async def test_a_missing_object_has_the_error_of_the_specification(
    node: GatewayNode, ready: Release, path: str, status: int, code: str
) -> None:
    async with client(node) as http:
        answer = await http.get(f"/v2/{path}", headers=ACCEPT)
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (status, code)
        assert answer.json()["errors"][0]["message"]


async def test_nothing_can_be_pushed_or_deleted(node: GatewayNode, ready: Release) -> None:
    async with client(node) as http:
        for method, path in (
            ("POST", f"/v2/{LOWER}/blobs/uploads/"),
            ("PUT", f"/v2/{LOWER}/manifests/v1"),
            ("DELETE", f"/v2/{LOWER}/manifests/v1"),
            ("DELETE", f"/v2/{LOWER}/blobs/sha256:{'0' * 64}"),
        ):
            answer = await http.request(method, path)
            assert (answer.status_code, answer.json()["errors"][0]["code"]) == (405, "UNSUPPORTED")


async def test_a_private_registry_asks_for_a_token_as_password(tmp_path: Path) -> None:
    async with gateway_node(tmp_path, public=False) as node:
        await published(node, tmp_path, weights=100)
        tokens = TokenFile(node.home.directory / TOKENS_FILE)
        good, other = (tokens.add(name, (reach,), 0)[0] for name, reach in (("a", "tests/*"), ("b", "else/*")))
        async with client(node) as http:
            for path in ("", "_catalog", f"{LOWER}/tags/list", f"{LOWER}/manifests/v1"):
                refused = await http.get(f"/v2/{path}")
                assert refused.status_code == 401
                assert refused.headers["WWW-Authenticate"] == 'Basic realm="comity"'
                assert refused.json()["errors"][0]["code"] == "UNAUTHORIZED"
                allowed = await http.get(f"/v2/{path}", auth=("anybody", good), headers=ACCEPT)
                assert allowed.status_code == 200
            assert (await http.get("/v2/", auth=("anybody", "hf_" + "x" * 40))).status_code == 401
            denied = await http.get(f"/v2/{LOWER}/manifests/v1", auth=("anybody", other), headers=ACCEPT)
            assert (denied.status_code, denied.json()["errors"][0]["code"]) == (403, "DENIED")
            assert (await http.get("/v2/_catalog", auth=("anybody", other))).json() == {"repositories": []}


async def test_a_digest_of_another_repository_is_not_served_under_this_name(own: GatewayNode, tmp_path: Path) -> None:
    node = own
    await published(node, tmp_path, weights=100)
    folder = model(tmp_path / "other", weights=50)
    secret = await node.publish(folder, "tests/other@v1")
    entry = max(secret.ingested.manifest.files, key=lambda each: each.size)
    async with client(node) as http:
        assert (await http.get(f"/v2/tests/other/blobs/sha256:{entry.sha256}")).status_code == 200
        assert (await http.get(f"/v2/{LOWER}/blobs/sha256:{entry.sha256}")).status_code == 404


async def test_signatures_of_an_image_are_served_at_their_tag_while_they_count(
    own: GatewayNode, tmp_path: Path
) -> None:
    node = own
    release = await published(node, tmp_path)
    by = node.publisher
    async with client(node) as http, node.home.client() as submitter:
        _, subject = await image(http)
        tag = f"/v2/{LOWER}/manifests/{subject.replace(':', '-')}.sig"
        missing = await http.get(tag, headers=ACCEPT)
        assert (missing.status_code, missing.json()["errors"][0]["code"]) == (404, "MANIFEST_UNKNOWN")
        said = sign_image(by.id, Name.parse(f"{REPOSITORY}@v1"), release.artifact, Digest(subject[7:]), by.signer)
        await submitter.submit((by.announcement, sign_content(said, by.signer).line), ())

        async def signed() -> bool:
            return (await http.get(tag, headers=ACCEPT)).status_code == 200

        await until(signed, what="the signature")
        answer = await http.get(tag, headers=ACCEPT)
        assert answer.headers["Docker-Content-Digest"] == digest(answer.content)
        for each in (answer.json()["config"], *answer.json()["layers"]):
            blob = await http.get(f"/v2/{LOWER}/blobs/{each['digest']}")
            assert (digest(blob.content), len(blob.content)) == (each["digest"], each["size"])
        by_digest = await http.get(f"/v2/{LOWER}/manifests/{digest(answer.content)}", headers=ACCEPT)
        assert by_digest.content == answer.content
        bundles = await referrers(http, subject, SIGSTORE)
        assert {each["annotations"].get("dev.sigstore.bundle.content") for each in bundles} == {None, "dsse-envelope"}
        assert (await http.get(f"/v2/{LOWER}/manifests/sha256-{'0' * 64}.sig", headers=ACCEPT)).status_code == 404
        lost = Compromise(by.signer.public.id, node.home.origin, 0)
        notice = Advisory(by.inception.author, by.id, "key-compromise", "critical", "the laptop is gone", lost)
        await submitter.submit((sign_content(notice, by.signer).line,), ())

        async def gone() -> bool:
            return (await http.get(tag, headers=ACCEPT)).status_code != 200

        await until(gone, what="a signature by a lost key that is not served")


async def test_another_federation_imports_an_image_of_a_gateway(
    node: GatewayNode, ready: Release, tmp_path: Path
) -> None:
    """The gateway sends large files from another port, which the importer has to allow."""
    work = ImportCounter()

    def mirror(*hosts: str) -> MirrorResult:
        wanted = MirrorOrder(
            UpstreamRequest.parse("oci:127.0.0.1/tiny@v1"), AllowedHosts.to(f"{node.url}/tests", hosts)
        )
        return fetch_repository(wanted, list_repository(wanted, pin_revision(wanted, work), work), tmp_path, work)

    with pytest.raises(Untrusted) as refused:
        await asyncio.to_thread(mirror)
    assert refused.value.code == "UPSTREAM-REDIRECT"
    done = await asyncio.to_thread(mirror, "127.0.0.1")
    known = {entry.path: entry.sha256 for entry in ready.ingested.manifest.files}
    assert {seen.entry.path: seen.entry.sha256 for seen in done.observations} == known
    assert {seen.match for seen in done.observations} == {"sha256"}
