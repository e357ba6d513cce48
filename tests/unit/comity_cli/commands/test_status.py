"""`comity status`: the exit status of each state, what the table and the warnings say, and how long it waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from comity.trust.errors import Unavailable
from comity.wire.node import ReplicaCounts
from comity_cli.commands import status as module
from comity_cli.commands.status import DOWN, POLL_SECONDS, SHORT, TWO_HISTORIES, WELL, command
from comity_client import node_states, own_node
from comity_client.events import MisbehaviourFound
from comity_client.node_states import NodeState
from support.run_command import printed, run

UP = NodeState(
    "node-ch.example", "Institute", "CH", ("a:1",), True, software="comity", origin="node-ch.example/log", size=12,
    cosigners=("x", "y"), logs=4, replicas=ReplicaCounts(3, 0, 2, 3, 0),
)  # fmt: skip


def other(**changed: Any) -> NodeState:
    values: dict[str, Any] = {name: getattr(UP, name) for name in UP.__dataclass_fields__}
    return NodeState(**{**values, "name": "node-es.example", **changed})


SILENT = other(reachable=False, why="timed out", size=None, replicas=None)
Ask = Callable[..., Sequence[NodeState]]


@pytest.fixture(name="answer")
def _answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[Callable[..., list[str]]]:
    """Sets what is found at each look; returns the nodes that were asked for."""
    monkeypatch.setenv("COMITY_HOME", str(tmp_path))
    asked: list[str] = []

    def answer(*looks: Sequence[NodeState], alarms: Sequence[str] = ()) -> list[str]:
        left = list(looks)

        def ask(user: object, on_event: Callable[[object], None], node: str) -> Sequence[NodeState]:
            asked.append(node)
            for text in (*alarms, *alarms):
                on_event(MisbehaviourFound(text))
            return left.pop(0) if len(left) > 1 else left[0]

        monkeypatch.setattr(node_states, "ask_node_states", ask)
        return asked

    yield answer


Answer = Callable[..., list[str]]


def lines(*words: object) -> list[str]:
    return [" ".join(line.split()) for line in run(command, *words).output.splitlines()]


@pytest.mark.parametrize(
    ("states", "status"),
    [
        ((UP,), WELL),
        ((), WELL),
        ((UP, SILENT), DOWN),
        ((UP, other(reachable=False, former=True, replicas=None)), WELL),
        ((UP, other(replicas=ReplicaCounts(3, 1, 2, 3, 0))), SHORT),
        ((UP, other(replicas=ReplicaCounts(3, 0, 2, 3, 1))), SHORT),
        ((SILENT, other(replicas=ReplicaCounts(3, 1, 2, 3, 0))), DOWN),
        ((UP, other(replicas=None)), WELL),
    ],
)
def test_the_exit_status_is_that_of_the_worst_state(answer: Answer, states: Sequence[NodeState], status: int) -> None:
    answer(states)
    document = printed(command, status=status)
    assert (document["exit_status"], len(document["nodes"]), document["alarms"]) == (status, len(states), [])


def test_a_log_with_two_histories_is_worse_than_all_else(answer: Answer) -> None:
    answer((UP, SILENT), alarms=["two roots of size 5"])
    assert printed(command, status=TWO_HISTORIES)["alarms"] == ["two roots of size 5"]
    result = run(command)
    assert result.exit_code == TWO_HISTORIES and result.output.count("two roots of size 5") == 1


def test_each_node_has_a_row(answer: Answer) -> None:
    left = other(name="node-left", reachable=False, former=True, size=None, replicas=None)
    uncounted = other(name="node-new", replicas=ReplicaCounts(0, 2), cosigners=(), size=0)
    answer((UP, SILENT, left, uncounted))
    shown = lines()
    assert "node-ch.example CH up 12 2 4 3 0 0" in shown
    assert "node-es.example CH DOWN - - - - - -" in shown
    assert "node-left CH left - - - - - -" in shown
    assert "node-new CH up 0 0 4 0 2 -" in shown


def test_what_is_wrong_is_said_with_the_next_step(answer: Answer) -> None:
    lacking = other(replicas=ReplicaCounts(3, 1, 2, 3, 0), misbehaviour=2, gateway="https://hub.example")
    answer((SILENT, lacking))
    text = " ".join(lines())
    assert "node-es.example: timed out" in text
    assert "keeps 2 proofs of misbehaviour: comity log misbehaviour --all" in text
    assert "Gateways, as each node claims: node-es.example https://hub.example" in text
    assert "on the machine of node-es.example: comity status --node HOME" in text
    answer(())
    assert "No federation is pinned, so no node is known." in " ".join(lines())


def test_a_node_that_is_named_is_asked_alone(answer: Answer) -> None:
    asked = answer((UP,))
    printed(command, "--node", "node-ch.example")
    printed(command)
    assert asked == ["node-ch.example", ""]


class Time:
    """A clock that moves only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        if len(self.slept) > 20:
            raise KeyboardInterrupt


@pytest.fixture(name="clock")
def _clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(module, "time", made)
    return made


def test_waiting_ends_when_all_is_well(answer: Answer, clock: Time) -> None:
    answer((SILENT,), (SILENT,), (UP,))
    assert printed(command, "--wait", 60)["exit_status"] == WELL
    assert clock.slept == [POLL_SECONDS] * 2


def test_waiting_ends_after_its_time_and_at_an_alarm(answer: Answer, clock: Time) -> None:
    answer((SILENT,))
    assert run(command, "--wait", 5).exit_code == DOWN
    assert sum(clock.slept) == 6.0
    clock.slept.clear()
    answer((SILENT,), alarms=["fork"])
    assert run(command, "--wait", 5).exit_code == TWO_HISTORIES and clock.slept == []
    assert run(command).exit_code == TWO_HISTORIES


def test_watching_goes_on_until_it_is_stopped(answer: Answer, clock: Time) -> None:
    answer((SILENT,), (UP,))
    result = run(command, "--watch", 3)
    assert result.exit_code != 0 and set(clock.slept) == {3} and "DOWN" in result.output and " up " in result.output


@pytest.mark.parametrize("words", [("--watch", "1", "--json"), ("--watch", "1", "--wait", "1"), ("--wait", "0")])
def test_options_that_do_not_go_together_are_refused(answer: Answer, words: tuple[str, ...]) -> None:
    answer((UP,))
    assert run(command, *words).exit_code == 2


def test_an_own_node_that_does_not_answer_is_down(
    answer: Answer, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, clock: Time
) -> None:
    def silent(socket: object) -> None:
        raise Unavailable("no answer", code="UNREACHABLE")

    monkeypatch.setattr(own_node, "local_socket", lambda node: tmp_path / "socket")
    monkeypatch.setattr(own_node, "operator_status", silent)
    result = run(command, "--node", tmp_path)
    assert isinstance(result.exception, Unavailable) and clock.slept == []
    assert run(command, "--node", tmp_path, "--watch", 1).output.count("no answer") > 1  # it is asked again
