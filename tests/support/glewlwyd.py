"""Glewlwyd, an OpenID Connect provider of Debian: started with a database of its own, and set up over its own API."""

from __future__ import annotations

import http.cookiejar
import json
import shutil
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from support.openid_provider import CLIENT, SECRET
from support.ports import free_port
from support.tools import needs, running

PAGES = Path("/usr/share/glewlwyd/webapp")
PAGE_SETTINGS = Path("/usr/share/glewlwyd/templates/config.json")
TABLES = Path("/usr/share/dbconfig-common/data/glewlwyd/install/sqlite3")
PASSWORD = "her own password"
SETTINGS = """
port={port}
bind_address="127.0.0.1"
external_url="http://localhost:{port}"
login_url="login.html"
api_prefix="api"
static_files_path="{pages}"
log_mode="console"
log_level="WARNING"
cookie_secure=0
session_key="GLEWLWYD2_SESSION_ID"
admin_scope="g_admin"
profile_scope="g_profile"
user_module_path="/usr/lib/glewlwyd/user"
client_module_path="/usr/lib/glewlwyd/client"
user_auth_scheme_module_path="/usr/lib/glewlwyd/scheme"
plugin_module_path="/usr/lib/glewlwyd/plugin"
hash_algorithm="SHA512"
database={{type="sqlite3"; path="{database}";}};
static_files_mime_types=({types})
"""
TYPES = {".html": "text/html", ".js": "application/javascript", ".css": "text/css", ".json": "application/json"}


class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *parts: Any) -> None:
        return None


@dataclass(eq=False)
class Glewlwyd:
    """A running provider. It is at `localhost`, which for a browser is another site than 127.0.0.1."""

    port: int

    @property
    def issuer(self) -> str:
        return f"http://localhost:{self.port}/api/oidc"

    def set_up(self, callback: str) -> None:
        """A client with the redirect URL `callback`."""
        admin = Visitor(self, "admin", "password")
        users = json.loads(admin.call("GET", "/mod/user/database"))
        shown = {"multiple": True, "read": True, "write": True, "profile-read": False, "profile-write": False}
        users["parameters"]["data-format"]["groups"] = shown
        admin.call("PUT", "/mod/user/database", users)
        admin.call("PUT", "/mod/user/database/reset")
        plugin = {"module": "oidc", "name": "oidc", "display_name": "oidc", "parameters": self._plugin()}
        admin.call("POST", "/mod/plugin", plugin)
        client = {"client_id": CLIENT, "name": "Comity", "confidential": True, "enabled": True, "scope": []}
        client |= {"client_secret": SECRET, "redirect_uri": [callback], "authorization_type": ["code"]}
        admin.call("POST", "/client", {**client, "token_endpoint_auth_method": ["client_secret_basic"]})

    def add(self, name: str, shown: str, *groups: str) -> Visitor:
        """A person, who has agreed that the client may know their name."""
        person = {"username": name, "name": shown, "password": PASSWORD, "enabled": True, "scope": ["openid"]}
        Visitor(self, "admin", "password").call("POST", "/user", {**person, "groups": list(groups)})
        visitor = Visitor(self, name, PASSWORD)
        visitor.call("PUT", f"/auth/grant/{CLIENT}", {"scope": "openid"})
        return visitor

    def _plugin(self) -> dict[str, Any]:
        key = rsa.generate_private_key(65_537, 2_048)
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain).decode()
        public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
        off = {
            f"auth-type-{kind}-enabled": False for kind in ("client", "token", "none", "password", "refresh", "device")
        }
        claim = {"name": "groups", "user-property": "groups", "type": "string", "mandatory": True, "scope": []}
        return {
            **off,
            "iss": self.issuer,
            "jwt-type": "rsa",
            "jwt-key-size": "256",
            "key": private,
            "cert": public,
            "auth-type-code-enabled": True,
            "auth-type-id-token-enabled": True,
            "allow-non-oidc": False,
            "access-token-duration": 3600,
            "refresh-token-duration": 3600,
            "refresh-token-rolling": True,
            "code-duration": 600,
            "pkce-allowed": True,
            "pkce-required": True,
            "pkce-method-plain-allowed": False,
            "subject-type": "public",
            "allowed-scope": ["openid"],
            "jwks-show": True,
            "scope": [],
            "claims": [{**claim, "on-demand": False}],
            "name-claim": "mandatory",
        }


class Visitor:
    """A browser in which a person is signed in at the provider."""

    def __init__(self, provider: Glewlwyd, name: str, password: str) -> None:
        self._base = f"http://localhost:{provider.port}/api"
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._opener = urllib.request.build_opener(Stay, cookies)
        self.call("POST", "/auth", {"username": name, "password": password})

    def call(self, method: str, path: str, body: Any = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._base + path, data, headers, method=method)
        with self._opener.open(request, timeout=10) as answer:
            return bytes(answer.read())

    def visit(self, url: str) -> dict[str, str]:
        """The provider's redirect for a browser that opens `url`."""
        try:
            self._opener.open(f"{url}&g_continue=", timeout=10)
        except urllib.error.HTTPError as error:
            with error:
                return dict(parse_qsl(urlsplit(error.headers["Location"]).query))
        raise AssertionError("the provider sent the browser nowhere")


@contextmanager
def glewlwyd(folder: Path) -> Iterator[Glewlwyd]:
    program = needs("glewlwyd", unlock="apt-get install glewlwyd")
    database, port = folder / "glewlwyd.sqlite", free_port()
    with sqlite3.connect(database) as tables:
        tables.execute("PRAGMA synchronous=OFF")
        tables.executescript(TABLES.read_text())
    tables.close()
    types = ", ".join(f'{{extension="{end}"; mime_type="{kind}";}}' for end, kind in TYPES.items())
    settings = folder / "glewlwyd.conf"
    pages = _pages(folder / "pages")
    settings.write_text(SETTINGS.format(port=port, database=database, types=types, pages=f"{pages}/"))
    with running([program, f"--config-file={settings}"], folder / "glewlwyd.log") as process:
        provider = Glewlwyd(port)
        _wait(provider, process)
        yield provider


def _pages(folder: Path) -> Path:
    """Its pages in one folder: the server follows no links to libraries of other packages."""
    shutil.copytree(PAGES, folder, ignore=shutil.ignore_patterns("config.json", "*.map", "admin*", "profile*"))
    shutil.copyfile(PAGE_SETTINGS, folder / "config.json")
    return folder


def _wait(provider: Glewlwyd, process: Any) -> None:
    until = time.monotonic() + 20
    while True:
        assert process.poll() is None, "glewlwyd has ended"
        try:
            urllib.request.urlopen(f"http://localhost:{provider.port}/api", timeout=5).close()
        except urllib.error.HTTPError as error:
            error.close()
            return
        except OSError:
            assert time.monotonic() < until, "glewlwyd does not answer"
            time.sleep(0.02)
        else:
            return
