"""Real evidence of AMD, Intel and NVIDIA hardware, and each tampering of it, through the provider's commands.

The command refuses what fails, with the first row that does. A real sample signed a challenge of its own: only that row
fails, so its chain, its kind and its signature have passed under the vendor's pinned root.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from comity.addons.hardware.evidence_files import challenge_json
from comity.rules.hardware_evidence import NVIDIA, Challenge, Device
from comity.trust.encoding import sha256
from comity_cli.main import main
from cryptography.hazmat.primitives.serialization import Encoding
from support import hardware
from support.real_hardware import ROOTS, real_gpu, real_quote, sample

CHALLENGE = Challenge(sha256(b"offer"), "node.example/log", 7, sha256(b"root"), sha256(b"key"))


@dataclass(frozen=True)
class Provider:
    """A provider's officer, who has pinned the vendors' roots."""

    folder: Path
    printed: pytest.CaptureFixture[str]

    def comity(self, *arguments: object) -> tuple[object, dict[str, Any]]:
        """The exit status of a command, and its document."""
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments), "--json"])
        return ended.value.code, json.loads(self.printed.readouterr().out)

    def file(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def refused(self, *evidence: object) -> str:
        """Why `comity offer attest` does not log this."""
        challenge = self.file("challenge.json", json.dumps(challenge_json(CHALLENGE)).encode())
        status, document = self.comity(
            "offer", "attest", "--challenge", challenge, *evidence, "--yes", "--node", self.folder
        )
        assert (status, document["error"]["code"]) == (3, "HARDWARE-UNTRUSTED"), document
        return str(document["error"]["why"])


@pytest.fixture
def unpinned(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Provider:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "pins"))
    return Provider(tmp_path, capsys)


@pytest.fixture
def provider(unpinned: Provider) -> Provider:
    for kind, name in ROOTS.items():
        file = unpinned.file(name, sample(name))
        status, pinned = unpinned.comity("trust", "hardware", "pin", kind, file, "--yes")
        assert (status, pinned["kind"]) == (0, kind)
    return unpinned


def gpus(name: str) -> list[dict[str, str]]:
    listed: list[dict[str, str]] = json.loads(sample(f"nv-{name}.json"))
    return listed


def encoded(listed: object) -> bytes:
    return json.dumps(listed).encode()


def blackwell() -> bytes:
    """The list of one GPU, from the report and the chain that the vendor's tests have."""
    return hardware.gpu_list(real_gpu("blackwell"))


def snp_chain(*, leaf: bytes | None = None) -> bytes:
    vcek = ssl.DER_cert_to_PEM_cert(sample("sev-vcek.der")).encode()
    return (vcek if leaf is None else leaf) + sample("amd-milan-ask-ark.pem")


def as_gpus(provider: Provider, data: bytes) -> tuple[object, ...]:
    return "--evidence", provider.file("gpus.json", data)


def as_snp(provider: Provider, report: bytes, chain: bytes) -> tuple[object, ...]:
    return "--snp", provider.file("report.bin", report), provider.file("chain.pem", chain)


def as_tdx(provider: Provider, quote: bytes) -> tuple[object, ...]:
    return "--tdx", provider.file("quote.bin", quote)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


Given = Callable[[Provider], tuple[object, ...]]
SAMPLES: dict[str, Given] = {
    "Hopper": lambda p: as_gpus(p, sample("nv-hopper-evidence.json")),
    "four GPUs": lambda p: as_gpus(p, sample("nv-hopper-evidence-4gpus.json")),
    "a GPU whose certificate is on hold": lambda p: as_gpus(p, sample("nv-hopper-evidence-cert-hold.json")),
    "Blackwell": lambda p: as_gpus(p, blackwell()),
    "SEV-SNP": lambda p: as_snp(p, sample("sev-snp-report.bin"), snp_chain()),
    "TDX 4": lambda p: as_tdx(p, real_quote(4).report),
    "TDX 5": lambda p: as_tdx(p, real_quote(5).report),
}


