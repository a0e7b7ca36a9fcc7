"""The shapes that cross the seam: targets, headers, answers."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector_async.errors import LocalProtocolError
from connector_async.transport import Answer, Headers, Target, header_pairs
from tests.guards import CANARY, assert_canary_absent


@pytest.mark.parametrize(
    ("base", "host", "port", "url"),
    [
        ("http://a.example", "a.example", 80, "http://a.example/p"),
        ("https://a.example/", "a.example", 443, "https://a.example/p"),
        ("https://a.example:443", "a.example", 443, "https://a.example/p"),
        ("http://a.example:8080", "a.example", 8080, "http://a.example:8080/p"),
        ("http://[::1]:8080", "::1", 8080, "http://[::1]:8080/p"),
        ("http://[::1]", "::1", 80, "http://[::1]/p"),
    ],
)
def test_a_target_is_taken_apart_once(base: str, host: str, port: int, url: str) -> None:
    """Scheme, host, port, path, and the head as it goes out."""
    target = Target(base, "/p")
    assert (target.host, target.port, target.url) == (host, port, url)
    assert target.origin == (target.scheme, host, port)
    assert target.head.startswith(b"POST /p HTTP/1.1\r\nHost: ")
    assert url in repr(target)


@pytest.mark.parametrize(
    "base",
    [
        "",
        "a.example",
        "ftp://a",
        "http://",
        "http://a b",
        "http://u:p@a",
        "http://a:x",
        "http://a:99999",
        "http://a\r\nX: y",
    ],
)
def test_what_is_no_base_url_is_refused(base: str) -> None:
    """Before any I/O."""
    with pytest.raises(LocalProtocolError):
        Target(base, "/")


@given(st.text().filter(lambda path: any(not "!" <= char <= "~" for char in path)))
def test_a_path_that_would_break_the_request_is_refused(path: str) -> None:
    """our fault tables, S3."""
    with pytest.raises(LocalProtocolError):
        Target("http://a", f"/{path}")


@given(st.text(min_size=1).filter(lambda value: any(not (" " <= char <= "~" or char == "\t") for char in value)))
def test_a_header_value_that_would_break_the_request_is_refused(value: str) -> None:
    """our fault tables, S3: and the value, which may be a token, is not shown."""
    with pytest.raises(LocalProtocolError) as caught:
        Headers([("Authorization", CANARY + value)])
    assert_canary_absent(caught.value)


@given(
    st.text().filter(lambda name: not name or not all("a" <= char <= "z" for char in name.lower().replace("-", "a")))
)
def test_most_header_names_are_refused(name: str) -> None:
    """Only tokens are names (digits and some signs are, too)."""
    if name and all(
        char in "!#$%&'*+.^_`|~0123456789-abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" for char in name
    ):
        assert header_pairs(Headers([(name, "x")])) == [(name, "x")]
    else:
        with pytest.raises(LocalProtocolError):
            Headers([(name, "x")])


def test_headers_are_encoded_once_and_joined_cheaply() -> None:
    """And their values are not shown."""
    headers = Headers([("A", f"{CANARY}-1"), ("B", "2")])
    assert headers == f"A: {CANARY}-1\r\nB: 2\r\n".encode()
    assert header_pairs(headers + Headers([("C", "")])) == [("A", f"{CANARY}-1"), ("B", "2"), ("C", "")]
    assert_canary_absent(headers)
    assert str(headers) == repr(headers) == "Headers(A, B)"


def test_an_answer_takes_its_head_apart_when_asked() -> None:
    """Given as pairs it stays so; its body is not shown."""
    raw = Answer(200, b"HTTP/1.1 200 OK\r\n folded first\r\nA: 1\r\n\t2", b"secret")
    assert raw.headers == ((b" folded first", b""), (b"a", b"1 2"))
    assert raw.headers is raw.headers
    assert Answer(200, ((b"a", b"1"),), b"").headers == ((b"a", b"1"),)
    assert repr(raw) == "Answer(200, 6 bytes)"


def test_a_copy_of_an_answer_is_a_value() -> None:
    """It does not know the connection, which could not be copied."""
    copied = pickle.loads(pickle.dumps(Answer(200, ((b"a", b"1"),), b"body", connection=lambda: None)))
    assert (copied.status, copied.headers, copied.body, copied.connection) == (200, ((b"a", b"1"),), b"body", None)
