"""Servers that send something else than was asked for, too little, or nothing: all found out, each with its advice."""

import ast
import hashlib
import re
import shutil
import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import requests

import mlp
from mlp.data_providers import DataDamagedError, DataMissingError, fetch, transfer
from mlp.data_providers.download import RemoteFile
from mlp.data_providers.transfer import ATTEMPTS, MAX_HOPS

DATA = np.random.default_rng(0).bytes(200_000)
HALF = 100_000
PAGE = b"<!DOCTYPE html><html><body>Please log in.</body></html>"
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        answer(self, int(asked[6:-1]) if asked else 0)
        self.close_connection = True

    def answer(self, status, body=b"", **headers):
        """Send an answer with these headers and no others, `_` being `-`; the connection ends it."""
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def right(handler, start):
    """As a server should."""
    if start:
        handler.answer(206, DATA[start:], Content_Range=f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
    else:
        handler.answer(200, DATA, Content_Length=len(DATA))


def says(status=200, body=b"", **headers):
    """The same answer, whatever was asked for."""
    return lambda handler, start: handler.answer(status, body, **headers)


class Server(ThreadingHTTPServer):
    """Gives its answers in turn, the last one for ever."""

    daemon_threads = True
    scheme = "http"

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.asked, self.end = [right], [], threading.Event()

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.server_port}/file.bin"

    def remote(self, **changes):
        sums = {"md5": hashlib.md5(DATA).hexdigest(), "sha256": hashlib.sha256(DATA).hexdigest()}
        return RemoteFile("file.bin", self.url, len(DATA), **sums)._replace(**changes)

    def handle_error(self, *_):
        """Say nothing where a client hangs up, or does not accept a certificate."""


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", *(f"{scheme}_PROXY" for scheme in ("HTTP", "HTTPS", "ALL"))):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def running(server):
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.end.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def server():
    yield from running(Server())


@pytest.fixture
def other():
    yield from running(Server())


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for this machine that nobody has signed, with its key."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    done = subprocess.run([*command, "-keyout", path, "-out", f"{path}.crt"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with path.open("a") as stream:
        stream.write(Path(f"{path}.crt").read_text())
    return path


@pytest.fixture
def secure(certificate):
    server = Server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.scheme = "https"
    yield from running(server)


def put_part(folder, data=DATA[:HALF]):
    (folder / "file.bin.part").write_bytes(data)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_refused(server, folder, *words, asked=1):
    """No file, what was there is left, and the message holds these words."""
    before = contents(folder)
    with pytest.raises(DataMissingError) as caught:
        fetch(server.remote(), folder, quiet=True)
    assert contents(folder) == before
    assert len(server.asked) == asked
    text = str(caught.value)
    for word in (server.url, *words):
        assert word in text
    assert "\n" not in text


def assert_whole(server, folder, *asked, **changes):
    assert fetch(server.remote(**changes), folder, quiet=True) == folder / "file.bin"
    assert contents(folder) == {"file.bin": DATA}
    assert server.asked == list(asked)


both = pytest.mark.parametrize("part", [False, True], ids=["new", "with a part"])


# --- what is not the file


@both
@pytest.mark.parametrize(
    "answer",
    [
        says(200, PAGE, Content_Type="text/html"),
        says(200, PAGE, Content_Type="Text/HTML; charset=utf-8", Content_Length=len(PAGE)),
        says(200, PAGE + bytes(len(DATA) - len(PAGE)), Content_Length=len(DATA)),
        says(200, b"\n <HTML>" + bytes(300_000), Content_Type="application/octet-stream"),
        says(200, b"\xef\xbb\xbf<script>", Content_Type="text/plain"),
        says(200, b"<?xml version='1.0'?>", Content_Type="application/xhtml+xml"),
    ],
    ids=["typed", "typed with a length", "of the right size", "called a file", "script", "XHTML"],
)
def test_a_page_in_place_of_the_file_is_not_stored(server, tmp_path, answer, part):
    if part:
        put_part(tmp_path)
    server.answers = [answer]
    assert_refused(server, tmp_path, "a page (HTML)", "a login page of your network, perhaps: open the address in a br")


def test_a_page_as_the_rest_of_a_file_is_not_appended(server, tmp_path):
    put_part(tmp_path)
    page = PAGE + bytes(HALF - len(PAGE))
    server.answers = [says(206, page, Content_Type="text/html", Content_Range="bytes 100000-199999/200000")]
    assert_refused(server, tmp_path, "a page (HTML)", "100,000 bytes are kept in")


