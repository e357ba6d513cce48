"""Derivations that are computed again on this machine from two local copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from comity_client.client import Client
from comity_client.events import OnEvent, ignore_event
from comity_client.publish import PublishReceipt, publish_statement
from comity_client.publishers import Publisher
from comity_client.pull.destinations import LocalCopy, workers
from comity_client.session import home_target

from comity.addons.derivation.check import Comparison, WeightFiles, compare, read_weights
from comity.rules.signing import sign_content
from comity.trust.errors import Conflict, NotFound
from comity.trust.frozen import frozen
from comity.trust.statement import Author
from comity.trust.statements import MAX_STEPS, Derived, Extent

QUANTISED = ("q8_0", "q4_0", "q4_1", "q5_0", "q5_1")


@frozen
class Derivation:
    """A child, its parent, and how the tensors of the child follow from those of the parent."""

    child: LocalCopy
    parent: LocalCopy
    comparison: Comparison

    @property
    def relation(self) -> str:
        """The relation, as a value of a `derived` statement."""
        if not self.comparison.exact:
            return "overlap"
        kinds = {step.partition("+")[0] for step in self.comparison.steps}
        if kinds & set(QUANTISED):
            return "quantized"
        return "same-weights" if set(self.comparison.steps) == {"copy"} else "converted"

    def statement_by(self, author: Author) -> Derived:
        """Return the statement for `author` to sign."""
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


def derive(child: LocalCopy, parent: LocalCopy, *, on_read: Callable[[int], None] = lambda _: None) -> Derivation:
    """Check tensor by tensor whether `child` was made from `parent`, both hashed just now. Uses no network.

    Args:
        on_read: called with the bytes of child tensors processed since the last call; from several threads.

    Raises NotFound (NO-WEIGHTS) if one has no readable tensors, Conflict (SAME-ARTIFACT, or CHANGED if a file changed
    after it was hashed), and as `compare` does.
    """
    if child.artifact == parent.artifact:
        why = f"both are sha256:{child.artifact}"
        raise Conflict("child and parent are the same artifact", why=why, code="SAME-ARTIFACT")
    comparison = compare(_weights(child), _weights(parent), workers=workers(), on_read=on_read)
    for side in (child, parent):
        side.check_unchanged()
    return Derivation(child, parent, comparison)


def _weights(side: LocalCopy) -> WeightFiles:
    weights = read_weights(side.folder, side.manifest.by_path)
    if not weights.files:
        why = f"{side.folder} has no safetensors or GGUF file"
        if weights.unread:
            why += f"; the format of {weights.unread[0]} is not supported"
        raise NotFound(f"{side.title} has no weights to compare", why=why, code="NO-WEIGHTS")
    return weights


def log_derivation(
    client: Client,
    derivation: Derivation,
    *,
    publisher: Publisher,
    nodes: Sequence[str] = (),
    on_event: OnEvent = ignore_event,
) -> PublishReceipt:
    """Sign a derivation and log it. Raises as `Client.publish` does."""
    entry = sign_content(derivation.statement_by(publisher.inception.author), publisher.signer())
    return client.log(
        lambda targets: publish_statement(targets, derivation.child.title, entry, publisher.lines),
        nodes or home_target(publisher.home),
        on_event,
    )
