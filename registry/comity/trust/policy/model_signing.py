"""`[model_signing]`: whose `model.sig` counts, and what in a folder need not be signed."""

from __future__ import annotations

from collections.abc import Callable

from comity.trust.model_signing.chains import parse_roots
from comity.trust.model_signing.ec_keys import ModelKey
from comity.trust.model_signing.rule import Identity, ModelSigningRule
from comity.trust.policy.table import Table, naming, wrong


def read_model_signing(table: Table, read: Callable[[str], bytes]) -> ModelSigningRule:
    """Read the table; its files come from `read`, whose errors pass through. Raises Malformed."""
    keys = table.each("keys", lambda name: ModelKey.parse(read(name)))
    with naming(table.what, "certificates"):
        roots = tuple(root for name in table.strings("certificates") for root in parse_roots(read(name)))
    identities = tuple(_identity(Table(item, f"{table.what}.identity")) for item in table.take("identity", list, []))
    trusted = table.take("sigstore_root", str, "")
    unsigned, require = table.each("unsigned", _path), table.take("require", bool, False)
    table.done()
    if bool(identities) != bool(trusted):
        raise wrong(table.what, "identities are checked by a 'sigstore_root', and it serves for nothing else")
    root = read(trusted) if trusted else None
    rule = ModelSigningRule(keys, roots, identities, root, unsigned, require)
    if require and not rule.believes_anybody:
        raise wrong(table.what, "'require' could not be met: it lists no keys, certificates or identities")
    return rule


def _identity(table: Table) -> Identity:
    identity, issuer = table.take("identity", str, ""), table.take("issuer", str, "")
    table.done()
    if not identity or not issuer:
        raise wrong(table.what, "it needs 'identity' and 'issuer': without the second, anybody could vouch for it")
    return Identity(identity, issuer)


def _path(text: str) -> str:
    if any(segment in ("", ".", "..") for segment in text.rstrip("/").split("/")):
        raise wrong("policy.model_signing", f"{text[:80]!r} is no path below the model's folder")
    return text