@both
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (says(200, DATA[:-1], Content_Length=len(DATA) - 1), "it offers 199,999 bytes, expected 200,000"),
        (says(200, b"", Content_Length=10**12), "it offers 1,000,000,000,000 bytes, expected 200,000"),
        (
            says(200, b"", Content_Length=9, Content_Encoding="gzip"),
            "offers 9 bytes, packed by gzip on the way, expected",
        ),
        (
            says(206, DATA[HALF:], Content_Range="bytes 100000-199999/300000"),
            "it offers 300,000 bytes, expected 200,000",
        ),
    ],
    ids=["short", "long", "packed", "range of another"],
)
def test_a_file_of_another_size_is_not_begun(server, tmp_path, answer, words, part):
    if part:
        put_part(tmp_path)
    server.answers = [answer]
    assert_refused(server, tmp_path, words)


@both
def test_flipped_bytes_are_damage(server, tmp_path, part):
    """With a part, its bytes are suspected first, and all is asked for once more."""
    flipped = DATA[:-1] + bytes([DATA[-1] ^ 1])
    server.answers = [says(200, flipped, Content_Length=len(DATA))]
    if part:
        put_part(tmp_path)
        server.answers.insert(0, says(206, flipped[HALF:], Content_Range="bytes 100000-199999/200000"))
    with pytest.raises(DataDamagedError, match=r"it has MD5 \w{32}, expected \w{32} and SHA-256 .* Try again; where"):
        fetch(server.remote(), tmp_path, quiet=True)
    assert contents(tmp_path) == {"file.bin.damaged": flipped}
    assert server.asked == (["bytes=100000-", None] if part else [None])


def test_a_part_of_another_version_of_the_file_ends_right(server, tmp_path):
    """The server's file was exchanged in the middle: what was put together is wrong, what comes then is right."""
    old = bytes(200_000)
    server.answers = [says(200, old[:HALF], Content_Length=len(DATA), ETag='"1"'), right]
    fetch(server.remote(), tmp_path, quiet=True)
    assert contents(tmp_path) == {"file.bin": DATA, "file.bin.damaged": old[:HALF] + DATA[HALF:]}
    assert server.asked == [None, "bytes=100000-", None]


def test_pieces_that_are_wrong_for_ever_are_left(server, tmp_path):
    """All of it is begun anew once, not again and again."""

    def half(handler, start):
        handler.answer(206, bytes(HALF), Content_Range=f"bytes {start}-{start + HALF - 1}/200000")

    server.answers = [half]
    with pytest.raises(DataDamagedError, match="gave a wrong file"):
        fetch(server.remote(), tmp_path, quiet=True)
    assert server.asked == [None, "bytes=100000-"] * 2
    assert contents(tmp_path) == {"file.bin.damaged": bytes(200_000)}


@both
@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_too_many_bytes_are_damage_and_are_not_all_read(server, tmp_path, size, part):
    if part:
        put_part(tmp_path)
    server.answers = [says(200, DATA + bytes(size + 1))]
    with pytest.raises(DataDamagedError, match=r"it has 2\d\d,\d{3} bytes, expected 200,000"):
        fetch(server.remote(), tmp_path, quiet=True)
    assert list(contents(tmp_path)) == ["file.bin.damaged"]
    assert contents(tmp_path)["file.bin.damaged"].startswith(DATA)
    assert len(contents(tmp_path)["file.bin.damaged"]) <= len(DATA) + transfer.BLOCK


# --- less than the file


@pytest.mark.parametrize("length", [True, False], ids=["with a length", "without"])
def test_a_file_cut_off_is_asked_for_again_and_then_kept(server, tmp_path, length):
    headers = {"Content_Length": len(DATA)} if length else {}
    server.answers = [says(200, DATA[:HALF], **headers)]
    with pytest.raises(DataMissingError) as caught:
        fetch(server.remote(), tmp_path, quiet=True)
    assert server.asked == [None, *["bytes=100000-"] * (ATTEMPTS - 1)]
    assert contents(tmp_path) == {"file.bin.part": DATA[:HALF]}
    assert ("100000 bytes read" if length else "it stopped after 100,000 of 200,000 bytes") in str(caught.value)
    assert "100,000 bytes are kept in" in str(caught.value)


def test_where_nobody_listens_it_says_what_to_look_at(server, tmp_path):
    server.shutdown()
    server.server_close()
    assert_refused(server, tmp_path, "the connection failed; see that this machine is on the internet", asked=0)


