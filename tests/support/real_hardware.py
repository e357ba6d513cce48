"""Real evidence of AMD, Intel and NVIDIA hardware.

The samples are those of google/go-sev-guest, google/go-tdx-guest and NVIDIA's nvtrust and attestation-sdk; they are
beside the repository and not part of it.
"""

from __future__ import annotations

from comity.addons.hardware.certificates import load_pem
from comity.rules.hardware_evidence import NVIDIA, SEV_SNP, TDX, Device
from cryptography.hazmat.primitives.serialization import Encoding
from support.shared import shared

ROOTS = {SEV_SNP: "amd-milan-ask-ark.pem", TDX: "intel-sgx-root.pem", NVIDIA: "nv-device-root.pem"}
"""As the vendors publish them: AMD's file has the authority and the root."""


def sample(name: str) -> bytes:
    return shared(f"vectors/attestation/{name}").read_bytes()


def real_certificates(name: str) -> tuple[bytes, ...]:
    return tuple(each.public_bytes(Encoding.DER) for each in load_pem(sample(name)))


def real_snp() -> Device:
    ask, _ = real_certificates("amd-milan-ask-ark.pem")
    return Device(SEV_SNP, sample("sev-snp-report.bin"), (sample("sev-vcek.der"), ask))


def real_quote(version: int) -> Device:
    """The sample of version 4 is followed by a line of text that says that it is there for a test."""
    return Device(TDX, sample(f"tdx-quote-v{version}.bin").partition(b"\nextra bytes")[0])


def real_gpu(name: str) -> Device:
    report = bytes.fromhex(sample(f"nv-{name}-report.hex").decode())
    return Device(NVIDIA, report, real_certificates(f"nv-{name}-chain.txt"))
