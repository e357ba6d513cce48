"""Appraises hardware evidence of offers, and adds the commands to pin vendors' roots and to log evidence."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click
    from comity_client.home import Home

    from comity.rules.hardware_evidence import Appraise, DeviceResult, HardwareEvidence


def trust_commands() -> list[click.Command]:
    from comity.addons.hardware.trust_command import hardware

    return [hardware]


def offer_commands() -> list[click.Command]:
    from comity.addons.hardware.attest_command import attest, challenge

    return [attest, challenge]


def appraiser(home: Home) -> Appraise:
    """Appraises by the owner's pins, which are read once."""
    from comity.addons.hardware import appraisal
    from comity.addons.hardware.pins import pin_store

    pins = functools.cache(lambda: pin_store(home).load())

    def appraise(evidence: HardwareEvidence, nonce: bytes, at: int) -> tuple[DeviceResult, ...]:
        return appraisal.appraise(evidence, nonce, pins(), at)

    return appraise
