"""Waiting for a connection, whatever happens between two looks at its state."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from comity.trust.errors import Refused, Unavailable
from comity.wire.tls import PinnedChannel
from grpc import ChannelConnectivity as State


class Channel:
    """A channel whose state is another one at each look."""

    def __init__(self, *states: State) -> None:
        self._states = list(states)
        self._now = states[0]

    def get_state(self, try_to_connect: bool = False) -> State:
        self._now = self._states.pop(0) if self._states else self._now
        return self._now

    async def wait_for_state_change(self, last: State) -> None:
        if not self._states:  # no more will happen
            await asyncio.Event().wait()


async def why() -> None:
    return None


def channel(*states: State, explain: Any = why) -> PinnedChannel:
    made: Any = Channel(*states)
    return PinnedChannel(made, explain)


@pytest.mark.parametrize(
    "states",
    [(State.READY,), (State.IDLE, State.READY), (State.IDLE, State.CONNECTING, State.READY)],
)
async def test_a_connection_that_is_made_is_waited_for(states: tuple[State, ...]) -> None:
    async with asyncio.timeout(5):
        await channel(*states).connected()


@pytest.mark.parametrize("state", [State.TRANSIENT_FAILURE, State.SHUTDOWN])
async def test_one_that_fails_says_why(state: State) -> None:
    async def other() -> Refused:
        return Refused("another node", code="PIN-MISMATCH")

    with pytest.raises(Refused, match="another node"):
        await channel(State.CONNECTING, state, explain=other).connected()
    with pytest.raises(Unavailable, match="cannot be reached"):
        await channel(State.CONNECTING, state).connected()