def test_the_reason_is_the_innermost_one_in_short(server, tmp_path, monkeypatch):
    def no_network(*_args, **_options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    url = "https://nowhere.invalid/file.bin"
    with pytest.raises(DataMissingError) as caught:
        fetch(server.remote(url=url), tmp_path, quiet=True)
    why = "the connection failed; see that this machine is on the internet: Name or service not known."
    assert str(caught.value) == f"{url} could not be downloaded: {why}"


@pytest.mark.parametrize("size", [len(DATA), None])
def test_a_server_that_sends_small_parts_is_asked_for_the_next(server, tmp_path, size):
    def some(handler, start):
        handler.answer(206, DATA[start : start + 50_000], Content_Range=f"bytes {start}-{start + 49_999}/200000")

    server.answers = [some]
    assert_whole(server, tmp_path, None, "bytes=50000-", "bytes=100000-", "bytes=150000-", size=size)


def test_a_part_that_is_all_there_is_of_a_shorter_file_ends(server, tmp_path):
    put_part(tmp_path)
    server.answers = [says(416, Content_Range="bytes */100000"), says(200, DATA[:HALF], Content_Length=HALF)]
    with pytest.raises(DataMissingError, match="it offers 100,000 bytes, expected 200,000"):
        fetch(server.remote(), tmp_path, quiet=True)
    assert contents(tmp_path) == {"file.bin.damaged": DATA[:HALF]}


@pytest.mark.parametrize("sent", [0, 1000])
def test_silence_is_left_after_a_while(server, tmp_path, monkeypatch, sent):
    monkeypatch.setattr(transfer, "TIMEOUT", (10, 0.5))
    monkeypatch.setattr(transfer, "ATTEMPTS", 2)

    def stall(handler, start):
        handler.answer(200, DATA[:sent], Content_Length=len(DATA))
        handler.server.end.wait(60)

    server.answers = [stall]
    with pytest.raises(
        DataMissingError, match=r"it was silent for too long \(10 seconds to connect, 0\.5 without a by"
    ):
        fetch(server.remote(), tmp_path, quiet=True)
    assert len(server.asked) == 2
    assert contents(tmp_path) == ({"file.bin.part": DATA[:sent]} if sent else {})


def test_silence_in_place_of_an_answer_is_left_after_a_while(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "TIMEOUT", (10, 0.5))
    monkeypatch.setattr(transfer, "ATTEMPTS", 2)
    server.answers = [lambda handler, start: handler.server.end.wait(60)]
    assert_refused(server, tmp_path, "it was silent for too long", asked=2)


@pytest.mark.parametrize("fast", [False, True])
def test_a_server_that_drips_is_left(server, tmp_path, monkeypatch, fast):
    """A clock that goes on by 61 seconds whenever it is looked at; the bytes come without any wait."""
    seconds = iter(range(0, 10**9, transfer.PERIOD + 1))
    monkeypatch.setattr(transfer, "monotonic", lambda: next(seconds))
    monkeypatch.setattr(transfer, "LEAST_SPEED", 0 if fast else 10_000)
    monkeypatch.setattr(transfer, "ATTEMPTS", 2)  # each takes one block, and the file has four
    if fast:
        assert_whole(server, tmp_path, None)
        return
    with pytest.raises(DataMissingError, match=r"only [\d,]+ bytes came in 60 seconds, expected 10,000 a second"):
        fetch(server.remote(), tmp_path, quiet=True)
    assert len(server.asked) == 2
    kept = contents(tmp_path)["file.bin.part"]
    assert kept
    assert DATA.startswith(kept)


def test_a_server_that_begins_to_drip_is_left(server, tmp_path, monkeypatch):
    """In each minute anew: what came in the first one does not count in the second."""
    seconds, blocks = iter(range(0, 1000, transfer.PERIOD)), iter([DATA[:60_000], DATA[60_000:62_000]])
    monkeypatch.setattr(transfer, "monotonic", lambda: next(seconds))
    monkeypatch.setattr(transfer, "_read", lambda _: next(blocks))
    monkeypatch.setattr(transfer, "ATTEMPTS", 1)
    with pytest.raises(DataMissingError, match="only 2,000 bytes came in 60 seconds, expected 1,000 a second"):
        fetch(server.remote(), tmp_path, quiet=True)
    assert contents(tmp_path) == {"file.bin.part": DATA[:62_000]}


# --- ranges


@pytest.mark.parametrize(
    "found", ["bytes 0-199999/200000", "bytes 99999-199999/200000", "bytes 100001-199999/*", "bytes x", "", "\u00b2"]
)
def test_another_range_than_was_asked_for_is_never_appended(server, tmp_path, found):
    """All of the file is asked for then, unless it is what came."""
    put_part(tmp_path)
    body = DATA if " 0-" in found else b"of no use" * 1000
    server.answers = [says(206, body, **({"Content_Range": found} if found else {})), right]
    assert_whole(server, tmp_path, "bytes=100000-", *([] if body is DATA else [None]))


def test_the_rest_of_a_file_may_look_like_a_page(server, tmp_path):
    data = DATA[:HALF] + PAGE + DATA[HALF + len(PAGE) :]
    put_part(tmp_path)
    server.answers = [says(206, data[HALF:], Content_Range="bytes 100000-199999/200000")]
    sums = {"md5": hashlib.md5(data).hexdigest(), "sha256": hashlib.sha256(data).hexdigest()}
    fetch(server.remote(**sums), tmp_path, quiet=True)
    assert contents(tmp_path) == {"file.bin": data}


def test_the_bytes_are_asked_for_as_they_are(server, tmp_path):
    def only_so(handler, start):
        handler.answer(200 if handler.headers["Accept-Encoding"] == "identity" else 500, DATA)

    server.answers = [only_so]
    assert_whole(server, tmp_path, None)


@pytest.mark.parametrize("total", ["200000", "*"])
def test_the_range_that_was_asked_for_is_appended(server, tmp_path, total):
    put_part(tmp_path)
    server.answers = [says(206, DATA[HALF:], Content_Range=f"bytes 100000-199999/{total}")]
    assert_whole(server, tmp_path, "bytes=100000-")


def test_ranges_that_are_wrong_for_ever_are_left(server, tmp_path):
    put_part(tmp_path)
    server.answers = [says(206, DATA[7:], Content_Range="bytes 7-199999/200000")]
    assert_refused(server, tmp_path, "the part bytes 7-199999/200000, and all was asked for", asked=2)


def test_a_part_that_nobody_asked_for_is_taken_if_it_is_the_start(server, tmp_path):
    server.answers = [says(206, DATA, Content_Range="bytes 0-199999/200000")]
    assert_whole(server, tmp_path, None)


def test_a_server_that_ignores_ranges_starts_anew(server, tmp_path):
    put_part(tmp_path, bytes(HALF))
    server.answers = [says(200, DATA, Content_Length=len(DATA))]
    assert_whole(server, tmp_path, "bytes=100000-")


# --- errors


@both
@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (404, {}, "404 Not Found: it is not there any more"),
        (403, {}, "403 Forbidden: your network or the server does not give it out"),
        (503, {}, "503 Service Unavailable: try again later."),
        (503, {"Retry_After": "120"}, "try again later (it asks to wait 120 seconds)"),
        (
            429,
            {"Retry_After": "Wed, 21 Oct 2026 07:28:00 GMT"},
            "(it asks to wait until Wed, 21 Oct 2026 07:28:00 GMT)",
        ),
        (511, {}, "a login page of your network, perhaps"),
        (204, {}, "204 No Content: it was not understood"),
        (304, {}, "304 Not Modified: it was not understood"),
    ],
)
def test_an_answer_that_is_no_file_is_told_and_not_asked_for_again(server, tmp_path, status, headers, words, part):
    if part:
        put_part(tmp_path)
    server.answers = [says(status, **headers)]
    assert_refused(server, tmp_path, words)


