"""Whose `model.sig` an owner believes: keys, certificate authorities, and people whom a Sigstore authority knows.

One `model.sig` judged: who signed, whether the owner believes them, and whether these are the files they signed.

Pure, and monotone in the moments: another moment by which others had seen the signature can only make a certificate
pass, never fail.


OpenSSF Model Signing: a `model.sig` read, judged and written. Stricter than the reference tool: see
`docs/model-signing.md` for what each of them finds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Malformed, Unavailable, Untrusted
from comity.trust.evidence import Cause, FoundFile, State
from comity.trust.model_signing.bundle import Bundle, ChainMaterial, Coverage, KeyMaterial, ModelStatement, cover
from comity.trust.model_signing.certificates import CertificateChain, ModelKey, TrustedTime


@dataclass(frozen=True, slots=True)
class KeylessIdentity:
    """Somebody who signs without a key of their own: as `identity`, an address or a URL that `issuer` has checked."""

    identity: str
    issuer: str

    def __str__(self) -> str:
        return f"{self.identity} ({self.issuer})"


@dataclass(frozen=True, slots=True)
class ModelSigningRule:
    """The policy's table `[model_signing]`.

    `roots` are certificates (DER) that a chain may lead to. `sigstore_root` is a Sigstore `trusted_root.json`, by which
    the signatures of `identities` are checked. `unsigned` are paths and folders that need not be signed, in the owner's
    own judgement. With `require`, the row *signatures* passes by a `model.sig` only.
    """

    keys: tuple[ModelKey, ...] = ()
    roots: tuple[bytes, ...] = ()
    identities: tuple[KeylessIdentity, ...] = ()
    sigstore_root: bytes | None = None
    unsigned: tuple[str, ...] = ()
    require: bool = False

    @property
    def believes_anybody(self) -> bool:
        return bool(self.keys or self.roots or self.identities)

    def key(self, hint: str) -> ModelKey | None:
        return next((key for key in self.keys if key.hint == hint), None)

    def root_name(self) -> str:
        """The Sigstore root by the beginning of its SHA-256."""
        return f"trusted root {sha256(self.sigstore_root)[:12]}" if self.sigstore_root else "no trusted root"


class KeylessVerifier(Protocol):
    """Checks a keyless bundle; given by whoever has the packages for that, for it cannot be done with `cryptography`
    alone. It must use no network."""

    def __call__(self, bundle: bytes, identities: tuple[KeylessIdentity, ...], sigstore_root: bytes) -> KeylessIdentity:
        """Who of `identities` signed. Raises Untrusted where nobody of them did, or the bundle does not hold, and
        Unavailable where that cannot be told."""


MAX_MOMENTS: Final = 8
"""Moments at which a chain that is valid then is followed: at the first, what does not depend on time has failed."""


@dataclass(frozen=True, slots=True)
class ModelSigner:
    """Who signed the list, as far as that can be told: `state` is `pass` where the owner believes them and it holds.
    `remarks` are what that rests on, `untold` what was not checked about it."""

    state: State
    cause: Cause
    text: str
    remarks: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelSignatureResult:
    """What came of a `model.sig`. `coverage` is None where the list could not be read, or nobody looked at the files;
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
        """The signer's, unless the files say otherwise."""
        signer, coverage = self.signer, self.coverage
        if signer.state == "fail" or self.statement is None:
            return signer.state, signer.cause, signer.text
        if coverage is not None and coverage.false:
            return "fail", "false", f"{signer.text}: {coverage.false[0]} ({len(coverage.false)} in all)"
        if coverage is not None and coverage.missing and not self.partial:
            return "fail", "false", f"{signer.text}: {coverage.missing[0]} ({len(coverage.missing)} in all)"
        if signer.state != "pass":
            return signer.state, signer.cause, signer.text
        if coverage is None:
            return "not-checked", "missing", f"{signer.text}: nobody looked at the files"
        if coverage.unchecked:
            return "not-checked", "missing", f"{signer.text}: {coverage.unchecked[0]}"
        if coverage.missing:
            return "unknown", "partial", f"{signer.text}: partial by request, {len(coverage.missing)} missing"
        return "pass", "", f"{signer.text}, {coverage.right} files"


