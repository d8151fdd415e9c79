"""The bytes of a file from a server, which is believed nothing: what it says and what it sends is looked at first.

Proxies and authorities are the environment's, as `requests` reads it (HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE).
Certificates are always verified, and https is never left for http.
"""

import re
import socket
from http import HTTPStatus
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError

from mlp.bars import progress_bar
from mlp.files import MORE, NEW, Output
from mlp.reading import shown

ATTEMPTS = 5
TIMEOUT = (10, 60)
"""Seconds to connect, and seconds without a byte."""
LEAST_SPEED, PERIOD = 1_000, 60
"""Bytes a second, and the seconds over which they are counted: at less, 168 MB would take two days."""
MAX_HOPS = 10
BLOCK = 1 << 16
HTML = re.compile(rb"[\s\xef\xbb\xbf]*<(!doctype|html|head|script)", re.IGNORECASE)
LOGIN = "a login page of your network, perhaps: open the address in a browser"
ADVICE = {
    401: "your network or the server does not give it out",
    403: "your network or the server does not give it out",
    404: "it is not there any more, or your network hides it",
    429: "try again later",
    500: "try again later",
    502: "try again later",
    503: "try again later",
    504: "try again later",
    511: LOGIN,
}


class TransferError(Exception):
    """A file did not come, or not all of it; the message says what came instead, and what to do."""


class RefusedError(TransferError):
    """A file did not come, and to ask again at once would not help."""


def transfer(url: str, part: Path, size: int | None, quiet: bool = False) -> bool:
    """Append to `part` what it lacks of the file of `size` bytes at `url`, or start anew, in some attempts.

    Returns whether all of it came in one answer. Raises TransferError, or OSError where the disk fails; `part` then
    holds what came, and is as before where what came cannot be of the file.
    """
    left = ATTEMPTS
    while True:
        left -= 1
        have = part.stat().st_size if part.exists() else 0
        try:
            response, start = _ask(url, have, size)
            with response:
                if response.status_code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    _copy(response, part, start, size, quiet)
            return start == 0
        except TransferError as error:
            if left == 0 or isinstance(error, RefusedError):
                raise


def _ask(url: str, have: int, size: int | None) -> tuple[requests.Response, int]:
    """Return an answer that can be of the file, with the byte of the file at which it starts: `have`, or 0."""
    response = _open(url, have)
    try:
        start = _start(response, have, size)
    except TransferError:
        response.close()
        raise
    if start in (0, have):
        return response, start
    response.close()
    if have:
        return _ask(url, 0, size)  # it counts wrong: all of it, then
    raise RefusedError(f"it answered with the part {_header(response, 'Content-Range')}, and all was asked for")


class _Session(requests.Session):
    """A session that follows no redirect, and does not read its body either, which may be endless."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None."""


def _open(url: str, have: int) -> requests.Response:
    """Return the answer to a request for what follows the first `have` bytes, of the last server in a row."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with _Session() as session:
        for _ in range(MAX_HOPS + 1):
            try:
                response = session.get(url, headers=headers, stream=True, timeout=TIMEOUT, allow_redirects=False)
            except (requests.RequestException, HTTPError, ValueError) as error:
                _explain(error)
            if not response.is_redirect:
                return response
            response.close()
            url = _next_url(url, response.headers["Location"])
    raise RefusedError(f"it redirected more than {MAX_HOPS} times, at last to {shown(url)}: {LOGIN}")


def _next_url(url: str, target: str) -> str:
    """Return where a redirect leads: from https to https alone."""
    try:
        url, before = urljoin(url, target), urlsplit(url).scheme
        scheme = urlsplit(url).scheme
    except ValueError:
        raise RefusedError(f"it redirected to {shown(target)}, which is no address") from None
    if scheme not in {"https", before}:
        raise RefusedError(f"it redirected to {shown(url)}, expected https, which is not given up: {LOGIN}")
    return url


def _explain(error: Exception) -> NoReturn:
    """Raise the TransferError that says what kept a server from answering, or from going on."""
    reason = shown(_innermost(error))
    if isinstance(error, requests.exceptions.SSLError):
        raise RefusedError(
            f"its certificate was not accepted ({reason}): {LOGIN}. See that the clock is right; where your network "
            f"reads along, name the file of its authority in REQUESTS_CA_BUNDLE"
        ) from error
    if isinstance(error, requests.exceptions.ProxyError):
        reason = f"the proxy in HTTPS_PROXY does not let it through: {reason}"
    elif isinstance(error, requests.Timeout) or "timed out" in str(error):
        reason = f"it was silent for too long ({TIMEOUT[0]} seconds to connect, {TIMEOUT[1]} without a byte): {reason}"
    elif isinstance(error, requests.ConnectionError):
        reason = f"the connection failed; see that this machine is on the internet: {reason}"
    raise TransferError(reason) from error


def _innermost(error: BaseException) -> object:
    """Return the words of what an error came from in the first place: those around it add names of classes."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return (error.strerror if isinstance(error, socket.gaierror) else None) or str(error) or type(error).__name__


