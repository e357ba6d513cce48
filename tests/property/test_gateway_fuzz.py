"""Invalid requests to every route of the gateway: no server error, no hang, no byte of another file.

There is no OpenAPI document from which a fuzzer could read the routes, so this module builds the targets from path
segments that the routes know, and from segments that have broken other servers. The node is a process of its own, as
operators run it.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import comity.gateway
import pytest
from comity.gateway.console.page import PREFIX
from comity.gateway.hub.views import KINDS
from comity.rules.git_ids import commit_id
from hypothesis import event, given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.federation import found
from support.ports import free_port, wait_until_listening
from support.publisher import Publisher, model, release, send
from support.tools import running

PATIENCE = 20.0
"""Seconds after which a request counts as hung."""
EXPECTED = {200, 206, 302, 304, 307, 400, 401, 403, 404, 405, 409, 413, 416, 422, 503}
SECRETS = (b"PRIVATE KEY", b"[listen]", b"root:")
"""Content of files that no route serves: a node's keys, its settings, a system's users."""
NOT_HTTP = b"Invalid HTTP request received."


@dataclass(frozen=True)
class Target:
    """A running node with one artifact: where its gateway listens, and what it logs."""

    port: int
    log: Path
    commit: str
    digest: str


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder, publisher, port = tmp_path_factory.mktemp("fuzz"), Publisher.generate(), free_port()
    (home,) = found(folder, 1, namespaces={"tests": publisher.id}).homes
    home.set(
        "gateway", http=f"127.0.0.1:{port}", files="", ranges="", calls_per_second=1e6, aliases=["legacy=tests/model"]
    )
    files = model(folder / "model")
    (files / "tiny-Q4_K_M.gguf").write_bytes(b"GGUF" + bytes(100))
    what = release(publisher, files, "tests/model@v1")

    async def publish() -> None:
        async with home.client() as node:
            await send(node, what)

    with running(
        [sys.executable, "-m", "comity_cli.main", "serve", "--dir", str(home.directory)], folder / "log"
    ) as node:
        wait_until_listening(port, node)
        asyncio.run(publish())
        entry = what.ingested.manifest.by_path["tiny-Q4_K_M.gguf"]
        yield Target(port, folder / "log", commit_id(what.ingested.manifest), f"sha256:{entry.sha256}")


WORDS = [
    *("api", "models", "datasets", "spaces", "kernels", "tests", "model", "legacy", "resolve", "raw", "tree", "refs"),
    *("revision", "paths-info", "commits", "auth-check", "main", "v1", "v2", "manifests", "blobs", "latest", "tlog"),
    *("checkpoint", "tile", "entries", "0", "x001", "000.p", "add-checkpoint", "add-entries", "witness", "whoami-v2"),
    *("config.json", "weights.bin", "tiny-Q4_K_M.gguf", "healthz", "COMMIT", "DIGEST", "refs%2Fheads%2Fmain"),
    *("simple", "image", ""),
]
BREAKING = [
    *(
        "..",
        ".",
        "",
        "%2e%2e",
        "%2E%2E%2f%2e%2e",
        "..%2f..%2f..%2fetc%2fpasswd",
        "%00",
        "%",
        "%zz",
        "%ff%fe",
        "%0d%0aX: y",
    ),
    *("node.toml", "keys", "..%5c..", "a" * 300, "%F0%9F%92%A9", "~root", "{rest}", "*", "-", "--", ".git", "%25252e"),
]
LEADING = [
    *("/api/models/tests/model", "/api/datasets/tests/model/tree/v1", "/api/models/tests/model/paths-info/v1"),
    *("/tests/model/resolve/main", "/legacy/resolve/v1", "/spaces/tests/model/resolve/v1", "/api/models/legacy"),
    *("/tests/model/resolve/main/weights.bin", "/tests/model/resolve/COMMIT", "/api/models/tests/model/revision"),
    *("/v2/tests/model/manifests", "/v2/tests/model/blobs", "/v2/tests/model/blobs/DIGEST", "/tlog", "/api/models", ""),
    *(
        "/-",
        "/-/logs",
        "/-/descent",
        "/-/continuity",
        "/-/node/costs",
        "/-/lineage/tests/model",
        "/tests/model",
        "/tests/model/tree",
        "/v2/tests/model/referrers",
    ),
    *("/-/wheels/tests/model/main/simple", "/-/wheels/tests/model", "/v2/tests/model/image/manifests"),
    "/-/catalogue/mldcat-ap",
]
segments = st.one_of(st.sampled_from(WORDS), st.sampled_from(BREAKING), st.text("abz09._-%~", max_size=8))
paths = st.builds(
    lambda lead, rest: "/".join([lead, *rest]) or "/", st.sampled_from(LEADING), st.lists(segments, max_size=3)
)
values = st.one_of(
    st.sampled_from(["1", "true", "-1", "0", "9" * 30, "zzz", "%00", "", "name"]), st.text("a=%&1", max_size=6)
)
names = ["recursive", "expand", "limit", "cursor", "blobs", "search", "author", "full", "filter", "expand[]", "token"]
queries = st.lists(st.tuples(st.sampled_from(names), values), max_size=3)
headers = st.dictionaries(
    st.sampled_from(
        ["range", "if-range", "if-none-match", "authorization", "content-type", "accept", "host", "cookie"]
    ),
    st.one_of(
        st.sampled_from(
            ["bytes=0-0", "bytes=-1", "bytes=99999999999999999999-", "bytes=5-1,3-", "Bearer hf_" + "a" * 40]
        ),
        st.sampled_from(
            ["application/json", "text/html", "application/x-www-form-urlencoded", '"x"', "*", "a" * 5000, "Bearer"]
        ),
        st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=20),
    ),
    max_size=4,
)
bodies = st.one_of(
    st.just(b""),
    st.binary(max_size=200),
    st.sampled_from([b"paths=config.json", b'{"paths": ["sub", 1]}', b"paths=a&" * 20]),
)
methods = st.sampled_from([*["GET"] * 14, *["HEAD"] * 3, *["POST"] * 3, "PUT", "DELETE", "OPTIONS", "PATCH"])


@settings(max_examples=examples(300))
@given(method=methods, path=paths, query=queries, header=headers, body=bodies)
def test_no_request_breaks_a_route(
    target: Target, method: str, path: str, query: list[tuple[str, str]], header: dict[str, str], body: bytes
) -> None:
    probe(target, method, path, query, header, body)


@pytest.mark.slow
@settings(max_examples=1_000)
@given(method=methods, path=paths, query=queries, header=headers, body=bodies)
def test_a_thousand_requests_break_no_route(
    target: Target, method: str, path: str, query: list[tuple[str, str]], header: dict[str, str], body: bytes
) -> None:
    probe(target, method, path, query, header, body)


@pytest.mark.long
@settings(max_examples=4_000)
@given(method=methods, path=paths, query=queries, header=headers, body=bodies)
def test_no_request_breaks_a_route_at_length(
    target: Target, method: str, path: str, query: list[tuple[str, str]], header: dict[str, str], body: bytes
) -> None:
    probe(target, method, path, query, header, body)


def test_the_path_segments_reach_every_route(target: Target) -> None:
    """If no route were reached, the fuzz test would find nothing."""
    _, _, index = call(target, "GET", "/tlog")
    log = json.loads(index)["logs"][0]["prefix"].rpartition("/")[2]
    for path in (
        *("/healthz", "/readyz", "/api/whoami-v2", "/api/models", "/api/datasets", "/api/spaces", "/api/kernels"),
        *(f"/api/{kind}/tests/model" for kind in ("models", "datasets", "spaces", "kernels")),
        *("/tests/model/resolve/main/config.json", "/v2/", "/v2/tests/model/manifests/latest"),
        *("/tlog", "/tlog/add-checkpoint", "/tlog/add-entries", f"/tlog/witness/{log}/checkpoint"),
        *(f"/tlog/{log}/checkpoint", f"/tlog/{log}/tile/0/000", f"/v2/tests/model/blobs/{target.digest}"),
        *("/v2/_catalog", "/v2/tests/model/tags/list", f"/v2/tests/model/referrers/{target.digest}"),
        "/tests/model/info/refs",
    ):
        call(target, "GET", path)
        call(target, "POST", path)
    for path in (
        *("/", "/legacy", "/tests/model", "/tests/model/tree/v1", f"{PREFIX}/nowhere", f"{PREFIX}/console.css"),
        *(f"{PREFIX}/{page}" for page in ("catalogue", "members", "logs", "proposals", "compute", "alerts")),
        *(f"{PREFIX}/logs/{log}{rest}" for rest in ("", "/checkpoint", "/0", "/0.proof")),
        *(f"{PREFIX}/{path}" for path in ("lineage/tests/model/v1.svg", "feeds/versions.atom", "sign-in", "sign-out")),
        f"{PREFIX}/feeds/publishers/{target.digest}.atom",
        *(f"{PREFIX}/node{rest}" for rest in ("", "/waiting", "/settings", "/sessions", "/tokens", "/audit-log")),
        *(f"{PREFIX}/node/tokens/{rest}" for rest in ("rotate", "revoke")),
    ):
        call(target, "GET", path, {"accept": "text/html"})
        call(target, "POST", path, {"accept": "text/html"})
    events = [json.loads(line) for line in target.log.read_text().splitlines() if line.startswith("{")]
    reached = {event["route"] for event in events if event.get("event") == "request"}
    assert routes() <= reached
    assert not [event for event in events if event.get("level") in ("error", "critical")]


def routes() -> set[str]:
    """Every route that the source names."""
    found: set[str] = set()
    source = Path(comity.gateway.__file__).parent
    for path in source.rglob("*.py"):
        for text in re.findall(r'Route\(f?"([^"]+)"', path.read_text()):
            kinds = KINDS if re.search(r"(?<!\{)\{kind\}", text) else ("",)
            text = text.replace("{TOKENS}", "{NODE}/tokens").replace("{NODE}", "{PREFIX}/node")
            text = text.replace("{PREFIX}", PREFIX).replace("{repository}/", "/v2/{namespace}/{name}/")
            named = {text.replace("{kind}", kind) if kind else text for kind in kinds}
            found |= {name.replace("{{", "{").replace("}}", "}") for name in named}
    return found


@pytest.mark.parametrize(
    "data",
    (
        b"\x00" * 100,
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET //etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://[::1/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /tlog/add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
        b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\r\n" + b"C: d\r\n" * 2000 + b"\r\n",
    ),
)
def test_malformed_http_is_answered_or_cut_off_and_the_next_client_is_served(target: Target, data: bytes) -> None:
    answer = exchange(target, data, end=True)
    assert b" 500 " not in answer[:20]
    assert not any(secret in answer for secret in SECRETS)
    assert call(target, "GET", "/healthz")[0] == 200


def probe(
    target: Target, method: str, path: str, query: list[tuple[str, str]], header: dict[str, str], body: bytes
) -> None:
    path = path.replace("COMMIT", target.commit).replace("DIGEST", target.digest)
    sent = f"{path}?{'&'.join(f'{key}={value}' for key, value in query)}" if query else path
    status, headers, answer = call(target, method, sent, header, body)
    event(f"status {status}")
    assert status in EXPECTED, (status, method, path, answer[:300])
    assert not any(secret in answer for secret in SECRETS)
    worded = method == "HEAD" or headers.get("x-error-code") or path.startswith("/tlog") or answer == NOT_HTTP
    assert status < 400 or worded, (status, path)
    assert not [name for name in headers if "xet" in name]
    assert "content-encoding" not in headers


def call(
    target: Target, method: str, path: str, header: dict[str, str] | None = None, body: bytes = b""
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to one request, whose target is sent as it is."""
    lines = {"host": "localhost", **(header or {}), "connection": "close", "content-length": str(len(body))}
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    answer = exchange(target, head.encode("latin-1") + b"\r\n" + body, end=False)
    first, _, rest = answer.partition(b"\r\n\r\n")
    status, *fields = first.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    return int(status.split(" ")[1]), headers, rest


def exchange(target: Target, data: bytes, *, end: bool) -> bytes:
    """All bytes of the server until the connection ends; with `end` the client closes its side after sending."""
    with socket.create_connection(("127.0.0.1", target.port), timeout=PATIENCE) as connection:
        connection.sendall(data)
        if end:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while part := connection.recv(1 << 20):
                answer += part
        except ConnectionResetError:
            pass  # cut off, with some of our bytes still unread
        return answer
