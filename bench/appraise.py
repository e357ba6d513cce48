"""What the appraisal of one hardware report costs, and of the most devices that one attestation can have.

    python bench/appraise.py [--rounds 50]

Made-up devices of each kind under a pinned root, with revocation lists for every certificate: parsing, the chain, the
signatures, the revocation data and the rows. Times are CPU time of this process, which uses one core. Writes
results/appraise.json.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import harness
from comity.addons.hardware.appraisal import HardwarePins, appraise
from comity.rules.hardware_evidence import KINDS, MAX_DEVICES, HardwareEvidence

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support import hardware

NONCE = bytes(range(32))


def spent(evidence: HardwareEvidence, pins: HardwarePins) -> float:
    """CPU seconds of one appraisal, which must verify every device."""
    began = time.process_time()
    results = appraise(HardwareEvidence.parse(evidence.encode()), NONCE, pins, hardware.AT)
    took = time.process_time() - began
    assert all(result.state == "verified" for result in results)
    return took


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=50)
    rounds = arguments.parse_args().rounds
    authority = hardware.vendor()
    root = authority.above[0]
    lists = hardware.whole_revocation_data(authority)
    pins = HardwarePins(roots=dict.fromkeys(KINDS, (root.der,)), revocations=lists)
    samples = {
        "nvidia-gpu": HardwareEvidence((hardware.gpu(authority, NONCE),)),
        "amd-sev-snp": HardwareEvidence((hardware.snp(authority, NONCE),)),
        "intel-tdx 4": HardwareEvidence((hardware.tdx(authority, NONCE),)),
        "intel-tdx 5": HardwareEvidence((hardware.tdx(authority, NONCE, version=5),)),
        f"{MAX_DEVICES} nvidia-gpu": HardwareEvidence(
            tuple(hardware.gpu(authority, NONCE) for _ in range(MAX_DEVICES))
        ),
    }
    taken: dict[str, list[float]] = {name: [] for name in samples}
    for _ in range(rounds):
        for name, evidence in samples.items():
            taken[name].append(spent(evidence, pins))
    table = {
        name: {
            "median_ms": round(1000 * statistics.median(seconds), 2),
            "min_ms": round(1000 * min(seconds), 2),
            "max_ms": round(1000 * max(seconds), 2),
        }
        for name, seconds in taken.items()
    }
    harness.show(table)
    harness.write("appraise", rounds=rounds, seconds=table)


if __name__ == "__main__":
    main()
