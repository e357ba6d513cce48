"""The console of a running node: every page, its headers, access, Hub clients, and hostile texts."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from comity.content.audit_log import LOG_FILE, check_chain
from comity.content.gateway_tokens import TOKENS_FILE, TokenFile
from comity.gateway.app import serve_gateway
from comity.gateway.console import routes as console_routes
from comity.rules.signing import sign_content
from comity.trust.encoding import sha256
from comity.trust.errors import Refused
from comity.trust.statements import Advisory, Vouched
from support.console import HOSTILE, HOSTILE_CARDS, ReadPage, check_page
from support.federation import found, serving, until
from support.gateway import GatewayNode, gateway_node
from support.publisher import Publisher, Release, model, release, send
from support.waiting import PATIENCE
from support.weights import as_tensor

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGES = ("/", "/-/catalogue", "/-/members", "/-/logs", "/-/proposals", "/-/compute", "/-/alerts")
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
HUB_CLIENTS: tuple[dict[str, str], ...] = (
    {"User-Agent": "unknown/None; hf_hub/1.2.0; python/3.11.9", "Accept": "*/*", "Accept-Encoding": "identity"},
    {"User-Agent": "llama-cpp", "Accept": "application/json"},
    {"User-Agent": "curl/8.14.1", "Accept": "*/*"},
)


def browser(node: GatewayNode, **more: Any) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        base_url=node.url, headers={**BROWSER, **more.pop("headers", {})}, timeout=PATIENCE, **more
    )


async def page(http: httpx2.AsyncClient, path: str, status: int = 200) -> ReadPage:
    answer = await http.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    return check_page(answer.text)


async def listed(http: httpx2.AsyncClient, name: str) -> None:
    """Wait until the index has a name."""

    async def there() -> bool:
        return name in (await http.get(f"/-/catalogue?q={name.replace('/', ' ')}")).text

    await until(there, what=f"the index to list {name}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayNode]:
    """Publishes the artifacts of `ready`; tests must not change it."""
    async with gateway_node(tmp_path_factory.mktemp("node")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ready(node: GatewayNode, tmp_path_factory: pytest.TempPathFactory) -> Release:
    return await published(node, tmp_path_factory.mktemp("ready"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def without_console(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayNode]:
    """As `node` and `ready`, with the console turned off in the settings."""
    folder = tmp_path_factory.mktemp("without-console")
    async with gateway_node(folder, console=False) as running:
        await published(running, folder)
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def own(tmp_path: Path) -> AsyncIterator[GatewayNode]:
    """A node that the test may change."""
    async with gateway_node(tmp_path) as running:
        yield running


async def published(node: GatewayNode, folder: Path) -> Release:
    made = model(folder / "model")
    (made / "README.md").write_text("# A small model\n\nIt *does* little.\n")
    return await node.publish(made, "tests/model@v1")


@pytest.mark.slow
async def test_the_list_of_the_hub_is_the_same_for_a_browser(node: GatewayNode, ready: Release) -> None:
    async with browser(node) as http:
        for path, listed in (("/api/models", ["tests/model"]), ("/api/datasets", [])):
            answer = await http.get(path)
            assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
            assert [item["id"] for item in answer.json()] == listed


async def test_the_page_says_what_a_file_is_by_its_digest_or_the_file_itself(node: GatewayNode, ready: Release) -> None:
    path, digest = "weights.bin", ready.hashes["weights.bin"]
    data = node.blob(digest).read_bytes()
    async with browser(node, follow_redirects=True) as http:

        async def known() -> bool:
            return path in (await http.get(f"/-/identify?sha256={digest}")).text

        await until(known, what="the index to have the file")
        sent = await http.post("/-/identify?lang=en", files={"file": (path, data)}, headers={"Origin": node.url})
        assert sent.url.path == "/-/identify"
        read = check_page(sent.text)
        sentence = f"This is the file {path} of tests/model@v1, published by"
        assert sentence in " ".join(read.text.split()) and "Accepted by the policy of this node" in read.text
        (link,) = [found["href"] for found in read.found("a") if f"sha256:{ready.artifact}" in found["href"]]
        assert "tests/model" in (await page(http, link)).text
        assert "No publication that this node has read" in (await page(http, f"/-/identify?sha256={'0' * 64}")).text
        assert sent.headers["Referrer-Policy"] == "same-origin"  # else a browser hides the origin of the form


async def test_an_index_that_is_none_is_in_no_log(node: GatewayNode, ready: Release) -> None:
    async with browser(node) as http:
        log = (await page(http, "/-/logs")).found("a")
        (link,) = [found["href"] for found in log if found.get("href", "").startswith("/-/logs/")]
        for index in ("9" * 19, "9" * 5_000, "x", "-1"):
            assert "BEYOND-LOG" in (await http.get(f"{link}/{index}")).text
            assert (await http.get(f"{link}/{index}.proof")).status_code == 404


async def test_every_page_is_sound_and_has_its_headers(node: GatewayNode, ready: Release) -> None:
    async with browser(node) as http:
        await listed(http, "tests/model")
        log = (await page(http, "/-/logs")).found("a")
        (link,) = [found["href"] for found in log if found.get("href", "").startswith("/-/logs/")]
        for path in (*PAGES, "/tests/model", "/tests/model/tree/v1", link, f"{link}/0", "/-/nothing", "/a/b", "/x"):
            answer = await http.get(path)
            check_page(answer.text)
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'self'" in policy
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert "Accept" in answer.headers["Vary"]
            assert "Set-Cookie" not in answer.headers


async def test_the_page_of_an_artifact_says_who_says_so(node: GatewayNode, ready: Release) -> None:
    async with browser(node) as http:
        await page(http, "/tests/model")
        shown = await page(http, "/tests/model/tree/v1")
        assert ready.artifact in shown.text
        for entry in ready.ingested.manifest.files:
            assert entry.sha256 in shown.text
        assert "comity verify tests/model@v1" in shown.text
        assert "A small model" in shown.text
        assert "Verified here" in shown.text
        assert "Claimed by its publisher" in shown.text
        redirect = await http.get("/Tests/MODEL/tree/v1?lang=fr")
        assert (redirect.status_code, redirect.headers["Location"]) == (307, "/tests/model/tree/v1?lang=fr")
        assert (await http.get("/tests/model/tree/v9")).status_code == 404


async def test_what_was_not_checked_has_no_mark_of_a_check(node: GatewayNode, ready: Release) -> None:
    async with browser(node) as http:
        text = (await http.get("/tests/model/tree/v1")).text
    undecided = re.compile(r"(Unknown|Not checked)</span></td>")
    rows = [row for row in re.findall(r"<tr>.*?</tr>", text, re.DOTALL) if undecided.search(row)]
    assert rows and not any("not inspected" in row for row in rows)  # the node inspects what it holds
    for row in rows:
        assert "Verified here" not in re.sub(r"<details>.*?</details>", "", row, flags=re.DOTALL)


async def test_the_name_of_a_publisher_is_not_shown_as_verified(node: GatewayNode, ready: Release) -> None:
    async with browser(node) as http:
        text = (await http.get("/tests/model/tree/v1")).text
    (publisher,) = re.findall(r"<dt>Publisher</dt><dd>(.*?)</dd>", text, re.DOTALL)
    assert f"[{node.publisher.id[:12]}]" in publisher
    assert "Signature verified here" in publisher
    assert "the name is the publisher’s own word" in publisher


async def test_a_name_of_which_all_versions_are_withdrawn_leads_to_the_newest_with_its_warning(
    own: GatewayNode, tmp_path: Path
) -> None:
    ready = await published(own, tmp_path)
    author = own.publisher.inception.author
    async with own.home.client() as client:
        warning = Advisory(author, ready.artifact, "yank", "info", "wrong tokenizer")
        await client.submit((sign_content(warning, own.publisher.signer).line,), ())
    async with browser(own) as http:

        async def withdrawn() -> bool:
            return (await http.get("/tests/model")).status_code == 307

        await until(withdrawn, what="the only version to be withdrawn")
        assert (await http.get("/tests/model")).headers["Location"] == "/tests/model/tree/v1"
        assert "wrong tokenizer" in (await page(http, "/tests/model/tree/v1")).text
        assert (await http.get("/tests/model/tree/v9")).status_code == 404


@pytest.mark.slow
async def test_feeds_tell_of_versions_and_warnings_and_are_sent_once(own: GatewayNode, tmp_path: Path) -> None:
    node, ready = own, await published(own, tmp_path)
    author = node.publisher.inception.author
    warning = Advisory(author, ready.artifact, "vulnerability", "high", "<b>see</b> the notes")
    async with node.home.client() as client:
        await client.submit((sign_content(warning, node.publisher.signer).line,), ())
    async with browser(node) as http:

        async def there() -> bool:
            versions, warnings = [(await http.get(f"/-/feeds/{name}.atom")).text for name in ("versions", "advisories")]
            return "tests/model@v1</title>" in versions and "&lt;b&gt;see&lt;/b&gt; the notes" in warnings

        await until(there, what="the feeds to have both")
        first = await http.get("/-/feeds/versions.atom")
        assert first.headers["Content-Type"].startswith("application/atom+xml")
        again = await http.get("/-/feeds/versions.atom", headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert (await http.get("/-/feeds/nothing.atom")).status_code == 404


@pytest.mark.slow
async def test_the_feed_of_a_publisher_tells_of_its_key_its_names_and_its_files(
    own: GatewayNode, tmp_path: Path
) -> None:
    ready, stranger = await published(own, tmp_path), Publisher.generate(label="stranger")
    await own.publish(model(tmp_path / "other", weights=1_000, seed=2), "tests/model@v9", stranger)
    await own.publish(tmp_path / "model", "copies/renamed@v1", stranger)
    path = f"/-/feeds/publishers/{own.publisher.id}.atom"
    wanted = ("Under this identity: tests/model@v1", "under a name of this publisher: tests/model@v9")
    async with browser(own) as http:

        async def there() -> bool:
            text = (await http.get(path)).text
            return all(each in text for each in (*wanted, "under another name: copies/renamed@v1"))

        async def unchanged() -> bool:  # the keys of the publisher, which are proven too, may come last
            known = {"If-None-Match": (await http.get(path)).headers["ETag"]}
            return (await http.get(path, headers=known)).status_code == 304

        await until(there, what="the feed to have all three")
        await until(unchanged, what="the feed to say that nothing has changed")
        of_the_stranger = (await http.get(f"/-/feeds/publishers/{stranger.id}.atom")).text
        assert "tests/model@v1" in of_the_stranger and "Files of this publisher" not in of_the_stranger
        for identity in (ready.artifact, "0" * 64):
            assert "<entry>" not in (await http.get(f"/-/feeds/publishers/{identity}.atom")).text
        assert (await http.get("/-/feeds/publishers/x.atom")).status_code == 404


async def test_an_entry_and_its_proof_can_be_taken_away(node: GatewayNode, ready: Release) -> None:
    async with browser(node) as http:
        shown = await page(http, "/tests/model")
        entries = [found["href"] for found in shown.found("a") if "/-/logs/" in found.get("href", "")]

        async def proven() -> bool:
            return ".proof" in (await http.get(entries[0])).text

        await until(proven, what="a checkpoint that covers the entry")
        entry = await page(http, entries[0])
        assert "comity log proof" in entry.text
        (proof,) = [found["href"] for found in entry.found("a") if found.get("href", "").endswith(".proof")]
        answer = await http.get(proof)
        assert answer.text.startswith("c2sp.org/tlog-proof@v1")
        assert "attachment" in answer.headers["Content-Disposition"]
        checkpoint = await http.get(f"{entries[0].rpartition('/')[0]}/checkpoint")
        assert checkpoint.text.startswith(node.home.origin)


@pytest.mark.parametrize("headers", HUB_CLIENTS, ids=lambda headers: headers["User-Agent"][:9])
@pytest.mark.parametrize("console", [True, False])
async def test_hub_clients_see_what_they_saw_before(
    node: GatewayNode, ready: Release, without_console: GatewayNode, headers: dict[str, str], console: bool
) -> None:
    url = (node if console else without_console).url
    async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE) as http:
        for path in ("/tests/model", "/tests/model/tree/v1", "/tests/model/tree/main", "/-/nothing", "/tests"):
            answer = await http.get(path)
            assert (answer.status_code, answer.headers["X-Error-Code"]) == (404, "NO-SUCH-ROUTE"), path
            assert answer.headers["Content-Type"] == "application/json"
        assert (await http.get("/api/models/tests/model")).json()["id"] == "tests/model"
        assert (await http.get("/tests/model/resolve/main/config.json")).status_code == 200
        assert (await http.head("/tests/model/resolve/main/config.json")).status_code == 200
        assert (await http.get("/")).status_code == 200


async def test_an_operator_can_turn_the_console_off(without_console: GatewayNode) -> None:
    name = without_console.home.name
    async with browser(without_console) as http:
        assert (await http.get("/")).json() == {"node": name, "console": False, "status": "ok"}
        for path in PAGES[1:]:
            assert (await http.get(path)).status_code == 404


async def test_a_private_console_wants_a_token_as_a_browser_can_send_it(tmp_path: Path) -> None:
    async with gateway_node(tmp_path, public=False) as node:
        await node.publish(model(tmp_path / "model", weights=1_000), "tests/model@v1")
        tokens = TokenFile(node.home.config().path(TOKENS_FILE))
        secret, _ = tokens.add("reader", ("tests/*",), 0)
        async with browser(node) as http:
            for path in (*PAGES, "/tests/model", "/tests/other"):
                answer = await http.get(path)
                assert answer.status_code == 401
                assert answer.headers["WWW-Authenticate"].startswith("Basic ")
                assert "tests/model" not in answer.text.replace(path, "")
            assert (await http.get("/-/console.css")).status_code == 200
        basic = base64.b64encode(f"anybody:{secret}".encode()).decode()
        for authorization in (f"Basic {basic}", f"Bearer {secret}"):
            async with browser(node, headers={"Authorization": authorization}) as http:
                await listed(http, "tests/model")
                await page(http, "/tests/model")
                assert secret not in (await http.get("/")).text
        for authorization in ("Basic !!!", "Basic", f"Basic {base64.b64encode(b'x').decode()}", "Digest x"):
            async with browser(node, headers={"Authorization": authorization}) as http:
                assert (await http.get("/")).status_code == 401


@pytest.mark.slow
async def test_a_token_shows_only_what_it_reaches(tmp_path: Path) -> None:
    async with gateway_node(tmp_path, public=False) as node:
        await node.publish(model(tmp_path / "model", weights=1_000), "tests/model@v1")
        await node.publish(model(tmp_path / "other", weights=1_000, seed=2), "tests/other@v1")
        secret, _ = TokenFile(node.home.config().path(TOKENS_FILE)).add("reader", ("tests/model",), 0)
        async with browser(node, headers={"Authorization": f"Bearer {secret}"}) as http:
            await listed(http, "tests/model")
            assert "tests/other" not in (await http.get("/-/catalogue")).text
            empty = f"/-/identify?sha256={sha256(b'')}"

            async def looked_at_all() -> bool:
                text = (await http.get(empty)).text
                return "tests/model@v1" in text and "looked at all" in text

            await until(looked_at_all, what="the index of files")
            text = (await page(http, empty)).text
            assert "tests/model@v1" in text and "tests/other" not in text
            of_the_other = sha256((tmp_path / "other" / "weights.bin").read_bytes())
            text = (await page(http, f"/-/identify?sha256={of_the_other}")).text
            assert "No publication that this node has read" in text and "Only repositories that you may read" in text
            assert (await http.get("/tests/other")).status_code == 403


@pytest.mark.slow
async def test_texts_of_strangers_never_become_markup(tmp_path: Path) -> None:
    """Labels, cards, file names and advisories; every page that could show them. Each stranger has one of the labels,
    and its card is several of the cards, which `tests/unit/gateway/console/test_console.py` tries one by one."""
    async with gateway_node(tmp_path) as node:
        labels = [text[:100] for text in HOSTILE if text.isprintable()]
        names = []
        async with node.home.client() as client:
            for number, label in enumerate(labels):
                stranger = Publisher.generate(label=label)
                folder = tmp_path / f"model-{number}"
                folder.mkdir()
                (folder / "README.md").write_bytes(b"\n\n".join(HOSTILE_CARDS[number :: len(labels)]))
                (folder / "<img src=x onerror=alert(1)>.bin").write_bytes(b"%d" % number)
                made = release(stranger, folder, f"strangers/m{number}@v1")
                await send(client, made)
                warning = Advisory(stranger.inception.author, made.artifact, "malware", "high", labels[-2])
                await client.submit((sign_content(warning, stranger.signer).line,), ())
                names.append(f"strangers/m{number}")
        async with browser(node) as http:
            await listed(http, names[-1])
            paths = [*PAGES, *(f"/{name}" for name in names), *(f"/{name}?lang=fr" for name in names[:3])]
            for text in HOSTILE[:-1]:
                paths += [str(httpx2.URL(path, params={"q": text, "gone": text, "lang": text, "publisher": text}))
                          for path in ("/", "/-/catalogue", "/-/compute")]  # fmt: skip
            log = [found["href"] for found in (await page(http, "/-/logs")).found("a") if "/-/logs/" in found["href"]]
            paths += [log[0], f"{log[0]}?from=40", *(f"{log[0]}/{index}" for index in range(12))]
            for path in paths:
                answer = await http.get(path)
                found = check_page(answer.text)
                assert found.found("img") == [], path


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/-/catalogue?q=" + "a" * 201, 400),
        ("/-/catalogue?after=%00%ff", 200),
        ("/-/catalogue?q=" + "+".join("abcdefghijklm"), 200),
        ("/-/catalogue?size=%3Cscript%3E&in=XX&copies=short", 200),
        ("/-/identify?sha256=%3Cscript%3E", 400),
        ("/-/identify?sha256=" + "a" * 201, 400),
        ("/-/identify?sha256=+SHA256:" + "A" * 64 + "+", 200),
        ("/-/logs/0000000000000000", 404),
        ("/-/logs/" + "x" * 2_000, 404),
        ("/-/compute?after=zzz", 400),
        ("/-/compute?after=" + "0" * 64, 200),
        ("/?gone=member:" + "0" * 64, 200),
        ("/?gone=in:%F0%9F%92%A9", 200),
        ("/a%2fb/c", 404),
        ("/..%2f..%2fetc/passwd", 404),
        ("/tests/model/tree/" + "v" * 3_000, 404),
        ("/?" + "a" * 9_000, 400),
    ],
)
async def test_what_a_reader_asks_is_bounded(node: GatewayNode, path: str, status: int) -> None:
    async with browser(node) as http:
        assert (await http.get(path)).status_code == status


async def test_the_numbers_of_a_log_are_bounded(node: GatewayNode, ready: Release) -> None:
    async with browser(node) as http:
        (log,) = [found["href"] for found in (await page(http, "/-/logs")).found("a") if "/-/logs/" in found["href"]]
        for number, status in (("0", 200), ("99999999999999", 200), ("-1", 400), ("1e9", 400), ("9" * 16, 400)):
            assert (await http.get(f"{log}?from={number}")).status_code == status
        for index, status in (("0", 200), ("999999", 404), ("9" * 40, 404), ("-1", 404)):
            assert (await http.get(f"{log}/{index}")).status_code == status


async def test_the_catalogue_is_read_page_by_page(
    own: GatewayNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = own
    monkeypatch.setattr(console_routes, "CATALOGUE_PAGE", 2)
    names = [f"tests/model-{number}" for number in range(5)]
    for number, name in enumerate(names):
        folder = tmp_path / f"m{number}"
        folder.mkdir()
        (folder / f"x.{'gguf' if number % 2 else 'safetensors'}").write_bytes(b"%d" % number)
        await node.publish(folder, f"{name}@v1")
    async with browser(node) as http:
        await listed(http, names[-1])
        path, seen = "/-/catalogue", []
        while path:
            shown = await page(http, path)
            seen += [found["href"][1:] for found in shown.found("a") if found["href"].startswith("/tests/")]
            further = (found["href"] for found in shown.found("a") if "hreflang" not in found)
            path = next((target for target in further if "after=" in target), "")
        assert seen == [f"{name}/tree/v1" for name in names], "each row opens the version that it shows"
        assert "model-3" in (await page(http, "/-/catalogue?q=MODEL-3")).text
        gguf = await page(http, "/-/catalogue?format=gguf&licence=mit")
        assert ("model-1" in gguf.text, "model-2" in gguf.text) == (True, False)
        assert "model-1" in (await page(http, "/-/catalogue?kind=model")).text
        assert "model-1" not in (await page(http, "/-/catalogue?kind=dataset")).text


async def test_no_page_shows_a_secret_or_a_path_of_the_node(own: GatewayNode, tmp_path: Path) -> None:
    node = own
    await published(node, tmp_path)
    home = node.home.directory
    secret, _ = TokenFile(node.home.config().path(TOKENS_FILE)).add("planted", ("*",), 0)
    secrets = [secret, str(home), str(tmp_path), "PRIVATE KEY", "operator.sock", "tokens.json"]
    async with browser(node) as http:
        await listed(http, "tests/model")
        (log,) = [found["href"] for found in (await page(http, "/-/logs")).found("a") if "/-/logs/" in found["href"]]
        for path in (*PAGES, "/tests/model", log, f"{log}/0", f"{log}/1", "/a/b", "/?gone=in:CH"):
            text = (await http.get(path)).text
            assert [item for item in secrets if item in text] == [], path


@pytest.mark.slow
async def test_the_loss_of_a_member_is_answered(tmp_path: Path) -> None:
    """With two members and a rule of two copies, the loss of either leaves too few."""
    publisher = Publisher.generate()
    first, second = found(tmp_path, 2, namespaces={"tests": publisher.id})
    async with serving(second), serving(first, companion=serve_gateway) as (listening,):
        node = GatewayNode(listening.http, first, publisher)
        await node.publish(model(tmp_path / "model", weights=1_000), "tests/model@v1")
        async with browser(node) as http:

            async def copied() -> bool:
                return "2 complete copies" in (await http.get("/tests/model")).text

            await until(copied, what="both to claim a copy")

            async def counted() -> bool:
                return "enough copies now would have too few" in (await http.get("/?gone=in:ES")).text

            await until(counted, what="the overview to count both copies")
            shown = await page(http, "/?gone=in:ES")
            assert "tests/model" in shown.text
            member = await page(http, f"/?gone=member:{second.record.member}")
            assert "1 artifact that has enough copies now would have too few" in member.text
            artifact = await page(http, "/tests/model")
            assert "Claimed by Example Institute 1" in artifact.text
            assert "Verified here" in artifact.text


async def sign_in(node: GatewayNode, http: httpx2.AsyncClient) -> None:
    """Sign in with a link from the operator socket."""
    async with node.home.operator() as operator:
        link = (await operator.sign_in_link()).link
    assert link.startswith(f"{node.url}/-/sign-in?key=")
    form = check_page((await http.get(link)).text).found("input")
    done = await http.post("/-/sign-in", data={form[0]["name"]: form[0]["value"]}, headers={"Origin": node.url})
    assert done.status_code == 303


NODE_PAGES = (
    "/-/node",
    "/-/node/waiting",
    "/-/node/sessions",
    "/-/node/tokens",
    "/-/node/settings",
    "/-/node/audit-log",
)


@pytest.mark.slow
async def test_a_link_from_the_socket_opens_a_private_console_and_the_pages_of_the_node(tmp_path: Path) -> None:
    async with gateway_node(tmp_path, public=False) as node, browser(node) as http, browser(node) as other:
        await node.publish(model(tmp_path / "model", weights=1_000), "tests/model@v1")
        assert (await http.get("/")).status_code == 401
        for path in NODE_PAGES:
            answer = await http.get(path)
            assert (answer.status_code, answer.headers["X-Error-Code"]) == (403, "NO-SESSION")
        async with node.home.client() as stranger:
            with pytest.raises(Refused, match="only operators"):
                await stranger.sign_in_link()
        await sign_in(node, http)
        for path in (*PAGES, "/tests/model", *NODE_PAGES):
            await page(http, path)
            await page(http, f"{path}?lang=fr")
        await listed(http, "tests/model")
        shown = await page(http, "/-/node")
        assert node.home.origin in shown.text
        assert "PRIVATE KEY" not in shown.text and str(node.home.directory) not in shown.text
        assert (await http.get("/-/node")).headers["Cache-Control"] == "no-store"
        settings = (await page(http, "/-/node/settings")).text
        assert "gateway.public" in settings and "node.toml:" in settings
        for file in sorted((node.home.directory / "keys").iterdir()):
            assert file.read_text()[30:60] not in settings
        await sign_in(node, other)
        (form,) = [item for item in (await page(http, "/-/node/sessions")).found("input") if item["name"] == "id"]
        key = next(item["value"] for item in shown.found("input") if item["name"] == "form")
        for origin, given, status in ((None, key, 403), (node.url, "wrong", 403), (node.url, key, 303)):
            headers = {"Origin": origin} if origin else {}
            done = await http.post("/-/node/sessions", data={"form": given, "id": form["value"]}, headers=headers)
            assert done.status_code == status
        assert (await other.get("/-/node")).status_code == 403
        await tokens_are_made_and_rotated(node, http, key)
        http.cookies.clear()
        assert (await http.get("/tests/model")).status_code == 401


async def tokens_are_made_and_rotated(node: GatewayNode, http: httpx2.AsyncClient, key: str) -> None:
    own, where = {"Origin": node.url}, "/-/node/tokens"
    order = {"form": key, "name": "ci", "reach": "tests/*", "days": "1"}
    assert (await http.post(where, data=order | {"form": "wrong"}, headers=own)).status_code == 403
    made = await http.post(where, data=order, headers=own)
    (secret,) = re.findall(r"hf_[A-Za-z0-9]{40}", check_page(made.text).text)
    assert secret not in (await page(http, where)).text
    async with browser(node, headers={"Authorization": f"Bearer {secret}"}) as program:
        assert (await program.get("/tests/model")).status_code == 200
    identifier = next(item["value"] for item in check_page(made.text).found("input") if item["name"] == "id")
    rotated = await http.post(f"{where}/rotate", data={"form": key, "id": identifier}, headers=own)
    (second,) = re.findall(r"hf_[A-Za-z0-9]{40}", rotated.text)
    assert second != secret
    assert "ago" in (await page(http, where)).text
    for token, old in ((secret, identifier), (second, None)):
        async with browser(node, headers={"Authorization": f"Bearer {token}"}) as program:
            assert (await program.get("/tests/model")).status_code == 200
            if old is not None:
                await http.post(f"{where}/revoke", data={"form": key, "id": old}, headers=own)
                assert (await program.get("/tests/model")).status_code == 401
    acts = [record.act for record in check_chain(node.home.directory)]
    begun = ["console.link", "session.begin"] * 2
    assert acts == [*begun, "session.end", "token.new", "token.rotate", "token.revoke"]
    assert "token.revoke" in (await page(http, "/-/node/audit-log")).text
    assert not [token for token in (secret, second) if token in (node.home.directory / LOG_FILE).read_text()]
    tokens = TokenFile(node.home.config().path(TOKENS_FILE))
    ended, _ = tokens.add("ended", ("*",), 1_000, 2_000)
    async with browser(node, headers={"Authorization": f"Bearer {ended}"}) as program:
        answer = await program.get("/tests/model")
        assert (answer.status_code, "expired" in answer.text) == (401, False)
        assert (await program.get("/api/models/tests/model")).headers["X-Error-Message"] == "the token has expired"


async def test_the_page_of_an_artifact_opens_with_what_people_look_for(own: GatewayNode, tmp_path: Path) -> None:
    folder = model(tmp_path / "model", weights=1_000)
    (folder / "README.md").write_text("---\nbase_model: org/base\npipeline_tag: fill-mask\n---\n# The card\n")
    (folder / "config.json").write_text('{"max_position_embeddings": 512}')
    (folder / "model.safetensors").write_bytes(as_tensor(bytes(2_128)))
    ready = await own.publish(folder, "tests/model@v1")
    author = own.publisher.inception.author
    words = "measured on <b>two</b> machines"
    async with own.home.client() as client:
        vouched = Vouched(author, ready.artifact, "evaluated", words)
        await client.submit((sign_content(vouched, own.publisher.signer).line,), ())
    async with browser(own) as http:

        async def vouched_for() -> bool:
            return "measured on" in (await http.get("/tests/model/tree/v1")).text

        await until(vouched_for, what="the page to show the vouch")
        text = (await http.get("/tests/model/tree/v1")).text
        french = (await http.get("/tests/model/tree/v1?lang=fr")).text
    (lead,) = re.findall(r'<p class="lead">(.*?)</p>', text, re.DOTALL)
    assert lead.startswith("A model of 2,000 parameters for the task fill-mask, signed by ") and lead.endswith(
        "failed."
    )
    shown = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text, re.DOTALL))
    assert shown["Parameters"].startswith("2,000") and "512" in shown["Context length"]
    assert "org/base" in shown["Base model"] and "1970" not in shown["Known since"]
    assert text.index("The card") < text.index("Who holds it</h2>")
    assert "measured on &lt;b&gt;two&lt;/b&gt; machines" in text and "Evaluated: measured the model." in text
    assert text.count("comity verify tests/model@v1") == 1
    assert "Un modèle de 2" in french and "Évalué\u00a0: a mesuré le modèle." in french


@pytest.mark.slow
async def test_lists_say_since_when_an_artifact_is_known_and_what_was_withdrawn(
    own: GatewayNode, tmp_path: Path
) -> None:
    ready = await published(own, tmp_path)
    async with browser(own) as http:
        day = re.compile(r"<td[^>]*>20\d\d-\d\d-\d\d</td>")

        async def dated() -> bool:
            shown = [(await http.get(path)).text for path in ("/", "/-/catalogue")]
            assert not any("withdrawn by its publisher" in text for text in shown)
            return all(day.search(text) for text in shown)

        await until(dated, what="the lists to say since when it is known")
        async with own.home.client() as client:
            warning = Advisory(own.publisher.inception.author, ready.artifact, "yank", "info", "wrong tokenizer")
            await client.submit((sign_content(warning, own.publisher.signer).line,), ())

        async def marked() -> bool:
            shown = [(await http.get(path)).text for path in ("/", "/-/catalogue")]
            return all("withdrawn by its publisher" in text for text in shown)

        await until(marked, what="the lists to mark what was withdrawn")
