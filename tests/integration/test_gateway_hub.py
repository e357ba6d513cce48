"""The Hub's routes of a node: what they serve, what they refuse, and their error messages."""

from __future__ import annotations

import io
import json
import logging
import pickle
import stat
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
import structlog
from comity.content.gateway_tokens import TokenFile
from comity.gateway.hub import catalogue as catalogue_module
from comity.ledger import copy_tables
from comity.ledger.copy_tables import VerifiedTimes
from comity.node.telemetry import configure_logging
from comity.rules.git_ids import blob_id, commit_id, tree_ids
from comity.rules.signing import sign_content
from comity.trust.approvals import ApprovalConditions, ApprovalEnded, Approved
from comity.trust.names import Name
from comity.trust.statement import SideObject
from comity.trust.statements import Advisory, Published
from comity.wire.publish import InlineObject
from huggingface_hub import ModelInfo
from support.federation import until
from support.gateway import GatewayNode, gateway_node, looking_at_each_request
from support.publisher import Publisher, Release, model
from support.waiting import PATIENCE
from support.weights import as_tensor

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/api/models/tests/model"


@pytest.fixture(autouse=True)
def _what_was_logged_is_seen_at_once() -> Iterator[None]:
    with looking_at_each_request():
        yield


def client(node: GatewayNode, **more: Any) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=node.url, timeout=PATIENCE, **more)


