"""A small OpenID Connect provider in this process, whose answers a test can change. The real one is glewlwyd."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

CLIENT = "comity-console"
SECRET = "secret-of_the.client~1"
CODE = "code-of-ada"


@dataclass(eq=False)
class SmallProvider:
    """`claims` replace claims of the next token; `documents` replace whole answers, as (status, body)."""

    key: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256", {"kid": "one", "use": "sig"}))
    claims: dict[str, Any] = field(default_factory=dict)
    documents: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    issuer: str = ""
    challenge: str = ""
    nonce: str = ""
    algorithm: str = "ES256"

    def answer(self, path: str, authorization: str, body: Mapping[str, str]) -> tuple[int, bytes]:
        self.asked.append(path)
        if path in self.documents:
            return self.documents[path]
        if path == "/.well-known/openid-configuration":
            return 200, json.dumps(self.metadata()).encode()
        if path == "/keys":
            return 200, json.dumps(KeySet([self.key]).as_dict(private=False)).encode()
        return self._token(authorization, body)

    def metadata(self) -> dict[str, Any]:
        endpoints = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
        return {"issuer": self.issuer, **{name: f"{self.issuer}/{path}" for name, path in endpoints.items()}}

    def visit(self, url: str) -> dict[str, str]:
        """The provider's redirect for a browser that opens `url`."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert query["code_challenge_method"] == "S256" and query["response_type"] == "code"
        self.challenge, self.nonce = query["code_challenge"], query["nonce"]
        return {"code": CODE, "state": query["state"]}

    def token(self) -> str:
        now = int(time.time())
        right = {"iss": self.issuer, "sub": "5d0c", "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": self.nonce}
        named = {"preferred_username": "ada", "groups": ["comity-operators"]}
        claims = {name: value for name, value in (right | named | self.claims).items() if value is not None}
        return jwt.encode({"alg": self.algorithm, "kid": self.key.kid}, claims, self.key)

    def _token(self, authorization: str, body: Mapping[str, str]) -> tuple[int, bytes]:
        made = base64.urlsafe_b64encode(hashlib.sha256(body["code_verifier"].encode()).digest()).decode().rstrip("=")
        expected = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        right = made == self.challenge and body["code"] == CODE and authorization == f"Basic {expected}"
        if not right:
            return 400, b'{"error":"invalid_grant"}'
        return 200, json.dumps({"id_token": self.token(), "access_token": "a", "token_type": "Bearer"}).encode()


@contextmanager
def small_provider() -> Iterator[SmallProvider]:
    provider = SmallProvider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self._answer({name: values[0] for name, values in parse_qs(body).items()})

        def _answer(self, body: Mapping[str, str]) -> None:
            status, data = provider.answer(self.path, self.headers.get("Authorization", ""), body)
            self.send_response(status)
            if status == 302:
                self.send_header("Location", data.decode())
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *values: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider.issuer = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
