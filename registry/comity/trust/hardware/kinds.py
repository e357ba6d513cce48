"""The kinds of hardware evidence, by the names that documents and commands use."""

from __future__ import annotations

from typing import Final

SEV_SNP: Final = "amd-sev-snp"
TDX: Final = "intel-tdx"
NVIDIA: Final = "nvidia-gpu"
KINDS: Final = (SEV_SNP, TDX, NVIDIA)
