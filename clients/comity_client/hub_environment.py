"""Environment variables with which an unmodified Hugging Face client reads from a gateway.

A token is given by the path of its file, because child processes inherit an environment and other processes may read
it. Sources: huggingface_hub's environment variables; llama.cpp, common/common.cpp (MODEL_ENDPOINT before HF_ENDPOINT).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from comity.content.secrets import read_secret
from comity.trust.errors import NotFound
from comity.trust.frozen import frozen
from comity.wire.addresses import GatewayUrl

from comity_client.node_home import read_settings

OFFLINE: Final = "HF_HUB_OFFLINE"
_NO_THIRD_PARTIES: Final = {
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
}
"""Disables requests of the client to hosts other than the node."""
_TOKENS: Final = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""Variables that take precedence over a token file and may hold a token for another endpoint."""
_PROXIES: Final = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
_WILDCARD_HOSTS: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}


@frozen
class HubEnvironment:
    """Variables to set, and variables to remove."""

    set: Mapping[str, str]
    unset: tuple[str, ...]

    def applied(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return `environ` with the changes applied."""
        return {key: value for key, value in environ.items() if key not in self.unset} | dict(self.set)


def hub_environment(
    endpoint: str, *, token_file: Path | None = None, ca: Path | None = None, environ: Mapping[str, str] = os.environ
) -> HubEnvironment:
    """Return the environment for clients that read from the gateway at URL `endpoint`.

    Args:
        token_file: holds a token of that node. Without it, clients send no token, because theirs are for other hosts.
        ca: certificates (PEM); clients trust these and no others.
        environ: the environment of the client: if it names a proxy, a gateway on this machine is asked without it.

    Raises Malformed (GATEWAY-URL) for another endpoint; NotFound, Refused (SECRET-EXPOSED) for the files.
    """
    url = GatewayUrl.parse(endpoint.removesuffix("/"))
    variables = {"HF_ENDPOINT": str(url), **_NO_THIRD_PARTIES}
    if url.address.is_loopback and proxies(environ):
        direct = [environ.get("NO_PROXY") or environ.get("no_proxy") or "", url.address.host]
        variables |= dict.fromkeys(("NO_PROXY", "no_proxy"), ",".join(filter(None, direct)))
    taken = [*_TOKENS, "MODEL_ENDPOINT"]
    if token_file is None:
        variables["HF_HUB_DISABLE_IMPLICIT_TOKEN"] = "1"
        taken.append("HF_TOKEN_PATH")
    else:
        read_secret(token_file)
        variables["HF_TOKEN_PATH"] = str(token_file.absolute())
        taken.append("HF_HUB_DISABLE_IMPLICIT_TOKEN")
    if ca is not None:
        if not ca.is_file():
            raise NotFound("no such certificate file", why=str(ca))
        variables |= {"SSL_CERT_FILE": str(ca.absolute()), "REQUESTS_CA_BUNDLE": str(ca.absolute())}
    return HubEnvironment(variables, tuple(taken))


def proxies(environ: Mapping[str, str]) -> list[str]:
    """The variables that name a proxy for clients."""
    return [name for name in _PROXIES if environ.get(name)]


def offline_environment() -> HubEnvironment:
    """Return the environment for clients that read only from the cache on disk."""
    return HubEnvironment({OFFLINE: "1", **_NO_THIRD_PARTIES}, (*_TOKENS, "HF_TOKEN_PATH"))


def endpoint_of(home: Path, environ: Mapping[str, str] = os.environ) -> str:
    """Return the URL of the gateway of the node with this home, for programs on this machine: `gateway.url`, else the
    listen address, with the same precedence as the node. Raises NotFound (NO-GATEWAY), Malformed (CONFIG)."""
    setting = _settings(home, environ)
    if url := setting("url"):
        return url
    host, _, port = setting("http").rpartition(":")
    if port in ("", "0"):
        why = "node.toml has port 0, so the system chooses the port" if port else "[gateway] http is empty in node.toml"
        raise NotFound(f"the gateway of {home} has no address", why=why, hint="set http", code="NO-GATEWAY")
    scheme = "https" if setting("certificate") else "http"
    return f"{scheme}://{_WILDCARD_HOSTS.get(host, host)}:{port}"


def endpoint_for_other_machines(home: Path, environ: Mapping[str, str] = os.environ) -> str:
    """Return the gateway URL for other machines: `gateway.url`, else the listen address unless it is loopback; else an
    empty string. Raises as `endpoint_of` does, and Malformed (GATEWAY-URL)."""
    url = GatewayUrl.parse(endpoint_of(home, environ))
    return str(url) if _settings(home, environ)("url") or not url.address.is_loopback else ""


def _settings(home: Path, environ: Mapping[str, str]) -> Callable[[str], str]:
    """Return a lookup of [gateway] settings by name; the value is empty if the setting is absent."""
    section = read_settings(home).get("gateway")
    written = section if isinstance(section, dict) else {}
    return lambda name: environ.get(f"COMITY_GATEWAY_{name.upper()}") or str(written.get(name, ""))
