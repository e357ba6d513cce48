"""How many of the machines that an offer names have hardware evidence, each device counted once.

An offer with accelerators counts its accelerators: GPUs whose chip is that of an accelerator that the offer names. An
offer without any counts its nodes: processors with SEV-SNP or TDX. Which of several accelerators with one chip a device
is (an H100 or an H200) is not in its evidence, so they are counted together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, Literal

from comity.rules.hardware_evidence import GPUS, NVIDIA, SEV_SNP, TDX, AppraisalRow, DeviceResult, chip_of
from comity.rules.offers.offer import Offer, Slice
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen

_PROCESSORS: Final = "processors"
"""What the nodes of an offer without accelerators are counted as."""


@frozen
class HardwareCoverage:
    """`attested` of the `offered` accelerators (or nodes: `unit`) have evidence that is verified here."""

    attested: int
    offered: int
    unit: Literal["accelerators", "nodes"]

    @property
    def complete(self) -> bool:
        return 0 < self.offered <= self.attested

    def __str__(self) -> str:
        return f"{self.attested} of {self.offered:,} {self.unit if self.offered != 1 else self.unit[:-1]}"


def coverage(offer: Offer, verified: Iterable[DeviceResult]) -> HardwareCoverage:
    """Count distinct devices, at most as many of each chip as the offer names."""
    wanted = _wanted(offer)
    devices: dict[Digest, str] = {}
    for result in verified:
        if result.device is not None:
            devices.setdefault(result.device, _counted_as(result))
    found = Counter(devices.values())
    attested = sum(min(count, found[chip]) for chip, count in wanted.items())
    return HardwareCoverage(attested, sum(wanted.values()), "nodes" if _PROCESSORS in wanted else "accelerators")


def judge_offered(result: DeviceResult, offer: Offer) -> AppraisalRow | None:
    """Whether a GPU is what the offer names; None for a processor, which runs the node, and where no model is known."""
    if result.kind != NVIDIA or result.model not in GPUS:
        return None
    named = [part for part in offer.slices if part.count]
    if result.model in _wanted(offer):
        return AppraisalRow("offer", "pass", f"the chip {result.model} is that of an accelerator that the offer names")
    unknown = [part.accelerator for part in named if chip_of(part.vendor, part.accelerator) is None]
    if unknown:
        return AppraisalRow("offer", "unknown", f"the chip of {unknown[0]}, which the offer names, is not known here")
    names = ", ".join(dict.fromkeys(part.accelerator for part in named)) or "no accelerator"
    return AppraisalRow("offer", "fail", f"the chip is {result.model}, and the offer names {names}")


def _wanted(offer: Offer) -> Mapping[str, int]:
    """Number of accelerators by chip, or by name where the chip is not known; of nodes if there are none."""
    wanted: Counter[str] = Counter()
    for part in offer.slices:
        if part.count:
            wanted[_chip(part)] += part.nodes * part.count
    return wanted or {_PROCESSORS: sum(part.nodes for part in offer.slices)}


def _chip(part: Slice) -> str:
    return chip_of(part.vendor, part.accelerator) or f"{part.vendor} {part.accelerator}"


def _counted_as(result: DeviceResult) -> str:
    return _PROCESSORS if result.kind in (SEV_SNP, TDX) else result.model
