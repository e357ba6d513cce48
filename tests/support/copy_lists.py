"""A node that lists copies, without a network: as one of this version answers questions, and as an older one does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from comity.rules.copy_questions import CopyFolder, CopyQuestion
from comity.wire.audit import CopiesPage
from comity_client.copies import CopyList, CountedCopies, ShowArtifacts, fold_copies


def node_with(found: CopyList, *, older: bool = False, page: int = 1) -> Any:
    """A client of a node that says what `found` has, in pages of `page` artifacts."""

    async def all_copies(question: CopyQuestion | None = None) -> AsyncGenerator[CopiesPage, None]:
        for start in range(0, max(1, len(found.artifacts)), page):
            some = found.artifacts[start : start + page]
            about = found.names, found.policy, found.day, found.member
            if older or question is None:
                yield CopiesPage(some, *about)
                continue
            folder = CopyFolder(question, found.member, found.policy)
            for listed in some:
                folder.add(listed.artifact, folder.number(listed.copies))
            names = {listed.artifact: listed.name for listed in some}
            fold = folder.fold(tuple(names[artifact] for artifact in folder.listed) if question.named else ())
            yield CopiesPage((), *about, fold=fold)

    return SimpleNamespace(audits=SimpleNamespace(all_copies=all_copies))


class ListingNode:
    """In place of `comity_cli.copies_view.fold_list`; `asked` are the questions."""

    def __init__(self, found: CopyList, *, older: bool = False) -> None:
        self._found = found
        self._node = node_with(found, older=older)
        self.asked: list[CopyQuestion] = []

    def __call__(
        self,
        node: str,
        socket: Path | None,
        home: Path | None,
        question: CopyQuestion,
        show: ShowArtifacts = lambda counted, found: None,
    ) -> CountedCopies:
        self.asked.append(question)
        return asyncio.run(fold_copies(self._node, self._found.source, question, show))
