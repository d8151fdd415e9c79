"""What keeps the tests from the network does so, here and in the Pythons that tests start."""

import socket
import subprocess
import sys
import threading

import pytest
import requests

from .offline.sitecustomize import NetworkUsed

ELSEWHERE = "192.0.2.1"  # an address of RFC 5737, which nobody has
NAME = "data.example"


CALLS = {
    "connect": lambda tcp, udp: tcp.connect((ELSEWHERE, 80)),
    "connect, by bytes": lambda tcp, udp: tcp.connect((ELSEWHERE.encode(), 80)),
    "connect_ex": lambda tcp, udp: tcp.connect_ex((ELSEWHERE, 80)),
    "create_connection": lambda tcp, udp: socket.create_connection((ELSEWHERE, 80), timeout=1),
    "sendto": lambda tcp, udp: udp.sendto(b"x", (ELSEWHERE, 53)),
    "sendmsg": lambda tcp, udp: udp.sendmsg([b"x"], [], 0, (ELSEWHERE, 53)),
    "getaddrinfo": lambda tcp, udp: socket.getaddrinfo(NAME, 443),
    "getaddrinfo, IPv6": lambda tcp, udp: socket.getaddrinfo("2001:db8::1", 443),
    "gethostbyname": lambda tcp, udp: socket.gethostbyname(NAME),
    "gethostbyname_ex": lambda tcp, udp: socket.gethostbyname_ex(NAME),
    "gethostbyaddr": lambda tcp, udp: socket.gethostbyaddr(ELSEWHERE),
    "getnameinfo": lambda tcp, udp: socket.getnameinfo((ELSEWHERE, 80), 0),
    "requests": lambda tcp, udp: requests.get(f"https://{NAME}/file", timeout=1),
}


@pytest.mark.parametrize("name", CALLS)
def test_no_call_leaves_this_machine(name):
    asked_for = rf"asked for b?'({ELSEWHERE}|2001:db8::1|{NAME})', expected 127.0.0.1"
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.settimeout(1)
        with pytest.raises(NetworkUsed, match=asked_for):
            CALLS[name](tcp, udp)


def with_a_fallback():
    try:
        return socket.getaddrinfo(NAME, 443)
    except Exception:
        return "offline"


def test_code_that_goes_on_after_any_error_does_not_hide_it():
    with pytest.raises(NetworkUsed):
        with_a_fallback()


def test_other_threads_are_held_too():
    seen = []

    def look():
        try:
            socket.getaddrinfo(NAME, 443)
        except NetworkUsed as refused:
            seen.append(refused)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert len(seen) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_of_the_test_is_reached(host):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert client.getpeername() == server.getsockname()
    assert socket.getaddrinfo(host, 80)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")
def test_a_unix_socket_is_reached(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a path of such a socket is short
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("here")
        server.listen()
        client.connect("here")


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_a_python_that_a_test_starts_stays_here_too():
    done = python(f"import socket; socket.create_connection(({NAME!r}, 80), timeout=1)")
    assert done.returncode == 1
    assert f"NetworkUsed: socket.getaddrinfo was asked for '{NAME}'" in done.stderr


def test_a_python_that_a_test_starts_takes_warnings_as_errors():
    done = python("import warnings; warnings.warn('so it ends')")
    assert done.returncode == 1
    assert "UserWarning: so it ends" in done.stderr
