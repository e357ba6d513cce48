"""Asks nodes which artifacts have files, or which published files have pieces, by the first bits of their digests.

A node learns the first bits of the digest of each file, for known and unknown ones alike, and at most `MOST_BITS` of
them: about `SHARED` of the files that it has indexed share them. What it answers is a hint: it can leave files out, so
that all nodes are asked, and what it invents is found when the manifest is read. Source: protocol, section 9.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Final

from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed
from comity.trust.frozen import frozen
from comity.trust.turns import in_turns
from comity.wire import limits
from comity.wire.client import NodeClient
from comity.wire.files import FilePrefixes, file_pairs, file_reference, prefix_of

from comity_client.session import Answers, RemoteNode, Session

SHARED: Final = 32
"""Files that share a prefix, about, where a node has indexed enough of them."""
MOST_BITS: Final = 20
"""Bits of a digest that a node learns at most, however many files it says that it has."""
TOGETHER: Final = 10_000
"""Files that nodes are asked about within the time of one answer: for a node with 10^7 files, about 10 calls."""
MAX_ARTIFACTS: Final = 100_000
"""Artifacts of one node's answers."""


@frozen
class NodeAnswer:
    """What a node said, or its index that is here: `as_of` is when this was signed. `unread`: statements that its index
    has not read, or what else the index says that it lacks; `cut`: references that share a prefix of which it knows
    more files than it gave; `problem`: why it gave nothing."""

    node: str
    indexed: int = 0
    unread: int = 0
    cut: frozenset[bytes] = frozenset()
    problem: str = ""
    as_of: int | None = None

    @property
    def complete(self) -> bool:
        """Whether it says that it left nothing out."""
        return not (self.problem or self.unread or self.cut)


@frozen
class ClaimedFiles:
    """What nodes claim.

    Attributes:
        artifacts: the references of files, of those that were asked for, that each artifact has. First come those that
            nodes name first: each node in turn, its members' artifacts before those of others.
    """

    artifacts: Mapping[Digest, frozenset[bytes]]
    nodes: tuple[NodeAnswer, ...]

    def is_unknown(self, reference: bytes) -> bool:
        """Whether each node that answered says that it left nothing out that could be this file, of which nothing was
        found."""
        said_all = (not node.unread and reference not in node.cut for node in self.nodes if not node.problem)
        return all(said_all) and any(not node.problem for node in self.nodes)


def bits_for(indexed: int) -> int:
    """The bits of a prefix that about `SHARED` of the indexed files share."""
    return min(MOST_BITS, max(0, (indexed // SHARED).bit_length() - 1))


async def ask_nodes(session: Session, files: Collection[Digest], *, pieces: bool = False) -> ClaimedFiles:
    """Ask all nodes about these files, some at a time, so that each of these questions has the time of one. A node that
    leaves one of them unanswered is not asked again. Raises Unavailable, NotFound (NO-NODES) where no node answers.

    Args:
        pieces: ask about pieces: in the answer, these stand for files, and files for artifacts.
    """
    session.require_nodes()
    asked = await asyncio.to_thread(lambda: sorted(set(map(file_reference, files))))
    inquiries = {node: _Inquiry(pieces) for node in session.nodes}
    failed = dict[RemoteNode, ComityError]()
    for start in range(0, max(1, len(asked)), TOGETHER):
        some = asked[start : start + TOGETHER]
        left = [node for node in session.nodes if node not in failed]
        answers = await session.ask_each(lambda node: partial(inquiries[node].ask, some), left)  # noqa: B023
        failed |= answers.failed
        if not answers.found:
            raise Answers({}, failed).failure("no node says which artifacts have these files")
    said = {node: inquiries[node] for node in session.nodes if node not in failed}
    nodes = [
        NodeAnswer(node.name, said[node].indexed, said[node].unread, frozenset(said[node].cut))
        if node in said
        else NodeAnswer(node.name, problem=str(failed[node]))
        for node in session.nodes
    ]
    artifacts = dict[Digest, frozenset[bytes]]()
    numbered = [each for answer in said.values() for each in enumerate(answer.ordered())]
    for _, (artifact, references) in in_turns(numbered, lambda each: each[0]):
        artifacts[artifact] = artifacts.get(artifact, frozenset()) | references
    return ClaimedFiles(artifacts, tuple(nodes))


class _Inquiry:
    """The questions to one node, and what it said: how much it has indexed and not read, and of which references it
    left files out that share their prefix."""

    def __init__(self, pieces: bool) -> None:
        self._pieces = pieces
        self._bits: int | None = None
        self._of_members = dict[Digest, set[bytes]]()
        self._of_others = dict[Digest, set[bytes]]()
        self.indexed = self.unread = 0
        self.cut = set[bytes]()

    async def ask(self, asked: Sequence[bytes], node: NodeClient) -> None:
        """Ask about references, which are in their order. Raises what a call raises, and Malformed for more artifacts
        than an answer may have."""
        references, cut = frozenset(asked), set[int]()
        if self._bits is None:
            await self._one(node, FilePrefixes(0, (), self._pieces), references)
            self._bits = bits_for(self.indexed)
        bits = self._bits
        prefixes = sorted({prefix_of(each, bits) for each in asked})
        for question in _questions(prefixes, bits, self.indexed):
            cut |= await self._one(node, replace(question, pieces=self._pieces), references)
        if cut:
            self.cut |= {each for each in asked if prefix_of(each, bits) in cut}

    async def _one(self, node: NodeClient, question: FilePrefixes, references: Container[bytes]) -> set[int]:
        """Returns the prefixes of which the node left files out."""
        cut, wanted = set[int](), frozenset(question.prefixes)
        async with aclosing(node.files(question)) as parts:
            async for part in parts:
                self.indexed, self.unread = max(self.indexed, part.indexed), max(self.unread, part.unread)
                cut |= wanted.intersection(part.cut)
                for joined, found in ((part.of_members, self._of_members), (part.of_others, self._of_others)):
                    for reference, artifact in file_pairs(joined):
                        if reference in references:
                            found.setdefault(artifact, set()).add(reference)
                if len(self._of_members) + len(self._of_others) > MAX_ARTIFACTS:
                    raise Malformed("the answer is too long", why="too many artifacts", code="UNBOUNDED")
        return cut

    def ordered(self) -> Iterator[tuple[Digest, frozenset[bytes]]]:
        """What each artifact has: first those of members."""
        for found in (self._of_members, self._of_others):
            yield from ((artifact, frozenset(references)) for artifact, references in found.items())


def _questions(prefixes: Sequence[int], bits: int, indexed: int) -> Iterator[FilePrefixes]:
    """The questions for these prefixes, none of which stands for too many files."""
    together = min(limits.FILE_PREFIXES, max(1, limits.FILES_ASKED // max(1, indexed >> bits)))
    for start in range(0, len(prefixes), together):
        yield FilePrefixes(bits, tuple(prefixes[start : start + together]))
