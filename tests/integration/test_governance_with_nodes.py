"""A fifth member joins over the wire: request, draft, consent, two votes, serve. Real nodes, real keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from comity.federation_file import Federation
from comity.trust.encoding import Digest
from comity.trust.errors import NotFound
from comity_client.charter.drafts import draft_admission
from comity_client.charter.governance import GovernanceClient
from comity_client.charter.joining import admission_drafts
from comity_client.charter.proposals import Plan, consent_plan, propose_plan, sign_plan, vote_plan
from comity_client.charter.state import CharterMaterial
from comity_client.client import Client
from comity_client.home import Home
from comity_client.signing.votes import GovernanceKey, find_keys
from support.federation import NodeHome, found, introduced, make_home, serving, until

T = TypeVar("T")


class SigningMachine:
    """A member's people, with their own client and the operator's socket of their node."""

    def __init__(self, home: NodeHome, root: Path, file: bytes) -> None:
        self.home = home
        self.client = Client(Home(root / f"client-{home.name}"))
        self.client.pin(file)

    @property
    def governance(self) -> GovernanceClient:
        return self.client.governance()

    @property
    def key(self) -> GovernanceKey:
        (key,) = find_keys(self.home.directory / "offline", self.home.card.state.keys)
        return key

    def put(self, plan: Plan) -> None:
        delivered = self.governance.deliver(sign_plan(plan, self.key).material, str(self.home.socket))
        assert [str(each.refusal) for each in delivered if each.refusal] == []

    def read(self, body: Digest) -> bool:
        """Sign the vote that is due; whether there was one."""
        charter_state = self.governance.charter_state()
        if charter_state.current.digest == body:
            return False
        made = vote_plan(charter_state, self.key, charter_state.draft(body).body)
        if isinstance(made, Plan):
            self.put(made)
        return isinstance(made, Plan)


async def aside(work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work)


@pytest.mark.slow
async def test_a_fifth_member_asks_is_admitted_and_is_in_every_nodes_charter(tmp_path: Path) -> None:
    founded = found(tmp_path, 4)
    file = founded.federation.encode()
    fifth = make_home(tmp_path / "fifth", 4)
    (fifth.directory / "federation.json").write_bytes(file)
    machines = [SigningMachine(home, tmp_path, file) for home in founded]
    newcomer = SigningMachine(fifth, tmp_path, file)
    async with serving(*founded):
        for home in founded:
            await introduced(home)

        async def waits_everywhere() -> bool:
            return len((await aside(lambda: newcomer.governance.ask(fifth.directory))).waiting) == 4

        await until(waits_everywhere, what="each node to have the request")
        (asking,) = await aside(lambda: machines[0].governance.applicants())
        assert asking.card.lines == fifth.card.lines

        def draft() -> Digest:
            charter_state = machines[0].governance.charter_state().adding(CharterMaterial.of(asking.card.lines))
            body = draft_admission(charter_state.current, asking.card.member)
            machines[0].put(propose_plan(charter_state, machines[0].key.public, body, "they mirror what we publish"))
            return body.digest

        body = await aside(draft)

        async def hopeful() -> bool:
            charter_state = await aside(lambda: newcomer.governance.charter_state())
            return [hope.body for hope in admission_drafts(charter_state, fifth.card.inception.id)] == [body]

        await until(hopeful, what="the draft to be handed out")

        def consent() -> None:
            charter_state = newcomer.governance.charter_state()
            shown = consent_plan(charter_state, charter_state.draft(body).body, fifth.card.inception.id)
            line = sign_plan(shown, newcomer.key).material
            assert {each.refusal for each in newcomer.governance.deliver(line, founded.homes[1].name)} == {None}

        await aside(consent)

        async def decided() -> bool:
            with suppress(NotFound):  # a node that has the draft may not have answered in time
                for machine in machines:
                    await aside(partial(machine.read, body))
            states = [await aside(machine.governance.charter_state) for machine in machines]
            return all(charter_state.current.digest == body for charter_state in states)

        await until(decided, what="two readings by a quorum")

        async def taken_up() -> bool:
            charters = []
            for home in founded:
                async with home.client() as client:
                    charters.append((await client.charter()).epoch)
            return charters == [1] * 4

        await until(taken_up, what="every node to take up epoch 1")
        newest: list[Federation] = []

        async def listed() -> bool:
            newest[:] = [await aside(lambda: newcomer.governance.newest_federation())]
            return {node.record.name for node in newest[0].nodes} == {*(home.name for home in founded), fifth.name}

        await until(listed, what="the newest charter with the nodes of all")
        assert newcomer.client.diff(newest[0].encode()).relation == "forward"