def test_what_a_header_holds_is_told_short_and_printable(server, tmp_path):
    server.answers = [says(503, Retry_After="\x1b[2J" + "x" * 1000)]
    with pytest.raises(DataMissingError) as caught:
        fetch(server.remote(), tmp_path, quiet=True)
    assert str(caught.value).isprintable()
    assert "x" * 100 not in str(caught.value)


def test_the_end_of_a_range_where_none_was_asked_for_is_no_file(server, tmp_path):
    server.answers = [says(416)]
    assert_refused(server, tmp_path, "it answered 416")


@pytest.mark.parametrize("length", ["many", "-1", "1" * 5000, "\u00b2"])
def test_a_length_that_is_none_does_not_matter(server, tmp_path, length):
    server.answers = [says(200, DATA, Content_Length=length)]
    assert_whole(server, tmp_path, None)


@pytest.mark.parametrize("line", [b"no HTTP\r\n\r\n", b"HTTP/1.1 200 " + b"x" * 70_000, b""])
def test_what_is_no_answer_is_told(server, tmp_path, line):
    server.answers = [lambda handler, start: handler.wfile.write(line)]
    assert_refused(server, tmp_path, "could not be downloaded", asked=ATTEMPTS)


# --- redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed_and_the_range_asked_for_there(server, other, tmp_path, status):
    put_part(tmp_path)
    server.answers = [says(status, b"x" * 1000, Location=other.url)]
    assert_whole(server, tmp_path, "bytes=100000-")
    assert other.asked == ["bytes=100000-"]


