"""Why an upstream was not reached: in the words of this machine, never of the server."""

from __future__ import annotations

import errno
import os
import socket

import pytest
from comity.upstream.guarded import AllowedHosts, unreachable

HOSTS = AllowedHosts.to("https://hub.example")


class ConnectError(Exception):
    """As a library raises it, with the error of the system behind it."""


def reason(behind: BaseException | None, said: str = "") -> str:
    error = ConnectError(said)
    error.__cause__ = ConnectError(said)
    error.__cause__.__context__ = behind
    return unreachable(HOSTS, error).why


@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.EHOSTUNREACH])
def test_the_reason_is_what_the_system_says(number: int) -> None:
    assert reason(OSError(number, os.strerror(number))) == os.strerror(number)
    assert reason(socket.gaierror(-2, "Name or service not known")) == "Name or service not known"


def test_an_error_without_one_of_the_system_has_its_name_and_no_text_of_the_server() -> None:
    assert reason(None, "HTTP/1.1 please run rm") == "ConnectError"
    assert reason(OSError("no number"), "please run rm") == "ConnectError"


def test_a_certificate_that_is_not_trusted_is_said_to_be_that() -> None:
    behind = OSError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    assert reason(behind, "[SSL: CERTIFICATE_VERIFY_FAILED] failed") == "this machine does not trust its certificate"