def _start(response: requests.Response, have: int, size: int | None) -> int:
    """Return the byte of the file at which the answer starts, -1 where that is not said.

    Raises RefusedError where it is no answer, or of another file.
    """
    status = response.status_code
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
        return have  # nothing is lacking; the checksum decides
    if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        later = _header(response, "Retry-After")
        asked = f" (it asks to wait{f' {later} seconds' if later.isdecimal() else f' until {later}'})" if later else ""
        advice = ADVICE.get(status, "it was not understood")
        raise RefusedError(f"it answered {status} {shown(response.reason)}: {advice}{asked}")
    if _header(response, "Content-Type").lower().startswith(("text/html", "application/xhtml")):
        raise RefusedError(f"it sent a page (HTML) in place of the file: {LOGIN}")
    start, total = _range(response)
    if None not in (size, total) and size != total:
        packed = _header(response, "Content-Encoding")
        how = f", packed by {packed} on the way" if packed else ""
        raise RefusedError(f"it offers {total:,} bytes{how}, expected {size:,}: another file")
    return start


def _range(response: requests.Response) -> tuple[int, int | None]:
    """Return the byte of the file at which an answer starts, -1 where that is not said; and the size of the file."""
    if response.status_code == HTTPStatus.PARTIAL_CONTENT:
        found = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", _header(response, "Content-Range"))
        start, total = found.groups() if found else ("-1", "*")
        return int(start), None if total == "*" else int(total)
    length = _header(response, "Content-Length")
    return 0, int(length) if re.fullmatch(r"\d{1,18}", length) else None


def _header(response: requests.Response, name: str) -> str:
    return shown(response.headers.get(name, ""), 100)


def _copy(response: requests.Response, part: Path, start: int, size: int | None, quiet: bool) -> None:
    """Write what an answer holds to `part`, from its byte `start` on; stop after `size` bytes."""
    total = _range(response)[1] if size is None else size
    block = _read(response)
    if start == 0 and HTML.match(block):
        raise RefusedError(f"it sent a page (HTML) in place of the file: {LOGIN}")
    bar = progress_bar(total=total, initial=start, unit="B", unit_scale=True, disable=quiet, desc=part.stem)
    since, came = monotonic(), 0
    with bar, Output(part, MORE if start else NEW) as output:
        while block and (size is None or start <= size):  # a server that never ends would fill the disk
            output.write(block)
            bar.update(len(block))
            start, came = start + len(block), came + len(block)
            if monotonic() - since >= PERIOD:
                if came < LEAST_SPEED * PERIOD:
                    raise TransferError(
                        f"only {came:,} bytes came in {PERIOD} seconds, expected {LEAST_SPEED:,} a second"
                    )
                since, came = monotonic(), 0
            block = _read(response)
    if total is not None and start < total:
        raise TransferError(f"it stopped after {start:,} of {total:,} bytes")


def _read(response: Any) -> bytes:
    """Return the next bytes of an answer, as they are sent, as soon as there are some; none at its end."""
    try:
        data: bytes = response.raw.read1(BLOCK, decode_content=False)
    except HTTPError as error:
        _explain(error)
    return data
