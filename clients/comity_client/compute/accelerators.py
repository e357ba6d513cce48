"""What SkyPilot calls accelerators, so that everybody's offers say the same. A name that is not here is no error: the
vocabulary grows; whoever writes an offer is told, and may mean it."""

from __future__ import annotations

import difflib
from typing import Final

_BY_VENDOR: Final = {
    "NVIDIA": (
        "A10 A10G A16 A30 A40 A100 A100-80GB A800 B100 B200 B300 GB200 GB300 GH200 H20 H100 H100-MEGA H100-SXM H200 "
        "H200-SXM H800 K80 L4 L40 L40S P4 P40 P100 RTX3090 RTX4090 RTX5090 RTX6000 RTX6000-Ada RTXA4000 RTXA5000 "
        "RTXA6000 RTXPRO6000 T4 T4g V100 V100-32GB"
    ),
    "AMD": "MI25 MI50 MI100 MI210 MI250 MI250X MI300A MI300X MI325X MI350X MI355X Radeon-Pro-V520",
    "Intel": "Gaudi Gaudi2 Gaudi3 Max1100 Max1550",
    "AWS": "Inferentia Inferentia2 Trainium Trainium2",
    "Google": "tpu-v4-8 tpu-v5litepod-8 tpu-v5p-8 tpu-v6e-8",
    "Huawei": "Ascend910A Ascend910B Ascend910C",
}
VENDORS: Final = {name: vendor for vendor, names in _BY_VENDOR.items() for name in names.split()}
"""The vendor of each known accelerator."""


def objection(vendor: str, accelerator: str) -> str:
    """What is unusual about the name, with the one that may be meant; empty where nothing is."""
    if VENDORS.get(accelerator) == vendor or (accelerator.startswith("tpu-") and vendor == "Google"):
        return ""
    if accelerator in VENDORS:
        return f"{accelerator} is made by {VENDORS[accelerator]}, not {vendor or 'nobody'}"
    folded = {name.lower().replace("-", ""): name for name in VENDORS}
    close = difflib.get_close_matches(accelerator.lower().replace("-", ""), folded, 1)
    guess = f"; do you mean {folded[close[0]]}?" if close else ""
    return f"{accelerator} is not a name that SkyPilot is known to use{guess}"
