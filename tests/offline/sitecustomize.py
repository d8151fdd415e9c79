"""Leave the network alone: a process that starts with this folder on its path reaches its own machine only.

`tests/conftest.py` imports this for the tests, and puts the folder on PYTHONPATH for the Pythons that they start.
"""

import ipaddress
import sys

CALLS = {
    "socket.connect": lambda _, address: address,
    "socket.sendto": lambda _, address: address,
    "socket.sendmsg": lambda _, address: address,
    "socket.getaddrinfo": lambda host, *_: (host,),
    "socket.gethostbyname": lambda host: (host,),
    "socket.gethostbyaddr": lambda host: (host,),
    "socket.getnameinfo": lambda address: address,
}
"""The events of sys.audit that name another end, and where they name it."""


class NetworkUsed(BaseException):
    """A test asks for a host of the network. No `except Exception` keeps this from the test."""


def is_here(address):
    """Return whether an address is this machine's own, or a socket's that is no internet socket."""
    if not isinstance(address, tuple) or not isinstance(address[0], str | bytes | bytearray):
        return True
    host = address[0] if isinstance(address[0], str) else address[0].decode("ascii", "replace")
    try:
        return host in ("", "localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refuse(event, arguments):
    """Refuse what would leave this machine."""
    if event in CALLS and not is_here(address := CALLS[event](*arguments)):
        raise NetworkUsed(
            f"{event} was asked for {address[0]!r}, expected 127.0.0.1 or another address of this machine: "
            "tests run without a network; serve the file from 127.0.0.1, or replace the call"
        )


started_with = sys.modules.get("sitecustomize")
if __name__ != "sitecustomize" and getattr(started_with, "__file__", None) == __file__:
    NetworkUsed = started_with.NetworkUsed
else:
    sys.addaudithook(refuse)
