"""The owner's pins for hardware evidence, and the files and output of the commands about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from comity.addons.hardware import pins as hardware_pins
from comity.addons.hardware.appraisal import appraise
from comity.addons.hardware.evidence_files import challenge_json, read_challenge, read_evidence
from comity.addons.hardware.pins import HardwarePinStore
from comity.addons.hardware.trust_command import age
from comity.rules.hardware_evidence import HardwareEvidence
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed, NotFound
from comity_cli.main import command
from cryptography.hazmat.primitives.serialization import Encoding
from support import hardware
from unit.addons.hardware.test_hardware_appraisal import CA, CHALLENGE, GPU, NONCE, QUOTE, ROOT, SNP

PEM = ROOT.certificate.public_bytes(Encoding.PEM)


@pytest.fixture
def pins(tmp_path: Path) -> HardwarePinStore:
    return HardwarePinStore(tmp_path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    file = tmp_path / "root.pem"
    file.write_bytes(PEM)
    return file


def run(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments, env={"COMITY_HOME": str(home)})


def test_evidence_is_verified_by_a_pinned_root_and_claimed_without(pins: HardwarePinStore, root: Path) -> None:
    def states() -> list[str]:
        return [each.state for each in appraise(HardwareEvidence((GPU, SNP)), NONCE, pins.load(), hardware.AT)]

    assert states() == ["claimed", "claimed"]
    pinned = pins.pin("nvidia-gpu", root)
    assert states() == ["verified", "claimed"]
    pins.unpin(pinned.digest[:12])
    assert states() == ["claimed", "claimed"]


def test_a_pinned_file_that_was_changed_is_refused(pins: HardwarePinStore, root: Path) -> None:
    pinned = pins.pin("nvidia-gpu", root)
    pinned.file.write_bytes(hardware.vendor().above[0].certificate.public_bytes(Encoding.PEM))
    with pytest.raises(Malformed, match="was changed"):
        pins.load()


@pytest.mark.parametrize("data", [b"", b"no certificate", PEM + PEM])
def test_a_file_without_exactly_one_certificate_is_not_pinned(pins: HardwarePinStore, root: Path, data: bytes) -> None:
    root.write_bytes(data)
    with pytest.raises(Malformed):
        pins.pin("nvidia-gpu", root)
    assert pins.roots("nvidia-gpu") == ()


def pem(*issuers: hardware.Issuer) -> bytes:
    return b"".join(each.certificate.public_bytes(Encoding.PEM) for each in issuers)


@pytest.mark.parametrize("order", [(CA, ROOT), (ROOT, CA), (hardware.issue("lower", CA), CA, ROOT)])
def test_the_root_of_a_vendors_chain_file_is_pinned(
    pins: HardwarePinStore, root: Path, order: tuple[hardware.Issuer, ...]
) -> None:
    """AMD gives its ASK and its ARK in one file."""
    alone = pins.pin("nvidia-gpu", root)
    root.write_bytes(pem(*order))
    assert pins.read_root("nvidia-gpu", root) == pins.pin("nvidia-gpu", root) == alone
    assert pins.roots("nvidia-gpu") == (alone,)


@pytest.mark.parametrize(
    ("issuers", "why"),
    [
        ((CA, hardware.issue("lower", CA)), "of which 0 are roots"),
        ((ROOT, hardware.vendor().above[0]), "of which 2 are roots"),
        ((ROOT, hardware.vendor()), "NVIDIA GH100 Provisioner ICA 1 does not lead up to CN=Vendor root"),
        ((hardware.gpu_leaf(CA), CA, ROOT), "GH100 A01 GSP FMC LF may not sign certificates"),
        ((hardware.issue("lower", CA), ROOT), "lower does not lead up to CN=Vendor root"),
    ],
)
def test_a_file_that_is_no_vendors_chain_is_not_pinned(
    pins: HardwarePinStore, root: Path, issuers: tuple[hardware.Issuer, ...], why: str
) -> None:
    """A root is not taken from the evidence of a device that it is to judge."""
    root.write_bytes(pem(*issuers))
    with pytest.raises(Malformed) as refused:
        pins.pin("nvidia-gpu", root)
    assert why in str(refused.value) and pins.roots("nvidia-gpu") == ()


def test_a_root_that_no_digest_names_stays(pins: HardwarePinStore, root: Path) -> None:
    pinned = pins.pin("nvidia-gpu", root)
    another = "1" if pinned.digest.startswith("0") else "0"
    for digest in ("", another):
        with pytest.raises(NotFound):
            pins.unpin(digest)
        assert pins.roots("nvidia-gpu") == (pinned,)


def test_reference_values_and_revocation_data_are_read(pins: HardwarePinStore, root: Path, tmp_path: Path) -> None:
    pins.pin("nvidia-gpu", root)
    (tmp_path / "reference.toml").write_text('[nvidia-gpu]\ndriver = ["1", "2"]\n')
    crl = tmp_path / "held.crl"
    crl.write_bytes(hardware.revocation_list(CA, [hardware.revocable(GPU)]))
    assert pins.add_revocation(crl).issuer == "CN=NVIDIA GH100 Provisioner ICA 1"
    (result,) = appraise(HardwareEvidence((GPU,)), NONCE, pins.load(), hardware.AT)
    assert [row.name for row in result.findings if row.state == "fail"] == ["revocation", "reference driver"]


@pytest.mark.parametrize("text", ["[other]\n", "nvidia-gpu = 1\n", "[nvidia-gpu]\ndriver = 5\n", "[", "\udcff"])
def test_reference_values_of_another_form_are_refused(pins: HardwarePinStore, tmp_path: Path, text: str) -> None:
    (tmp_path / "reference.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(Malformed, match=r"reference\.toml"):
        pins.load()


def test_a_folder_of_mirrored_revocation_data_is_kept_with_its_age(
    pins: HardwarePinStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    fresh, stale = hardware.revocation_list(CA), hardware.revocation_list(CA, due=hardware.NOW - hardware.DAY / 2)
    (mirror / "a.crl").write_bytes(fresh)
    (mirror / "b.crl").write_bytes(stale)
    (mirror / "README.md").write_text("mirrored")
    (mirror / "folder").mkdir()
    kept, others = pins.add_revocations(mirror)
    assert (len(kept), others) == (2, 1)
    ages = {digest: age(found, hardware.AT) for digest, found in pins.revocations()}
    assert ages == {
        sha256(fresh): "made 1 day ago; newer data are due in 30 days",
        sha256(stale): "made 1 day ago; STALE: newer data are due since 0 days",
    }
    assert pins.add_revocations(mirror) == (kept, 1)
    monkeypatch.setattr(hardware_pins, "MAX_MIRRORED", 1)
    with pytest.raises(Malformed, match="more revocation data"):
        pins.add_revocations(mirror)


def test_an_ocsp_response_has_an_age_too(pins: HardwarePinStore, tmp_path: Path) -> None:
    response = tmp_path / "response.der"
    response.write_bytes(hardware.ocsp_response(CA, hardware.revocable(GPU)))
    assert age(pins.add_revocation(response), hardware.AT) == "made 1 day ago; newer data are due in 1 day"
    (tmp_path / "revocations" / f"{sha256(response.read_bytes())}.der").write_bytes(b"changed")
    assert pins.revocations() == ()


def test_the_documents_of_kept_revocation_data_name_issuer_and_times(tmp_path: Path) -> None:
    file = tmp_path / "mirror" / "a.crl"
    file.parent.mkdir()
    file.write_bytes(hardware.revocation_list(CA))
    (tmp_path / "mirror" / "README.md").write_text("mirrored")
    home, words = tmp_path / "home", ("trust", "hardware", "revocation", "--json")
    one, many = (json.loads(run(home, *words, str(place)).stdout) for place in (file, file.parent))
    assert many == {"schema": "comity.dev/hardware-revocations/v1", "kept": many["kept"], "others": 1}
    assert one == {"schema": "comity.dev/hardware-revocation/v1", **many["kept"][0]}
    assert one["kind"] == "list" and one["issuer"] == "CN=NVIDIA GH100 Provisioner ICA 1"
    assert one["due"] - one["made"] == 31 * 86_400
    shown = json.loads(run(home, "trust", "hardware", "ls", "--json").stdout)
    assert shown["revocation_data"] == [{"digest": sha256(file.read_bytes()), **many["kept"][0]}]


def test_invalid_revocation_data_are_not_kept(pins: HardwarePinStore, root: Path) -> None:
    with pytest.raises(Malformed):
        pins.add_revocation(root)


def test_a_challenge_file_reads_back_and_refuses_a_change(tmp_path: Path) -> None:
    file = tmp_path / "challenge.json"
    document: dict[str, Any] = challenge_json(CHALLENGE)
    file.write_text(json.dumps(document))
    assert read_challenge(file) == CHALLENGE
    file.write_text(json.dumps({**document, "size": 8}))
    with pytest.raises(Malformed, match="was changed"):
        read_challenge(file)


def test_evidence_files_of_every_kind_are_read(tmp_path: Path) -> None:
    gpus, report, chain, quote = (tmp_path / name for name in ("gpus", "report", "chain", "quote"))
    gpus.write_bytes(hardware.gpu_list(GPU))
    report.write_bytes(SNP.report)
    chain.write_bytes(b"".join(_pem(der) for der in SNP.certificates))
    quote.write_bytes(QUOTE.report)
    assert read_evidence([gpus], [(report, chain)], [quote]).devices == (GPU, SNP, QUOTE)


def _pem(der: bytes) -> bytes:
    from cryptography import x509

    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def test_the_commands_pin_list_and_unpin(tmp_path: Path, root: Path) -> None:
    home = tmp_path / "home"
    assert "No vendor's root is pinned" in run(home, "trust", "hardware", "ls").output
    pinned = run(home, "trust", "hardware", "pin", "nvidia-gpu", str(root), "--yes")
    assert pinned.exit_code == 0, pinned.output
    listed = json.loads(run(home, "trust", "hardware", "ls", "--json").stdout)
    assert [each["kind"] for each in listed["roots"]] == ["nvidia-gpu"]
    assert run(home, "trust", "hardware", "unpin", listed["roots"][0]["digest"][:8]).exit_code == 0
    assert json.loads(run(home, "trust", "hardware", "ls", "--json").stdout)["roots"] == []


def test_a_pin_is_asked_for(tmp_path: Path, root: Path) -> None:
    asked = run(tmp_path / "home", "trust", "hardware", "pin", "nvidia-gpu", str(root))
    assert asked.exit_code != 0
    assert ROOT.certificate.subject.rfc4514_string() in asked.output