def judge(
    data: bytes,
    files: Iterable[FoundFile] | None,
    rule: ModelSigningRule,
    moments: Sequence[TrustedTime] = (),
    keyless: KeylessVerifier | None = None,
    *,
    partial: bool = False,
) -> ModelSignatureResult:
    """Judge the bytes of a `model.sig`.

    Args:
        files: all that is in the folder; None where nobody looked.
        rule: whom the owner believes.
        moments: when certificates have to be valid; at any of them is enough.
        keyless: what checks keyless bundles; without it they are not checked.
        partial: the folder was fetched in part, on request.

    Never raises for what `data` holds.
    """
    digest = sha256(data)
    try:
        bundle = Bundle.parse(data)
        statement = ModelStatement.parse(bundle.payload)
    except Malformed as error:
        return ModelSignatureResult(digest, ModelSigner("fail", "false", str(error)))
    signer = _signer(data, bundle, rule, moments, keyless)
    coverage = cover(statement, files, rule.unsigned) if files is not None else None
    return ModelSignatureResult(digest, signer, statement, coverage, partial)


def _signer(
    data: bytes,
    bundle: Bundle,
    rule: ModelSigningRule,
    moments: Sequence[TrustedTime],
    keyless: KeylessVerifier | None,
) -> ModelSigner:
    try:
        if isinstance(bundle.material, KeyMaterial):
            return _by_key(bundle, bundle.material, rule)
        if isinstance(bundle.material, ChainMaterial):
            return _by_certificate(bundle, bundle.material, rule, moments)
        return _by_identity(data, rule, keyless)
    except ComityError as error:
        return ModelSigner("fail", "false", f"model.sig does not hold: {error}")


def _by_key(bundle: Bundle, material: KeyMaterial, rule: ModelSigningRule) -> ModelSigner:
    hint = ModelKey.parse(material.pem).hint if material.pem else material.hint
    if material.pem and material.hint not in ("", hint):
        raise Untrusted("its hint names another key than it brings", code="MODEL-SIG")
    key = rule.key(hint) if hint else next((key for key in rule.keys if _holds(bundle, key)), None)
    if key is None:
        named = f"an unlisted key, {hint[:16]}" if hint else "an unlisted key that it does not name"
        return ModelSigner("unknown", "missing", f"model.sig by {named}")
    key.verify(bundle.signature, bundle.signed)
    return ModelSigner("pass", "", f"model.sig by key {key.hint[:16]} ({key.algorithm})")


def _holds(bundle: Bundle, key: ModelKey) -> bool:
    try:
        key.verify(bundle.signature, bundle.signed)
    except Untrusted:
        return False
    return True


def _by_certificate(
    bundle: Bundle, material: ChainMaterial, rule: ModelSigningRule, moments: Sequence[TrustedTime]
) -> ModelSigner:
    chain = CertificateChain.parse(material.certificates)
    chain.key.verify(bundle.signature, bundle.signed)
    if not rule.roots:
        return ModelSigner("unknown", "missing", "model.sig by a certificate, and the policy lists no authority")
    if not moments:
        text = "model.sig by a certificate, and the policy names no moment to judge it at"
        return ModelSigner("not-checked", "missing", text)
    refusal = Untrusted("its certificate does not hold", why=f"{chain.validity}; at {moments[0]}, it was not")
    for moment in list(filter(chain.valid_at, moments))[:MAX_MOMENTS]:
        try:
            leaf = chain.follow(rule.roots, moment)
        except Untrusted as error:
            refusal = error
            continue
        text = f"model.sig by {leaf.subject} ({leaf.key.algorithm})"
        remark = f"its certificate leads to {leaf.root} at {moment}"
        return ModelSigner("pass", "", text, (remark,), ("whether its certificate was revoked is not checked",))
    raise refusal


def _by_identity(data: bytes, rule: ModelSigningRule, keyless: KeylessVerifier | None) -> ModelSigner:
    if not rule.identities or rule.sigstore_root is None:
        return ModelSigner("unknown", "missing", "model.sig without a key, and the policy lists no identity")
    if keyless is None:
        text = "model.sig without a key: checking it needs the extra [sigstore], and cannot be done here"
        return ModelSigner("not-checked", "missing", text)
    try:
        signer = keyless(data, rule.identities, rule.sigstore_root)
    except Unavailable as error:
        return ModelSigner("not-checked", "missing", f"model.sig without a key: {error}")
    return ModelSigner("pass", "", f"model.sig by {signer}", (f"checked by the Sigstore {rule.root_name()}",))