def said(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.headers.get("X-Error-Code", "")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayNode]:
    """Publishes the artifacts of `ready`; tests must not change it."""
    async with gateway_node(tmp_path_factory.mktemp("node")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ready(node: GatewayNode, tmp_path_factory: pytest.TempPathFactory) -> Release:
    return await node.publish(model(tmp_path_factory.mktemp("ready") / "model"), "tests/model@v1")


@pytest_asyncio.fixture(loop_scope="module")
async def own(tmp_path: Path) -> AsyncIterator[GatewayNode]:
    """A node that the test may change."""
    async with gateway_node(tmp_path) as running:
        yield running


def small(folder: Path, *, seed: int = 1) -> Path:
    """A model, for tests that do not ask for its weights."""
    return model(folder, weights=1_000, seed=seed)


async def test_every_revision_that_names_it_leads_to_one_commit(node: GatewayNode, ready: Release) -> None:
    commit = commit_id(ready.ingested.manifest)
    async with client(node) as http:
        for revision in ("main", "v1", commit, f"sha256:{ready.artifact}", "refs%2Fheads%2Fmain", "refs%2Ftags%2Fv1"):
            answer = await http.get(f"{PATH}/revision/{revision}")
            assert answer.json()["sha"] == answer.headers["X-Repo-Commit"] == commit, revision


async def test_javascript_clients_find_files_revisions_and_counts(node: GatewayNode, ready: Release) -> None:
    """`fileExists` asks for `raw`, `modelInfo` for HEAD, and `countCommits` reads a header."""
    async with client(node) as http:
        assert (await http.head("/tests/model/raw/main/config.json")).status_code == 200
        whole = await http.get("/tests/model/resolve/main/config.json")
        assert (await http.get("/tests/model/raw/HEAD/config.json")).content == whole.content
        assert said(await http.head("/tests/model/raw/main/nothing.md")) == (404, "EntryNotFound")
        assert (await http.get(f"{PATH}/revision/HEAD")).json()["sha"] == commit_id(ready.ingested.manifest)
        commits = await http.get(f"{PATH}/commits/main")
        assert commits.headers["X-Total-Count"] == str(len(commits.json())) == "1"


async def test_the_hubs_own_client_reads_dates_and_facts_of_a_model(
    own: GatewayNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small(tmp_path / "model")
    (folder / "README.md").write_text("---\nbase_model: org/base\npipeline_tag: fill-mask\nlicense: apache-2.0\n---\n")
    (folder / "model.safetensors").write_bytes(as_tensor(bytes(1_000)))
    (folder / "config.json").write_text('{"architectures": ["BertModel"], "model_type": "bert", "eps": 1e-12}')
    moment = datetime(2026, 11, 30, 12, tzinfo=UTC)  # the present time, which is the date of what no mark covers yet
    monkeypatch.setattr(copy_tables, "VerifiedTimes", lambda marks, now: VerifiedTimes(marks, int(moment.timestamp())))
    await own.publish(folder, "tests/model@v1")
    async with client(own) as http:
        document = (await http.get(PATH, params={"expand": ["config", "safetensors", "gguf"]})).json()
        (listed,) = (await http.get("/api/models")).json()
    info: Any = ModelInfo(**document)  # type: ignore[no-untyped-call]
    assert info.last_modified is not None and info.last_modified == info.created_at
    assert info.last_modified == moment
    assert listed["lastModified"] == document["lastModified"]
    assert info.config == {"architectures": ["BertModel"], "model_type": "bert"}
    assert info.safetensors is not None and info.safetensors.total == sum(info.safetensors.parameters.values()) > 0
    assert info.card_data is not None and info.card_data.base_model == "org/base"
    assert info.card_data.license == "mit", "what the publisher signed, not what its card says"


async def test_the_tree_is_that_of_the_commit_and_pages_lead_on(own: GatewayNode, tmp_path: Path) -> None:
    node, folder = own, small(tmp_path / "many")
    for number in range(25):
        (folder / f"part-{number:02}").mkdir()
        (folder / f"part-{number:02}" / "x.bin").write_bytes(b"%d" % number)
    ready = await node.publish(folder, "tests/many@v1")
    manifest = ready.ingested.manifest
    url, seen = f"{node.url}/api/models/tests/many/tree/main?recursive=true&limit=7", []
    async with client(node) as http:
        while url:
            answer = await http.get(url)
            seen += answer.json()
            url = answer.links.get("next", {}).get("url", "")
        assert {item["path"]: item["oid"] for item in seen if item["type"] == "directory"} == {
            path: oid for path, oid in tree_ids(manifest).items() if path
        }
        files = [(item["path"], item["oid"], item["lfs"]["oid"]) for item in seen if item["type"] == "file"]
        assert files == [(entry.path, blob_id(entry), entry.sha256) for entry in sorted(manifest.files, key=_path)]
        assert said(await http.get("/api/models/tests/many/tree/main/no-such")) == (404, "EntryNotFound")
        assert said(await http.get("/api/models/tests/many/tree/main?cursor=zzz")) == (400, "CURSOR")
        listed: list[str] = []
        cursor = ""
        while True:  # as the downloader of text-generation-webui asks, which makes its cursors itself
            page = (await http.get("/api/models/tests/many/tree/main", params={"cursor": cursor, "limit": 7})).json()
            if not page:
                break
            listed += [item["path"] for item in page]
            last = b64encode(json.dumps({"file_name": listed[-1]}).encode())
            cursor = b64encode(last + b":50").decode()
        assert listed == [item["path"] for item in (await http.get("/api/models/tests/many/tree/main")).json()]
        unknown = b64encode(b64encode(b'{"file_name":"no such file"}') + b":50").decode()
        assert said(await http.get(f"/api/models/tests/many/tree/main?cursor={unknown}")) == (400, "CURSOR")


async def test_an_empty_file_a_pasted_page_and_an_upload_get_useful_answers(own: GatewayNode, tmp_path: Path) -> None:
    folder = small(tmp_path / "model")
    (folder / "empty.txt").touch()
    await own.publish(folder, "tests/model@v1")
    async with client(own) as http:
        empty = await http.get("/tests/model/resolve/main/empty.txt", headers={"Range": "bytes=0-0"})
        assert (empty.status_code, empty.content, empty.headers["Content-Range"]) == (200, b"", "bytes */0")
        assert "Content-Range" not in (await http.get("/tests/model/resolve/main/empty.txt")).headers
        page = await http.get("/tests/model/blob/main/config.json")
        assert page.content == (folder / "config.json").read_bytes()
        upload = await http.post("/api/repos/create", json={"name": "model"})
        assert said(upload) == (405, "METHOD")
        assert "comity publish" in upload.headers["X-Error-Message"]


def _path(entry: object) -> str:
    return str(getattr(entry, "path", ""))


@pytest.mark.parametrize("files", ("", "127.0.0.1:0"), ids=("inline", "file server"))
async def test_ranges_tags_and_conditions_are_honoured(tmp_path: Path, files: str) -> None:
    folder = model(tmp_path / "model")
    weights, path = (folder / "weights.bin").read_bytes(), "/tests/model/resolve/main/weights.bin"
    async with gateway_node(tmp_path, files=files) as node, client(node, follow_redirects=True) as http:
        await node.publish(folder, "tests/model@v1")
        head = await http.head(path)
        assert int(head.headers["Content-Length"]) == int(head.headers["X-Linked-Size"]) == len(weights)
        assert head.headers["ETag"] == head.headers["X-Linked-ETag"]
        assert (await http.get(path)).content == weights
        for header, start, end in (
            ("bytes=0-0", 0, 1),
            ("bytes=4194300-4194310", 4194300, 4194311),
            ("bytes=-5", -5, None),
        ):
            part = await http.get(path, headers={"Range": header})
            assert (part.status_code, part.content) == (206, weights[start:end])
        beyond = await http.get(path, headers={"Range": f"bytes={len(weights)}-"})
        assert (*said(beyond), beyond.headers["Content-Range"]) == (416, "RANGE", f"bytes */{len(weights)}")
        assert (await http.get(path, headers={"If-None-Match": head.headers["ETag"]})).status_code == 304
        other = await http.get(path, headers={"Range": "bytes=0-9", "If-Range": '"other"'})
        assert (other.status_code, len(other.content)) == (200, len(weights))


async def test_nothing_is_compressed_and_nothing_is_said_of_xet(node: GatewayNode, ready: Release) -> None:
    async with client(node, headers={"Accept-Encoding": "gzip, deflate, br"}) as http:
        for url in (
            f"{PATH}?blobs=true",
            f"{PATH}/tree/main?recursive=true&expand=true",
            "/tests/model/resolve/v1/config.json",
        ):
            answer = await http.get(url)
            assert "Content-Encoding" not in answer.headers
            assert "xet" not in (str(answer.headers) + answer.text).lower()


async def test_other_names_and_other_spellings_are_redirected(tmp_path: Path) -> None:
    """Without a host, also where the node has a URL: huggingface_hub before 2.0 follows no other redirect."""
    aliases = ["old-model=tests/model", "gone/model=tests/model"]
    async with gateway_node(tmp_path, aliases=aliases, url="https://models.example.org/hub") as node:
        ready = await node.publish(small(tmp_path / "model"), "tests/model@v1")
        async with client(node) as http:
            for name in ("old-model", "gone/model", "Tests/MODEL"):
                for url in (f"/api/models/{name}/revision/main?blobs=true", f"/{name}/resolve/main/config.json"):
                    answer = await http.get(url)
                    place = "/hub" + url.replace(name, "tests/model")
                    assert (answer.status_code, answer.headers["Location"]) == (307, place)
            assert said(await http.get("/api/models/unknown-legacy/revision/main")) == (404, "RepoNotFound")
            followed = await http.get("/api/models/tests/model")
    assert followed.json()["sha"] == commit_id(ready.ingested.manifest)


@pytest.mark.slow
async def test_a_name_is_whose_the_charter_says_and_a_strangers_claim_changes_nothing(
    own: GatewayNode, tmp_path: Path
) -> None:
    node = own
    stranger = Publisher.generate("stranger", "KR")
    ready = await node.publish(small(tmp_path / "model"), "tests/model@v1")
    await node.publish(small(tmp_path / "fake", seed=9), "tests/model@v2", stranger)
    first = await node.publish(small(tmp_path / "one", seed=2), "free/model@v1")
    rival = await node.publish(small(tmp_path / "two", seed=3), "free/model@v1", stranger)
    async with client(node) as http:
        refs = (await http.get(f"{PATH}/refs")).json()
        assert [tag["name"] for tag in refs["tags"]] == ["v1"]
        assert (await http.get(f"{PATH}/revision/main")).json()["sha"] == commit_id(ready.ingested.manifest)
        assert said(await http.get(f"{PATH}/revision/v2")) == (404, "RevisionNotFound")
        free = await http.get("/api/models/free/model")
        assert free.json()["sha"] == commit_id(first.ingested.manifest)
        warning = free.headers["X-HF-Warning"]
        assert "stranger" in warning and "claimed, not bound" in warning
        for revision in (f"sha256:{rival.artifact}", commit_id(rival.ingested.manifest)):
            exact = await http.get(f"/api/models/free/model/revision/{revision}")
            assert exact.json()["sha"] == commit_id(rival.ingested.manifest), (
                "an exact reference depends on no claimant"
            )
        listed = (await http.get("/api/models")).json()
        assert [item["id"] for item in listed] == ["free/model", "tests/model"]


@pytest.mark.slow
async def test_a_name_is_served_although_a_stranger_claims_it_three_hundred_times(
    own: GatewayNode, tmp_path: Path
) -> None:
    node = own
    stranger = Publisher.generate("stranger", "KR")
    ready = await node.publish(small(tmp_path / "model"), "free/model@v1")
    rival = await node.publish(small(tmp_path / "fake", seed=9), "free/model@v2", stranger)
    async with node.home.client() as wire:
        for number in range(0, 300, 50):
            claims = [claimed(stranger, f"free/model@x{at}", rival) for at in range(number, number + 50)]
            await wire.submit(claims)
    async with client(node) as http:
        for revision in ("main", "v1", f"sha256:{ready.artifact}", commit_id(ready.ingested.manifest)):
            answer = await http.get(f"/api/models/free/model/revision/{revision}")
            assert answer.json()["sha"] == commit_id(ready.ingested.manifest), revision


def claimed(by: Publisher, name: str, of: Release) -> bytes:
    """A claim of the same bytes under another name."""
    return sign_content(replace(Published.parse(of.entry.statement), name=Name.parse(name), by=by.id), by.signer).line


async def test_a_yanked_version_is_served_by_its_name_with_a_warning_and_main_moves_on(
    own: GatewayNode, tmp_path: Path
) -> None:
    node = own
    first = await node.publish(small(tmp_path / "one"), "tests/model@v1")
    second = await node.publish(small(tmp_path / "two", seed=2), "tests/model@v2")
    yank = Advisory(node.publisher.inception.author, second.artifact, "yank", "high", "broken")
    async with node.home.client() as wire:
        await wire.submit([sign_content(yank, node.publisher.signer).line])
    async with client(node) as http:
        assert (await http.get(f"{PATH}/revision/main")).json()["sha"] == commit_id(first.ingested.manifest)
        answer = await http.get("/tests/model/resolve/v2/config.json")
    assert answer.status_code == 200
    assert "yank (high): broken" in answer.headers["X-HF-Warning"]


async def test_what_the_owners_policy_refuses_is_a_403_and_no_bytes(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(
        '[publishers]\naccept = ["' + "0" * 64 + '"]\n[rows]\nrequire = ["key policy"]\n'
    )
    async with gateway_node(tmp_path, policy=str(tmp_path / "policy.toml")) as node:
        await node.publish(small(tmp_path / "model"), "tests/model@v1")
        async with client(node) as http:
            for url in (PATH, f"{PATH}/tree/main", "/tests/model/resolve/main/config.json"):
                answer = await http.get(url)
                assert answer.status_code in (403, 503)
                assert "policy" in answer.json()["error"] or "evidence" in answer.json()["error"]
                assert "seed" not in answer.text
            assert (await http.get("/api/models")).json() == []


@pytest.mark.slow
async def test_a_policy_that_changes_counts_without_a_restart_and_a_mistake_in_it_changes_nothing(
    tmp_path: Path,
) -> None:
    """At each way in: the view, a file, the list, the page, and the tags of registry clients."""
    file = tmp_path / "policy.toml"

    def accept(text: str) -> None:
        (tmp_path / "new").write_text(text)
        (tmp_path / "new").replace(file)

    async def statuses(http: httpx2.AsyncClient) -> tuple[list[int], int]:
        addresses = (f"{PATH}/revision/main", "/tests/model/resolve/main/config.json", "/v2/tests/model/manifests/v1")
        image = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
        found = [(await http.get(address, headers=image)).status_code for address in addresses]
        page = await http.get("/tests/model", headers={"Accept": "text/html"})
        return [*found, page.status_code], len((await http.get("/api/models")).json())

    refusing = '[publishers]\naccept = ["' + "0" * 64 + '"]\n[rows]\nrequire = ["key policy"]\n'
    accepting = '[rows]\nrequire = ["artifact", "signatures"]\n'
    accept(accepting)
    async with gateway_node(tmp_path, policy=str(file)) as node:
        await node.publish(small(tmp_path / "model"), "tests/model@v1")
        async with client(node) as http:

            async def served() -> bool:
                return await statuses(http) == ([200] * 4, 1)

            async def refused() -> bool:
                codes, listed = await statuses(http)
                return not listed and all(code in (403, 503) for code in codes)

            await until(served, what="the artifact, which the policy accepts")
            accept(refusing)
            await until(refused, what="the refusal of the changed policy")
            accept("a mistake")

            async def told() -> bool:
                async with node.home.operator() as operator:
                    warnings = (await operator.status()).warnings
                return any(text.startswith("the policy of the gateway cannot be read") for text in warnings)

            await until(told, what="the warning in the status")
            assert await refused(), "a mistake accepts no more"
            accept(accepting)
            await until(served, what="the artifact, which the policy accepts again")
            assert not await told()


async def test_an_advisory_of_a_listed_issuer_refuses_where_the_owner_says_so(tmp_path: Path) -> None:
    issuer = Publisher.generate("warner", "NO")
    (tmp_path / "policy.toml").write_text(
        f'[advisories]\nrefuse_from = ["{issuer.id}"]\n[rows]\nrequire = ["artifact", "signatures"]\n'
    )
    async with gateway_node(tmp_path, policy=str(tmp_path / "policy.toml")) as node, client(node) as http:
        ready = await node.publish(small(tmp_path / "model"), "tests/model@v1")
        assert (await http.get(PATH)).status_code == 200
        warning = Advisory(issuer.inception.author, ready.artifact, "malware", "critical", "it phones home")
        async with node.home.client() as wire:
            await wire.submit([issuer.announcement, sign_content(warning, issuer.signer).line])
        assert said(await http.get("/tests/model/resolve/main/config.json")) == (403, "POLICY-NOT-MET")


async def test_what_the_officers_of_the_owner_did_not_approve_is_refused_until_they_do_and_after_they_end_it(
    tmp_path: Path,
) -> None:
    anna, ben, stranger = (Publisher.generate(name, "NO") for name in ("Anna", "Ben", "Stranger"))
    (tmp_path / "policy.toml").write_text(
        f'[time]\nas_of = 2026-01-01T00:00:00Z\n[approvals]\nscope = "ward"\nat_least = 2\nconditions = true\n'
        f'[approvals.officers]\nAnna = "{anna.id}"\nBen = "{ben.id}"\n'
        '[rows]\nrequire = ["artifact", "signatures"]\n'
    )
    async with gateway_node(tmp_path, policy=str(tmp_path / "policy.toml")) as node, client(node) as http:
        ready = await node.publish(small(tmp_path / "model"), "tests/model@v1")
        file = "/tests/model/resolve/main/config.json"
        conditions = ApprovalConditions("ward.txt", SideObject.of(b"only in the ward"))
        signed = {
            who.id: sign_content(Approved(who.id, ready.artifact, "ward", 0, 2**33, 9, conditions), who.signer)
            for who in (anna, ben, stranger)
        }
        text = [InlineObject(conditions.text.digest, b"only in the ward")]
        async with node.home.client() as wire:
            for who in (stranger, anna):
                await wire.submit([who.announcement, signed[who.id].line], text)
            refused = await http.get(file)
            assert said(refused) == (403, "NOT-APPROVED")
            assert "1 of 2 required for ward: Anna" in refused.json()["error"]
            assert "comity approve REF --scope SITE --until DATE" in refused.json()["hint"]
            assert said(await http.get(PATH)) == (403, "NOT-APPROVED")
            await wire.submit([ben.announcement, signed[ben.id].line], text)
            assert (await http.get(file)).status_code == 200
            end = ApprovalEnded(ben.id, ready.artifact, signed[ben.id].statement_digest, 0, "a new version")
            await wire.submit([sign_content(end, ben.signer).line])
            assert said(await http.get(file)) == (403, "NOT-APPROVED")


@pytest.mark.parametrize("allow", ["[]", '["pickle"]'])
async def test_an_owner_who_asks_for_file_safety_has_files_looked_into(tmp_path: Path, allow: str) -> None:
    rows = 'require = ["artifact", "signatures", "file safety"]'
    (tmp_path / "policy.toml").write_text(f"[safety]\nallow = {allow}\n[rows]\n{rows}\n")
    folder = small(tmp_path / "model")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": 1}))
    async with gateway_node(tmp_path, policy=str(tmp_path / "policy.toml")) as node, client(node) as http:
        await node.publish(folder, "tests/model@v1")
        answer = await http.get(PATH)
        if allow == "[]":
            assert said(answer) == (403, "POLICY-NOT-MET")
            assert "pytorch_model.bin: pickle" in answer.json()["error"]
        else:
            assert answer.status_code == 200


async def test_a_node_that_is_not_public_serves_who_shows_its_token_and_within_its_reach(tmp_path: Path) -> None:
    async with gateway_node(tmp_path, public=False) as node:
        await node.publish(small(tmp_path / "model"), "tests/model@v1")
        tokens = TokenFile(node.home.directory / "tokens.json")
        everything, _ = tokens.add("all", ("*",), 0)
        other, _ = tokens.add("other", ("elsewhere/*",), 0)
        async with client(node) as http:

            async def ask(token: str, url: str = "/tests/model/resolve/main/config.json") -> httpx2.Response:
                return await http.get(url, headers={"Authorization": f"Bearer {token}"})

            assert said(await http.get(PATH)) == (401, "RepoNotFound")
            assert said(await ask("hf_" + "x" * 40)) == (401, "RepoNotFound")
            assert said(await ask(other)) == (403, "RepoNotFound")
            assert said(await ask(other, "/api/models/tests/no-such")) == (403, "RepoNotFound")
            assert (await ask(everything)).status_code == 200
            assert (await ask(everything, "/api/whoami-v2")).json()["name"] == "all"
            assert [item["id"] for item in (await ask(everything, "/api/models")).json()] == ["tests/model"]
            assert (await ask(other, "/api/models")).json() == []
            tokens.revoke("all")
            assert said(await ask(everything)) == (401, "RepoNotFound")


async def test_a_list_of_a_private_node_names_no_repository_beyond_the_reach_of_its_reader(tmp_path: Path) -> None:
    async with gateway_node(tmp_path, public=False) as node:
        for name in ("tests/a-secret", "tests/b-open", "tests/c-secret", "tests/d-open"):
            await node.publish(small(tmp_path / name), f"{name}@v1")
        tokens = TokenFile(node.home.directory / "tokens.json")
        some, _ = tokens.add("some", ("tests/b-open", "tests/d-open"), 0)
        none, _ = tokens.add("none", ("elsewhere/*",), 0)
        async with client(node) as http:
            answer = await http.get("/api/models?limit=1", headers={"Authorization": f"Bearer {none}"})
            assert (answer.json(), answer.links) == ([], {})
            url, seen = "/api/models?limit=1", []
            while url:
                answer = await http.get(url, headers={"Authorization": f"Bearer {some}"})
                assert "secret" not in f"{answer.text} {answer.headers}"
                seen += [item["id"] for item in answer.json()]
                url = answer.links.get("next", {}).get("url", "")
            assert seen == ["tests/b-open", "tests/d-open"]


@pytest.mark.parametrize("kind", ["models", "datasets", "spaces"])
async def test_a_private_node_refuses_a_list_without_its_token_in_words(tmp_path: Path, kind: str) -> None:
    async with gateway_node(tmp_path, public=False) as node, client(node) as http:
        tokens = TokenFile(node.home.directory / "tokens.json")
        ended, _ = tokens.add("ended", ("*",), 0, 1)
        for authorization, code, words in (
            ("", "NO-TOKEN", "none was sent"),
            ("Bearer hf_" + "x" * 40, "NO-TOKEN", "the token that was sent is not one of this node"),
            ("Bearer not-a-token", "NO-TOKEN", "the token that was sent is not one of this node"),
            (f"Bearer {ended}", "TOKEN-EXPIRED", "the token has expired"),
        ):
            headers = {"Authorization": authorization} if authorization else {}
            for query in ("", "?search=x", "?gated=true", "?limit=nonsense"):
                answer = await http.get(f"/api/{kind}{query}", headers=headers)
                assert said(answer) == (401, code), (authorization, query)
                assert words in answer.headers["X-Error-Message"] and answer.headers["WWW-Authenticate"] == "Bearer"
        assert (await http.get("/v2/_catalog")).status_code == 401


async def test_a_list_reaches_every_repository_however_little_is_read_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_module, "PAGE", 1)
    monkeypatch.setattr(catalogue_module, "SCANNED", 2)
    async with gateway_node(tmp_path) as node:
        names = [f"tests/{letter}-model" for letter in "abcde"]
        for name in names:
            await node.publish(small(tmp_path / name), f"{name}@v1")
        async with client(node) as http:
            for search, expected in (("", names), ("e-model", names[-1:]), ("absent", [])):
                url, seen = f"/api/models?search={search}", []
                while url:
                    answer = await http.get(url)
                    seen += [item["id"] for item in answer.json()]
                    url = answer.links.get("next", {}).get("url", "")
                assert seen == expected


@pytest.mark.slow
async def test_a_list_has_the_models_that_match_its_filters(tmp_path: Path) -> None:
    cards = {
        "tests/Tiny-Chat": "library_name: transformers\npipeline_tag: text-generation\ntags: [conversational]\n",
        "tests/tiny-words": "library_name: transformers\npipeline_tag: fill-mask\nlanguage:\n  - de\n  - fr\n",
        "tests/other": "",
    }
    chat, words, _ = cards
    async with gateway_node(tmp_path) as node:
        for name, card in cards.items():
            folder = small(tmp_path / name)
            (folder / "README.md").write_text(f"---\n{card}---\n")
            (folder / "model.safetensors").write_text(name)
            await node.publish(folder, f"{name}@v1")
        async with client(node) as http:

            async def listed(query: str) -> list[str]:
                url, seen = f"/api/models?limit=1&{query}", list[str]()
                while url:
                    answer = await http.get(url)
                    seen += [item["id"] for item in answer.json()]
                    url = answer.links.get("next", {}).get("url", "")
                return seen

            everything = sorted(cards, key=str.lower)
            for query, expected in (
                ("search=TINY", [chat, words]),
                ("search=tiny&filter=conversational", [chat]),
                ("author=tests", everything),
                ("author=nobody", []),
                ("filter=transformers", [chat, words]),
                ("filter=transformers&filter=fr", [words]),
                ("filter=transformers,fr", [words]),
                ("pipeline_tag=text-generation", [chat]),
                ("library=transformers&pipeline_tag=fill-mask", [words]),
                ("filter=safetensors&filter=license:mit", everything),
                ("filter=license:apache-2.0", []),
                ("filter=gguf", []),
                ("sort=downloads&direction=-1", everything),
                ("gated=false", everything),
                ("gated=true", []),
                ("num_parameters=min:1B", []),
            ):
                assert await listed(query) == expected, query
            assert "num_parameters" in (await http.get("/api/models?num_parameters=min:1B")).headers["X-HF-Warning"]
            page = (await http.get(f"/api/models/{chat}")).json()
            assert (page["pipeline_tag"], page["library_name"]) == ("text-generation", "transformers")
            assert {"transformers", "conversational", "safetensors", "license:mit"} <= set(page["tags"])


async def test_somebody_elses_token_opens_a_public_node_as_none_does(node: GatewayNode, ready: Release) -> None:
    async with client(node, headers={"Authorization": "Bearer hf_" + "z" * 34}) as http:
        assert (await http.get(PATH)).status_code == 200
        assert said(await http.get("/api/whoami-v2")) == (401, "BAD-TOKEN")


async def test_no_token_appears_in_any_line_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a token in its header, nor one that a user puts into the wrong place, nor one of a request whose route
    fails.
    """
    lines, before = io.StringIO(), structlog.get_config()
    configure_logging(level=logging.DEBUG)
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(lines)
    handler.addFilter(lambda record: not record.name.startswith("http"))  # this test's own client, in this process
    try:
        async with gateway_node(tmp_path, public=False) as node:
            await node.publish(small(tmp_path / "model"), "tests/model@v1")
            secret, _ = TokenFile(node.home.directory / "tokens.json").add("all", ("*",), 0)
            stranger = "hf_" + "S" * 40
            async with client(node) as http:
                for token in (secret, stranger, f"{secret}x"):
                    headers = {"Authorization": f"Bearer {token}", "Cookie": f"token={token}"}
                    for url in (PATH, f"/{token}/x/resolve/main/a", f"{PATH}?token={token}", f"/api/models/{token}"):
                        await http.get(url, headers=headers)
                monkeypatch.setattr("comity.gateway.hub.views.model_view", None)
                assert (await http.get(PATH, headers={"Authorization": f"Bearer {secret}"})).status_code == 500
    finally:
        structlog.configure(**before)
        logging.getLogger().handlers.clear()
    printed = lines.getvalue()
    assert "route failed" in printed and json.loads(printed.splitlines()[-1])
    assert secret not in printed and stranger not in printed and "hf_" not in printed
    kept = (node.home.directory / "tokens.json").read_text()
    assert secret not in kept and stat.S_IMODE((node.home.directory / "tokens.json").stat().st_mode) == 0o600