@pytest.mark.parametrize("of", SAMPLES)
def test_of_a_real_sample_only_the_challenge_fails(provider: Provider, of: str) -> None:
    assert provider.refused(*SAMPLES[of](provider)).startswith("challenge: ")


TAMPERED: dict[str, tuple[Given, str]] = {
    "another GPU's chain": (
        lambda p: as_gpus(
            p,
            encoded(
                [{**gpus("hopper-evidence-4gpus")[0], "certificate": gpus("hopper-evidence-4gpus")[1]["certificate"]}]
            ),
        ),
        "signature: GPU report refused: its signature does not verify: it was changed, or another device signed it",
    ),
    "a chain of another kind of GPU": (
        lambda p: as_gpus(
            p, hardware.gpu_list(Device(NVIDIA, real_gpu("hopper").report, real_gpu("blackwell").certificates))
        ),
        "signature: GPU report refused",
    ),
    "a chain without its authorities": (
        lambda p: as_gpus(
            p,
            hardware.gpu_list(Device(NVIDIA, real_gpu("hopper").report, real_gpu("hopper").certificates[:1])),
        ),
        "chain: ",
    ),
    "a bit of a GPU's report": (
        lambda p: as_gpus(
            p,
            hardware.gpu_list(Device(NVIDIA, flipped(real_gpu("hopper").report, 60), real_gpu("hopper").certificates)),
        ),
        "signature: GPU report refused",
    ),
    "one surplus byte after a GPU's report": (
        lambda p: as_gpus(
            p,
            hardware.gpu_list(Device(NVIDIA, real_gpu("hopper").report + b"\n", real_gpu("hopper").certificates)),
        ),
        "evidence: GPU report is malformed: 1 surplus byte follows its end",
    ),
    "a bit of an SEV-SNP report": (
        lambda p: as_snp(p, flipped(sample("sev-snp-report.bin"), 0x90), snp_chain()),
        "signature: SEV-SNP report refused",
    ),
    "one surplus byte after an SEV-SNP report": (
        lambda p: as_snp(p, sample("sev-snp-report.bin") + b"\n", snp_chain()),
        "evidence: SEV-SNP report is malformed: 1 surplus byte",
    ),
    "a bit of a TDX quote": (
        lambda p: as_tdx(p, flipped(real_quote(4).report, 48 + 136)),
        "signature: TDX quote refused",
    ),
    "the text that follows a TDX quote": (lambda p: as_tdx(p, sample("tdx-quote-v4.bin")), "evidence: TDX quote"),
    "one surplus byte after a TDX quote": (lambda p: as_tdx(p, real_quote(5).report + b"\n"), "evidence: TDX quote"),
}


@pytest.mark.parametrize("of", TAMPERED)
def test_a_tampered_real_sample_is_refused_with_its_reason(provider: Provider, of: str) -> None:
    given, reason = TAMPERED[of]
    assert provider.refused(*given(provider)).startswith(reason)


def test_a_report_with_the_certificate_of_an_invented_chip_is_refused(provider: Provider) -> None:
    """Another device's leaf, under another authority, before the vendor's real ones."""
    other = hardware.vcek(hardware.vendor()).certificate.public_bytes(Encoding.PEM)
    why = provider.refused(*as_snp(provider, sample("sev-snp-report.bin"), snp_chain(leaf=other)))
    assert why.startswith("chain: ")


def test_a_sample_under_a_root_that_is_not_its_vendors_is_refused(unpinned: Provider) -> None:
    root = hardware.issue("NVIDIA Device Identity CA").certificate.public_bytes(Encoding.PEM)
    file = unpinned.file("root.pem", root)
    assert unpinned.comity("trust", "hardware", "pin", NVIDIA, file, "--yes")[0] == 0
    assert unpinned.refused(*SAMPLES["Hopper"](unpinned)).startswith("chain: ")
