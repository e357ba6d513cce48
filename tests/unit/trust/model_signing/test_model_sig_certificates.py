"""Certificates and keyless signatures of a `model.sig`: at which time, from which authority and for whom they are
accepted.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NoReturn

import pytest
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed, Unavailable, Untrusted
from comity.trust.model_signing import certificates
from comity.trust.model_signing.bundle import Bundle, KeylessMaterial, TrustedTime
from comity.trust.model_signing.certificates import CertificateChain, parse_roots
from comity.trust.model_signing.judging import MAX_TIMES, KeylessIdentity, ModelSigningRule, judge
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID
from support.model_sig import (
    CODE_SIGNING,
    RULE,
    UNHEARD_OF,
    Authority,
    changed,
    found,
    outcome,
    posix,
    signed,
)

GOOD = signed()
ROOT = Authority.root()
LAB = ROOT.below()
FOR_SERVERS = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
BAD_USAGE = (x509.UnrecognizedExtension(ExtensionOID.KEY_USAGE, b"\xff"), False)
AT = TrustedTime(posix(2026), "as_of of the policy")
BY_ROOT = ModelSigningRule(roots=parse_roots(ROOT.pem))


def by_leaf(rule: ModelSigningRule = BY_ROOT, at: TrustedTime = AT, **leaf: Any) -> str:
    return outcome(LAB.leaf(**leaf).sign(), rule=rule, times=[at])


@pytest.mark.parametrize("leaf", [{}, {"curve": ec.SECP521R1()}, {"usage": None, "extensions": [CODE_SIGNING]}])
def test_a_certificate_under_a_listed_authority_passes_at_the_given_time(
    leaf: dict[str, Any],
) -> None:
    assert by_leaf(**leaf).startswith("pass/: model.sig by CN=Model Lab (ecdsa-p")
    signer = judge(LAB.leaf().sign(), found(), BY_ROOT, [AT]).signer
    assert signer.remarks == ("its certificate chains to CN=Root at 2026-06-01T00:00:00Z, as_of of the policy",)
    assert signer.unchecked == ("revocation of its certificate is not checked",)


@pytest.mark.parametrize(
    ("leaf", "why"),
    [
        (
            {"years": (2020, 2022)},
            "valid from 2020-01-01 to 2022-01-01; not valid at 2026-06-01T00:00:00Z, as_of of the policy",
        ),
        ({"years": (2028, 2030)}, "valid from 2028-01-01 to 2030-01-01"),
        ({"usage": False}, "neither digital signatures nor code signing"),
        ({"usage": None}, "neither digital signatures nor code signing"),
        ({"usage": None, "extensions": [FOR_SERVERS]}, "neither digital signatures nor code signing"),
        ({"usage": None, "extensions": [BAD_USAGE]}, "extensions are malformed"),
        ({"extensions": [UNHEARD_OF]}, "unaccounted-for critical extensions"),
        ({"curve": ec.SECP256K1()}, "has no key that can sign models"),
    ],
)
def test_a_certificate_that_does_not_hold_fails(leaf: dict[str, Any], why: str) -> None:
    text = by_leaf(**leaf)
    assert text.startswith("fail/false: ")
    assert why in text


def test_a_certificate_is_valid_on_the_first_and_the_last_second_of_its_period() -> None:
    first, last = (int(datetime.datetime(year, 1, 1, tzinfo=datetime.UTC).timestamp()) for year in (2024, 2030))
    for at, state in ((first - 1, "fail"), (first, "pass"), (last, "pass"), (last + 1, "fail")):
        assert by_leaf(at=TrustedTime(at, "as_of")).startswith(f"{state}/")


def test_the_subject_of_a_certificate_is_shown_up_to_a_length() -> None:
    long = x509.Name([x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, str(at) * 64) for at in range(4)])
    shown = long.rfc4514_string()[:200]
    assert by_leaf(name=long).startswith(f"pass/: model.sig by {shown} (ecdsa-p256)")
    assert by_leaf(name=x509.Name([])).startswith("pass/: model.sig by no subject (ecdsa-p256)")


def test_the_number_of_authorities_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "MAX_ROOTS", 2)
    several = [Authority.root().pem for _ in range(3)]
    assert len(parse_roots(b"".join([*several[:2], several[0]]))) == 2
    with pytest.raises(Malformed, match="at most 2"):
        parse_roots(b"".join(several))


def test_a_certificate_is_judged_at_the_next_time_if_its_authority_was_not_valid_at_the_first() -> None:
    late = Authority.root(years=(2025, 2045))
    data = late.below().leaf().sign()
    times = [TrustedTime(posix(year), "cosigned") for year in (2024, 2026)]
    rule = ModelSigningRule(roots=parse_roots(late.pem))
    assert outcome(data, rule=rule, times=times[:1]).startswith("fail/")
    assert outcome(data, rule=rule, times=times).startswith("pass/")


def test_a_certificate_is_verified_at_a_bounded_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[TrustedTime] = []

    def refuse(self: CertificateChain, roots: Sequence[bytes], time: TrustedTime) -> NoReturn:
        asked.append(time)
        raise Untrusted("no")

    monkeypatch.setattr(CertificateChain, "verify", refuse)
    times = [TrustedTime(posix(2026) + second, "cosigned") for second in range(MAX_TIMES + 1)]
    too_early = TrustedTime(posix(2019), "cosigned")
    assert outcome(LAB.leaf().sign(), rule=BY_ROOT, times=[too_early, *times]).startswith("fail/")
    assert asked == times[:MAX_TIMES]


def test_another_authority_of_the_same_name_is_not_the_listed_one() -> None:
    rule = ModelSigningRule(roots=parse_roots(Authority.root().pem))
    assert by_leaf(rule).startswith("fail/false: model.sig does not verify: the certificate does not verify")


def test_a_certificate_without_a_listed_authority_or_a_time_is_not_accepted() -> None:
    data = LAB.leaf().sign()
    assert outcome(data, rule=RULE, times=[AT]).startswith("unknown/missing: ")
    assert outcome(data, rule=BY_ROOT).startswith("not-checked/missing: ")


def test_any_proven_time_of_the_signature_is_enough() -> None:
    expired, late = LAB.leaf(years=(2020, 2022)).sign(), TrustedTime(posix(2026), "as_of")
    times = [late, *(TrustedTime(posix(year), "cosigned") for year in (2019, 2021))]
    assert outcome(expired, rule=BY_ROOT, times=times).startswith("pass/")
    assert outcome(expired, rule=BY_ROOT, times=times[:2]).startswith("fail/")


def test_a_signature_by_another_key_than_the_certificates_fails() -> None:
    mine, other = LAB.leaf().sign(), LAB.leaf().sign()
    swapped = replace(Bundle.parse(mine), material=Bundle.parse(other).material).encode()
    assert "bad signature" in outcome(swapped, rule=BY_ROOT, times=[AT])


def test_an_invalid_certificate_fails() -> None:
    with pytest.raises(Untrusted):
        CertificateChain.parse([b"junk"])
    with pytest.raises(Malformed, match="certificates in PEM"):
        parse_roots(b"junk")


SOMEBODY = KeylessIdentity("release@lab.example", "https://accounts.example")
KEYLESS = ModelSigningRule(identities=(SOMEBODY,), sigstore_root=b"{}")


def without_key(document: Any) -> None:
    document["verificationMaterial"] = {"certificate": {"rawBytes": "AAAA"}, "tlogEntries": [{}]}


@pytest.mark.parametrize("rule", [replace(KEYLESS, identities=()), replace(KEYLESS, sigstore_root=None)])
def test_a_keyless_bundle_needs_a_listed_identity_and_a_trusted_root(rule: ModelSigningRule) -> None:
    def never(*_: object) -> NoReturn:
        raise AssertionError("asked without an identity or a root")

    text = outcome(changed(GOOD, without_key), rule=rule, keyless=never)
    assert text == "unknown/missing: model.sig without a key, and the policy lists no identity"


@pytest.mark.parametrize(
    ("rule", "lists"),
    [
        (ModelSigningRule(), False),
        (RULE, True),
        (BY_ROOT, True),
        (KEYLESS, True),
        (ModelSigningRule(require=True), False),
    ],
)
def test_a_rule_lists_signers_by_key_authority_or_identity(rule: ModelSigningRule, lists: bool) -> None:
    assert rule.lists_signers == lists


def test_a_trusted_root_is_named_by_its_hash() -> None:
    assert KEYLESS.root_name() == f"trusted root {sha256(b'{}')[:12]}"
    assert ModelSigningRule().root_name() == "no trusted root"


def test_a_keyless_bundle_is_checked_by_the_callers_verifier() -> None:
    data = changed(GOOD, without_key)
    assert Bundle.parse(data).material == KeylessMaterial(b"\0\0\0", 1)
    assert outcome(data) == "unknown/missing: model.sig without a key, and the policy lists no identity"
    assert outcome(data, rule=KEYLESS).startswith("not-checked/missing: model.sig without a key: the check needs")
    passes = judge(data, found(), KEYLESS, keyless=lambda bundle, identities, root: identities[0])
    assert passes.text == "model.sig by release@lab.example (https://accounts.example), 4 files"

    def refuses(bundle: bytes, identities: tuple[KeylessIdentity, ...], root: bytes) -> KeylessIdentity:
        raise Untrusted("not theirs")

    def cannot(bundle: bytes, identities: tuple[KeylessIdentity, ...], root: bytes) -> KeylessIdentity:
        raise Unavailable("no such root")

    assert outcome(data, rule=KEYLESS, keyless=cannot) == "not-checked/missing: model.sig without a key: no such root"
    assert outcome(data, rule=KEYLESS, keyless=refuses) == "fail/false: model.sig does not verify: not theirs"
