"""Judges a `model.sig`: its signer, whether the policy accepts the signer, and whether the files are the signed ones.

Accepted signers are keys, certificate authorities, and identities of a Sigstore authority. The functions are pure. More
times at which the signature was seen can only make a certificate pass, never fail.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Malformed, Unavailable, Untrusted
from comity.trust.evidence import Cause, FoundFile, State
from comity.trust.frozen import frozen
from comity.trust.model_signing.bundle import (
    Bundle,
    ChainMaterial,
    Coverage,
    KeyMaterial,
    ModelKey,
    ModelStatement,
    TrustedTime,
    compare_files,
)


@frozen
class KeylessIdentity:
    """A keyless signer: `identity` is an e-mail address or URL that `issuer` verified."""

    identity: str
    issuer: str

    def __str__(self) -> str:
        return f"{self.identity} ({self.issuer})"


@frozen
class ModelSigningRule:
    """The policy's table `[model_signing]`.

    `roots` are accepted root certificates (DER). `sigstore_root` is a Sigstore `trusted_root.json`, with which the
    signatures of `identities` are checked. `unsigned` are paths and folders that need not be signed. With `require`,
    the row *signatures* passes by a `model.sig` only.
    """

    keys: tuple[ModelKey, ...] = ()
    roots: tuple[bytes, ...] = ()
    identities: tuple[KeylessIdentity, ...] = ()
    sigstore_root: bytes | None = None
    unsigned: tuple[str, ...] = ()
    require: bool = False

    @property
    def lists_signers(self) -> bool:
        return bool(self.keys or self.roots or self.identities)

    def key(self, hint: str) -> ModelKey | None:
        return next((key for key in self.keys if key.hint == hint), None)

    def root_name(self) -> str:
        """Return a label of the Sigstore root, with the first 12 digits of its SHA-256."""
        return f"trusted root {sha256(self.sigstore_root)[:12]}" if self.sigstore_root else "no trusted root"


class KeylessVerifier(Protocol):
    """Checks a keyless bundle. The caller supplies it, because it needs packages other than `cryptography`. It must not
    use the network."""

    def __call__(self, bundle: bytes, identities: tuple[KeylessIdentity, ...], sigstore_root: bytes) -> KeylessIdentity:
        """Return the one of `identities` that signed. Raises Untrusted if none of them did or the bundle does not
        verify, and Unavailable if the check is not possible."""


MAX_TIMES: Final = 8
"""Maximum number of times at which a valid chain is verified. Errors that do not depend on time occur at the first."""


@frozen
class ModelSigner:
    """The signer of the list. `state` is `pass` if the policy accepts the signer and the signature verifies. `remarks`
    are the reasons, `unchecked` what was not checked."""

    state: State
    cause: Cause
    text: str
    remarks: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()


@frozen
class ModelSignatureResult:
    """The result for a `model.sig`. `coverage` is None if the list could not be parsed or the files were not read;
    `digest` is the SHA-256 of the `model.sig`."""

    digest: Digest
    signer: ModelSigner
    statement: ModelStatement | None = None
    coverage: Coverage | None = None
    partial: bool = False

    @property
    def state(self) -> State:
        return self._outcome[0]

    @property
    def cause(self) -> Cause:
        return self._outcome[1]

    @property
    def text(self) -> str:
        return self._outcome[2]

    @property
    def _outcome(self) -> tuple[State, Cause, str]:
        """State, cause and text: those of the signer, unless the files give a worse result."""
        signer, coverage = self.signer, self.coverage
        if signer.state == "fail":
            return signer.state, signer.cause, signer.text
        if coverage is not None and coverage.false:
            return "fail", "false", f"{signer.text}: {coverage.false[0]} ({len(coverage.false)} in all)"
        if coverage is not None and coverage.missing and not self.partial:
            return "fail", "false", f"{signer.text}: {coverage.missing[0]} ({len(coverage.missing)} in all)"
        if signer.state != "pass":
            return signer.state, signer.cause, signer.text
        if coverage is None:
            return "not-checked", "missing", f"{signer.text}: the files were not read"
        if coverage.unchecked:
            return "not-checked", "missing", f"{signer.text}: {coverage.unchecked[0]}"
        if coverage.missing:
            return "unknown", "partial", f"{signer.text}: partial by request, {len(coverage.missing)} missing"
        return "pass", "", f"{signer.text}, {coverage.right} files"


def judge(
    data: bytes,
    files: Iterable[FoundFile] | None,
    rule: ModelSigningRule,
    times: Sequence[TrustedTime] = (),
    keyless: KeylessVerifier | None = None,
    *,
    partial: bool = False,
) -> ModelSignatureResult:
    """Judge the bytes of a `model.sig`.

    Args:
        files: all files in the folder; None if they were not read.
        rule: the accepted signers.
        times: times at which certificates are judged; a certificate must be valid at one of them.
        keyless: verifies keyless bundles; without it they are not checked.
        partial: the folder was fetched in part, on request.

    Raises nothing for bad `data`.
    """
    digest = sha256(data)
    try:
        bundle = Bundle.parse(data)
        statement = ModelStatement.parse(bundle.payload)
    except Malformed as error:
        return ModelSignatureResult(digest, ModelSigner("fail", "false", str(error)))
    signer = _signer(data, bundle, rule, times, keyless)
    coverage = compare_files(statement, files, rule.unsigned) if files is not None else None
    return ModelSignatureResult(digest, signer, statement, coverage, partial)


def _signer(
    data: bytes,
    bundle: Bundle,
    rule: ModelSigningRule,
    times: Sequence[TrustedTime],
    keyless: KeylessVerifier | None,
) -> ModelSigner:
    try:
        if isinstance(bundle.material, KeyMaterial):
            return _by_key(bundle, bundle.material, rule)
        if isinstance(bundle.material, ChainMaterial):
            return _by_certificate(bundle, bundle.material, rule, times)
        return _by_identity(data, rule, keyless)
    except ComityError as error:
        return ModelSigner("fail", "false", f"model.sig does not verify: {error}")


def _by_key(bundle: Bundle, material: KeyMaterial, rule: ModelSigningRule) -> ModelSigner:
    hint = ModelKey.parse(material.pem).hint if material.pem else material.hint
    if material.hint not in ("", hint):
        raise Untrusted("the hint does not match the included key", code="MODEL-SIG")
    key = rule.key(hint) if hint else next((key for key in rule.keys if _verifies(bundle, key)), None)
    if key is None:
        named = f"an unlisted key, {hint[:16]}" if hint else "an unlisted key without a hint"
        return ModelSigner("unknown", "missing", f"model.sig by {named}")
    key.verify(bundle.signature, bundle.signed)
    return ModelSigner("pass", "", f"model.sig by key {key.hint[:16]} ({key.algorithm})")


def _verifies(bundle: Bundle, key: ModelKey) -> bool:
    try:
        key.verify(bundle.signature, bundle.signed)
    except Untrusted:
        return False
    return True


def _by_certificate(
    bundle: Bundle, material: ChainMaterial, rule: ModelSigningRule, times: Sequence[TrustedTime]
) -> ModelSigner:
    from comity.trust.model_signing.certificates import CertificateChain

    chain = CertificateChain.parse(material.certificates)
    chain.key.verify(bundle.signature, bundle.signed)
    if not rule.roots:
        return ModelSigner("unknown", "missing", "model.sig by a certificate, and the policy lists no authority")
    if not times:
        text = "model.sig by a certificate, and there is no time at which to judge it"
        return ModelSigner("not-checked", "missing", text)
    refusal = Untrusted("the certificate does not verify", why=f"{chain.validity}; not valid at {times[0]}")
    for time in list(filter(chain.valid_at, times))[:MAX_TIMES]:
        try:
            leaf = chain.verify(rule.roots, time)
        except Untrusted as error:
            refusal = error
            continue
        text = f"model.sig by {leaf.subject} ({leaf.key.algorithm})"
        remark = f"its certificate chains to {leaf.root} at {time}"
        return ModelSigner("pass", "", text, (remark,), ("revocation of its certificate is not checked",))
    raise refusal


def _by_identity(data: bytes, rule: ModelSigningRule, keyless: KeylessVerifier | None) -> ModelSigner:
    if not rule.identities or rule.sigstore_root is None:
        return ModelSigner("unknown", "missing", "model.sig without a key, and the policy lists no identity")
    if keyless is None:
        text = "model.sig without a key: the check needs the extra [sigstore], which is not available here"
        return ModelSigner("not-checked", "missing", text)
    try:
        signer = keyless(data, rule.identities, rule.sigstore_root)
    except Unavailable as error:
        return ModelSigner("not-checked", "missing", f"model.sig without a key: {error}")
    return ModelSigner("pass", "", f"model.sig by {signer}", (f"checked by the Sigstore {rule.root_name()}",))
