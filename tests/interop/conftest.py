"""The repository that all clients read, made once a session, and nodes that serve it, which no test may change."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from support.client_repository import ClientRepository, ServedRepository, make_repository, served


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> ClientRepository:
    return make_repository(tmp_path_factory.mktemp("repository"))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def node(
    repository: ClientRepository, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServedRepository]:
    """Serves large files by its file server."""
    async with served(repository, tmp_path_factory.mktemp("node"), files="127.0.0.1:0") as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def inline_node(
    repository: ClientRepository, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServedRepository]:
    """Serves all files itself."""
    async with served(repository, tmp_path_factory.mktemp("inline"), files="") as running:
        yield running
