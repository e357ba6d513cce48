"""The settings of a home as they take effect: each value with its source, and everything that is wrong with them.

A secret is never a setting: settings name files that hold secrets. Their content is not read to be shown; it is said
whether the file is there. What somebody wrote into a URL in spite of that is cut out.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from comity.bounded_file import read_at_most
from comity.content.gateway_tokens import TOKENS_FILE, TokenFile
from comity.content.secrets import read_keys, read_secret
from comity.federation_file import read_federation
from comity.node.config import NodeConfig, SettingOrigin, SettingSources
from comity.node.maintenance.membership_costs import parse_prices
from comity.node.settings import known_settings
from comity.node.webhooks import read_hooks
from comity.rules.descent_shares import parse_laws
from comity.rules.mirror_rules import parse_mirror_rules
from comity.rules.retention import parse_retention_rules
from comity.rules.rule_file import MAX_BYTES
from comity.trust.errors import ComityError, Malformed, NotFound
from comity.trust.frozen import frozen

SECRET_FILES: Final = frozenset(
    {"storage.password_file", "storage.s3.credentials_file", "gateway.key", "oidc.secret_file", "tlog.witness_key"}
)
"""Settings that name a file with a secret."""
_URL_SECRET: Final = re.compile(r"(?<=://)[^/@\s]*@")
_QUERY_SECRET: Final = re.compile(r"(?i)([\w-]*(?:password|passwd|secret|token)[\w-]*\s*=\s*)('[^']*'|[^&\s'\",]+)")
REDACTED: Final = "[redacted]"


@frozen
class ShownSetting:
    """A setting as it takes effect, in a form that may be shown to anybody, and where its value comes from."""

    name: str
    value: str
    origin: SettingOrigin


def shown_settings(file: Path, environ: Mapping[str, str] = os.environ) -> tuple[ShownSetting, ...]:
    """Every setting of the home of `file`, in the order of the documentation. Raises as `NodeConfig.load` does."""
    config, sources = NodeConfig.load(file, environ), SettingSources.read(file, environ)
    names = [name for name in known_settings() if config.storage.s3 is not None or not name.startswith("storage.s3.")]
    return tuple(ShownSetting(name, _shown(name, _value(config, name)), sources.origin(name)) for name in names)


def redacted(text: str) -> str:
    """`text` without the user part of URLs, and without values that are named as a secret."""
    return _QUERY_SECRET.sub(rf"\1{REDACTED}", _URL_SECRET.sub(f"{REDACTED}@", text))


def embedded_secrets(text: str) -> Iterator[str]:
    """What `redacted` would cut out of `text`: passwords in URLs, and values that are named as a secret."""
    for found in _URL_SECRET.findall(text):
        yield found.removesuffix("@").partition(":")[2]
    for _, value in _QUERY_SECRET.findall(text):
        yield value.strip("'")


def setting_problems(file: Path, environ: Mapping[str, str] = os.environ) -> tuple[ComityError, ...]:
    """Everything that a start with these settings would refuse, each with its source: unknown settings, values, and the
    files that settings name. Listens nowhere. Raises NotFound, Unavailable and Malformed if the file cannot be read."""
    sources = SettingSources.read(file, environ)
    unknown = tuple(sources.problems())
    if unknown:
        return unknown
    try:
        NodeConfig.model_validate({**sources.merged(), "home": file.absolute().parent})
    except ValidationError as error:
        return tuple(sources.invalid(error))
    return tuple(named_file_problems(NodeConfig.load(file, environ)))


def named_file_problems(config: NodeConfig) -> Iterator[ComityError]:
    """What is wrong with the files that the settings name, and with the tokens. A federation file that is missing is
    right: the node has not joined yet."""
    s3 = config.storage.s3
    checks: list[tuple[str, Path | None, Callable[[Path], object]]] = [
        ("storage.password_file", config.storage.password_file, read_secret),
        ("storage.s3.credentials_file", s3.credentials_file if s3 else None, read_secret),
        ("gateway.key", config.gateway.key, read_secret),
        ("gateway.certificate", config.gateway.certificate, lambda file: _check_pair(file, config.gateway.key)),
        ("oidc.secret_file", config.oidc.secret_file, read_secret),
        ("oidc.ca_file", config.oidc.ca_file, _check_authorities),
        ("gateway.policy", config.gateway.policy, _check_policy),
        ("gateway.prices_file", config.gateway.prices_file, lambda file: parse_prices(_rules(file))),
        ("gateway.laws_file", config.gateway.laws_file, lambda file: parse_laws(_rules(file))),
        ("tlog.witness_key", config.tlog.witness_key if config.tlog.witness_name else None, read_keys),
        ("federation.file", config.federation.file if config.federation.file.exists() else None, _check_federation),
        ("webhooks.file", config.webhooks.file, lambda file: _check_webhooks(file, config.home)),
        ("replication.rules", config.replication.rules, lambda file: parse_mirror_rules(_rules(file))),
        ("retention.rules", config.retention.rules, lambda file: parse_retention_rules(_rules(file))),
        (TOKENS_FILE, config.path(TOKENS_FILE), lambda file: TokenFile(file).read()),
    ]
    for setting, path, read in checks:
        if path is None:
            continue
        try:
            if setting != TOKENS_FILE and not path.exists():
                raise NotFound(f"{path} does not exist", hint=f"put the file there, or change {setting} in node.toml")
            read(path)
        except ComityError as error:
            why = f"{setting} names {path}" + (f": {error.why}" if error.why else "")
            yield type(error)(error.what, why=why, hint=error.hint, code=error.code)


def _check_authorities(file: Path) -> None:
    try:
        ssl.create_default_context(cafile=file)
    except (OSError, ValueError) as error:
        raise Malformed(f"{file.name} holds no certificates", why=str(error), hint="use a PEM file") from error


def _check_pair(certificate: Path, key: Path | None) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:
        raise Malformed(
            "the certificate of the gateway is not usable",
            why=f"certificate and key do not fit together, or one is no PEM file ({error})",
            hint="put the key that the certificate was made for beside it",
            code="CONFIG",
        ) from error


def _check_policy(file: Path) -> None:
    from comity.verifier import load_policy

    load_policy(file)


def _check_webhooks(file: Path, home: Path) -> None:
    for hook in read_hooks(file):
        hook.secret(home)


def _rules(file: Path) -> bytes:
    return read_at_most(file, MAX_BYTES + 1)


def _check_federation(file: Path) -> None:
    read_federation(file)


def _value(config: NodeConfig, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _shown(name: str, value: Any) -> str:
    if name in SECRET_FILES and value is not None:
        return f"set, from {value}" if value.exists() else f"{value}, which is missing"
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return redacted(", ".join(value) if isinstance(value, tuple) else str(value))
