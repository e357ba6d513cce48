"""Check whether one artifact was made from another, both held here, and say so in a log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from comity.derivation.check import compare
from comity.derivation.outcome import Comparison
from comity.derivation.weights import Weights, read_weights
from comity.trust.errors import Conflict, NotFound
from comity.trust.statement import Author
from comity.trust.statements.derived import MAX_STEPS, Derived, Extent

from comity_client.pulling.held import Held

QUANTISED = ("q8_0", "q4_0", "q4_1", "q5_0", "q5_1")


@dataclass(frozen=True, slots=True)
class Derivation:
    """A child, its parent, and how the one's tensors follow from the other's."""

    child: Held
    parent: Held
    comparison: Comparison

    @property
    def relation(self) -> str:
        """In the words of a `derived` statement."""
        if not self.comparison.exact:
            return "overlap"
        kinds = {step.partition("+")[0] for step in self.comparison.steps}
        if kinds & set(QUANTISED):
            return "quantized"
        return "same-weights" if set(self.comparison.steps) == {"copy"} else "converted"

    def said_by(self, author: Author) -> Derived:
        """The statement that `author` may sign."""
        found = self.comparison
        assert len(found.steps) <= MAX_STEPS
        return Derived(
            by=author,
            child=self.child.artifact,
            parent=self.parent.artifact,
            relation=self.relation,
            result="exact" if found.exact else "share",
            steps=found.steps,
            tools=found.tools,
            files=found.files,
            parent_files=found.parent_files,
            tensors=Extent(len(found.tensors), len(found.equal)),
            left_out=len(found.left_out),
            bytes=Extent(found.bytes, found.equal_bytes),
        )


def derive(child: Held, parent: Held, *, workers: int, on_read: Callable[[int], None]) -> Derivation:
    """Compare the weights of two artifacts that were hashed just now.

    Args:
        on_read: told the bytes of the child's tensors that were dealt with since the last call; from several threads.

    Raises NotFound (NO-WEIGHTS) where one has no tensors that are read here, Conflict (SAME-ARTIFACT, or CHANGED where
    a file is no longer what was hashed), and what `compare` raises.
    """
    if child.artifact == parent.artifact:
        why = f"both are sha256:{child.artifact}"
        raise Conflict("child and parent are the same artifact", why=why, code="SAME-ARTIFACT")
    comparison = compare(_weights(child), _weights(parent), workers=workers, on_read=on_read)
    for side in (child, parent):
        side.check_unchanged()
    return Derivation(child, parent, comparison)


def _weights(side: Held) -> Weights:
    weights = read_weights(side.folder, side.manifest.by_path)
    if not weights.files:
        why = f"there is no safetensors or GGUF file in {side.folder}"
        if weights.unread:
            why += f"; {weights.unread[0]} is in a format that is not read here"
        raise NotFound(f"{side.title} has no weights to compare", why=why, code="NO-WEIGHTS")
    return weights