def test_the_body_of_a_redirect_is_not_read(server, other, tmp_path):
    taken = []

    def redirect(handler, start):
        handler.answer(302, Location=other.url)
        for _ in range(64):
            handler.wfile.write(bytes(1 << 20))
            taken.append(1 << 20)

    server.answers = [redirect]
    fetch(server.remote(), tmp_path, quiet=True)
    assert contents(tmp_path) == {"file.bin": DATA}
    assert len(taken) < 64


def test_redirects_without_end_are_left(server, tmp_path):
    server.answers = [says(302, Location="/file.bin")]
    assert_refused(
        server, tmp_path, f"it redirected more than {MAX_HOPS} times, at last to {server.url}", asked=MAX_HOPS + 1
    )


def test_as_many_redirects_as_are_allowed_are_followed(server, tmp_path):
    server.answers = [*[says(302, Location="/file.bin")] * MAX_HOPS, right]
    assert_whole(server, tmp_path, *[None] * (MAX_HOPS + 1))


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/file.bin", "file:///etc/hostname"])
def test_a_redirect_to_something_else_is_refused(server, tmp_path, target):
    server.answers = [says(302, Location=target)]
    assert_refused(server, tmp_path, f"it redirected to {target}, expected https")


def test_a_redirect_to_no_address_is_refused(server, tmp_path):
    server.answers = [says(302, Location="http://[")]
    assert_refused(server, tmp_path, "it redirected to http://[, which is no address")


@needs_openssl
@both
def test_a_redirect_from_https_to_http_is_refused(secure, other, certificate, tmp_path, monkeypatch, part):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    if part:
        put_part(tmp_path)
    secure.answers = [says(302, Location=other.url)]
    assert_refused(secure, tmp_path, f"it redirected to {other.url}, expected https, which is not given up")
    assert other.asked == []


@needs_openssl
def test_nor_after_another_server_s_redirect(server, secure, other, certificate, tmp_path, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    server.answers, secure.answers = [says(302, Location=secure.url)], [says(302, Location=other.url)]
    assert_refused(server, tmp_path, f"it redirected to {other.url}, expected https")
    assert (secure.asked, other.asked) == ([None], [])


# --- certificates and proxies


@needs_openssl
@both
def test_a_certificate_that_nobody_vouches_for_is_refused(secure, tmp_path, part):
    if part:
        put_part(tmp_path)
    words = ("its certificate was not accepted", "CERTIFICATE_VERIFY_FAILED", "REQUESTS_CA_BUNDLE", "a login page")
    assert_refused(secure, tmp_path, *words, asked=0)


@needs_openssl
def test_the_environment_names_authorities(secure, certificate, tmp_path, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert_whole(secure, tmp_path, None)


@needs_openssl
def test_a_certificate_of_another_name_is_refused(secure, certificate, tmp_path, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    url = secure.url.replace("127.0.0.1", "localhost")
    with pytest.raises(DataMissingError, match="its certificate was not accepted"):
        fetch(secure.remote(url=url), tmp_path, quiet=True)
    assert contents(tmp_path) == {}


def test_the_environment_names_a_proxy(server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    fetch(server.remote(url="http://nowhere.invalid/file.bin"), tmp_path, quiet=True)
    assert contents(tmp_path) == {"file.bin": DATA}


def test_a_proxy_that_is_not_there_is_told(server, tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(DataMissingError, match="the proxy in HTTPS_PROXY does not let it through"):
        fetch(server.remote(url="https://nowhere.invalid/file.bin"), tmp_path, quiet=True)


def test_every_request_verifies_certificates(server, tmp_path, monkeypatch):
    sent, send = [], requests.adapters.HTTPAdapter.send
    monkeypatch.setattr(
        requests.adapters.HTTPAdapter,
        "send",
        lambda *args, **named: sent.append(named["verify"]) or send(*args, **named),
    )
    server.answers = [says(302, Location="/file.bin"), right]
    assert_whole(server, tmp_path, None, None)
    assert sent == [True, True]


def test_no_source_turns_certificates_off():
    """Nothing that could: no `verify`, no context of our own, no warnings of urllib3 silenced."""
    trees = [ast.parse(path.read_text()) for path in Path(mlp.__file__).parent.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = [getattr(node, "arg", getattr(node, "attr", getattr(node, "id", ""))) for node in nodes]
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert "requests" in imported
    assert "allow_redirects" in names
    assert not {"ssl", "http.client", "urllib.request"} & imported
    assert not [name for name in names if re.fullmatch("verify|trust_env|disable_warnings|CERT_NONE", str(name))]
