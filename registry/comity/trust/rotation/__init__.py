"""Identities that change their keys and stay who they are: the statement, and what a pile of them leads to."""

from comity.trust.rotation.chain import Chain, Chains, Heard, Step, closure, follow
from comity.trust.rotation.statement import (
    Cut,
    KeyState,
    Rotation,
    check_rotation,
    parse_rotation,
    rotate,
    rotation_statement,
)

__all__ = [
    "Chain",
    "Chains",
    "Cut",
    "Heard",
    "KeyState",
    "Rotation",
    "Step",
    "check_rotation",
    "closure",
    "follow",
    "parse_rotation",
    "rotate",
    "rotation_statement",
]
