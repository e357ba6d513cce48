"""Ports that the tests hand out."""

from __future__ import annotations

import socket

from support.ports import free_port


def test_a_port_is_not_given_while_the_one_after_it_is_taken() -> None:
    first = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first + 3 + 1))
        taken.listen()
        assert free_port() != first + 3
