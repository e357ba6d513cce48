"""What an unmodified Hugging Face client has to find in its environment, and must not find, to read from a gateway.

A token is named by the path of its file: an environment is inherited by every child and shown to whoever may look.
Sources: huggingface_hub's environment variables; llama.cpp, common/common.cpp (MODEL_ENDPOINT before HF_ENDPOINT).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.content.secrets import read_secret
from comity.trust.errors import NotFound
from comity.wire.messages import GatewayUrl
from comity_client.founding import settings_of

OFFLINE: Final = "HF_HUB_OFFLINE"
_QUIET: Final = {
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
}
"""What a client would ask of others than the node."""
_TOKENS: Final = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""These win over a token's file, and hold what was meant for another endpoint."""
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}


@dataclass(frozen=True, slots=True)
class HubEnvironment:
    """Variables to set, and variables to take away."""

    set: Mapping[str, str]
    unset: tuple[str, ...]

    def applied(self, environ: Mapping[str, str]) -> dict[str, str]:
        """`environ` with the changes made."""
        return {key: value for key, value in environ.items() if key not in self.unset} | dict(self.set)


def hub_environment(endpoint: str, *, token_file: Path | None = None, ca: Path | None = None) -> HubEnvironment:
    """For clients that shall read from the gateway at the URL `endpoint`.

    Args:
        token_file: holds a token of that node's. Without one, clients are told to send none: theirs are for others.
        ca: certificates (PEM) that clients shall trust, and no others.

    Raises Malformed (GATEWAY-URL) for another endpoint; NotFound, Refused (SECRET-EXPOSED) for the files.
    """
    variables = {"HF_ENDPOINT": str(GatewayUrl.parse(endpoint.removesuffix("/"))), **_QUIET}
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


def offline_environment() -> HubEnvironment:
    """For clients that shall read from the cache on this machine's disk and ask nobody."""
    return HubEnvironment({OFFLINE: "1", **_QUIET}, (*_TOKENS, "HF_TOKEN_PATH"))


def endpoint_of(home: Path, environ: Mapping[str, str] = os.environ) -> str:
    """The URL of the gateway of the node whose home this is, for programs on this machine, as the node itself reads its
    settings: `gateway.url`, else where it listens. Raises NotFound (NO-GATEWAY), Malformed (CONFIG)."""
    setting = _settings(home, environ)
    if url := setting("url"):
        return url
    host, _, port = setting("http").rpartition(":")
    if port in ("", "0"):
        why = "node.toml lets the system choose its port" if port else "[gateway] http is empty in node.toml"
        raise NotFound(f"the gateway of {home} has no address", why=why, hint="set http", code="NO-GATEWAY")
    scheme = "https" if setting("certificate") else "http"
    return f"{scheme}://{_ANYWHERE.get(host, host)}:{port}"


def endpoint_for_others(home: Path, environ: Mapping[str, str] = os.environ) -> str:
    """The same for other machines: `gateway.url`, else where it listens, unless this machine alone reaches it there;
    else nothing. Raises as `endpoint_of` does, and Malformed (GATEWAY-URL)."""
    url = GatewayUrl.parse(endpoint_of(home, environ))
    return str(url) if _settings(home, environ)("url") or not url.address.is_loopback else ""


def _settings(home: Path, environ: Mapping[str, str]) -> Callable[[str], str]:
    """Settings of [gateway] by their names; empty where nothing is written."""
    section = settings_of(home).get("gateway")
    written = section if isinstance(section, dict) else {}
    return lambda name: environ.get(f"COMITY_GATEWAY_{name.upper()}") or str(written.get(name, ""))
