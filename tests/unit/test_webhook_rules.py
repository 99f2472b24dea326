"""What webhooks decide without anybody: addresses, URLs, bodies and signatures, answers, pauses."""

from __future__ import annotations

import hashlib
import hmac
import json
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeworld.model.addresses import Reach, parse_networks
from homeworld.model.errors import InvalidError
from homeworld.model.webhooks import Subject, body, check_url, parse_url, signature
from homeworld.webhooks.exchange import LIMIT, Answer, AnswerError, request, verdict
from homeworld.webhooks.retries import Retries

INSIDE = [
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fdff::1", "ff02::1", "fec0::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::", "2001:0:4136:e378::1", "2001:db8::1", "100::1",
    "::ffff:0:127.0.0.1",
]  # fmt: skip
OUTSIDE = [
    "8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8",
    "64:ff9b::808:808",
]  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
def test_what_is_not_public_is_refused_whatever_its_form(address: str) -> None:
    assert address in Reach().refusal(address)


@pytest.mark.parametrize("address", OUTSIDE)
def test_what_is_public_may_be_reached(address: str) -> None:
    assert Reach().refusal(address) == ""


def test_networks_are_allowed_by_configuration() -> None:
    reach = Reach(parse_networks("127.0.0.0/8, fd00::/8"))
    assert (reach.refusal("127.0.0.1"), reach.refusal("::ffff:127.0.0.1"), reach.refusal("fd00::1")) == (
        "", "", "",
    )  # fmt: skip
    assert reach.refusal("10.0.0.1")
    assert reach.refusal("::1")
    assert reach.inside("127.0.0.1")
    assert not reach.inside("8.8.8.8")
    assert parse_networks("") == ()
    with pytest.raises(InvalidError, match="not an IP network"):
        parse_networks("10.0.0.0/8,nonsense")


@given(st.ip_addresses(v=4))
def test_an_address_is_the_same_in_each_of_its_forms(address: object) -> None:
    reach = Reach()
    plain = bool(reach.refusal(str(address)))
    assert bool(reach.refusal(f"::ffff:{address}")) == plain
    assert reach.refusal("nonsense")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://example.com/", "https"),
        ("ftp://example.com/", "https"),
        ("example.com", "https"),
        ("https://", "host"),
        ("https://user:secret@example.com/", "password"),
        ("https://example.com/#there", "fragment"),
        ("https://example.com:0/", "port"),
        ("https://example.com:99999/", "cannot be read"),
        ("https://[::1/", "cannot be read"),
        ("https://exämple.com/", "ASCII"),
        ("https://example.com/a b", "spaces"),
        ("https://example.com/\r\nX: y", "spaces"),
        ("https://example.com/" + "x" * 3000, "2048"),
        ("https://127.0.0.1/", "loopback"),
        ("https://[::ffff:10.0.0.1]:8443/", "private"),
        ("https://169.254.169.254/latest/meta-data", "link-local"),
        ("https://2130706433/", "not an address"),
    ],
)
def test_a_url_that_will_never_be_sent_to_is_refused(url: str, why: str) -> None:
    with pytest.raises(InvalidError, match=why):
        check_url(url, Reach(), plain=False)


def test_urls_are_taken_apart() -> None:
    one = parse_url("https://Example.com/a/b?c=d&e=%20f")
    assert (one.tls, one.host, one.port, one.target) == (True, "example.com", 443, "/a/b?c=d&e=%20f")
    assert one.authority == "example.com"
    assert parse_url("https://[2606:4700::1]:8443").authority == "[2606:4700::1]:8443"
    check_url("https://example.com/hook", Reach(), plain=False)
    check_url("http://127.0.0.1:80/hook", Reach(parse_networks("127.0.0.0/8")), plain=True)


def test_a_body_is_what_javascript_would_write_and_is_signed() -> None:
    at = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    text = body("branch.ready", at, Subject("acme", "shop", {"id": "x", "name": "münchen", "n": 1}))
    assert text == (
        '{"timestamp":1772366400,"event":"branch.ready","organization":"acme","database":"shop",'
        '"resource":{"id":"x","name":"münchen","n":1}}'
    )
    assert json.loads(text)["resource"]["n"] == 1
    content = text.encode()
    assert signature("secret", content) == hmac.new(b"secret", content, hashlib.sha256).hexdigest()


def read(data: bytes, piece: int = 10_000) -> int | None:
    answer = Answer()
    for at in range(0, len(data), piece):
        status = answer.feed(data[at : at + piece])
        if status is not None:
            return status
    return None


@pytest.mark.parametrize("piece", [1, 3, 10_000])
def test_an_answer_is_read_however_it_comes(piece: int) -> None:
    assert read(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody", piece) == 200
    assert read(b"HTTP/1.0 503\r\n\r\n", piece) == 503
    assert read(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n", piece) == 204
    assert read(b"HTTP/1.1 200 OK\r\nA: b\r\n", piece) is None


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-x\r\n", b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 2000 OK\r\n\r\n", b"\r\n\r\n", b"\x15\x03\x01",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * LIMIT, b"HTTP/1.1 " + b"2" * (LIMIT + 1),
        b"HTTP/1.1 100 C\r\n\r\n" * LIMIT,
    ],
)  # fmt: skip
def test_what_is_no_answer_is_no_answer(data: bytes) -> None:
    with pytest.raises(AnswerError):
        read(data, 1000)


@given(st.binary(max_size=200))
def test_nothing_that_comes_breaks_the_reader(data: bytes) -> None:
    with suppress(AnswerError):
        assert read(data, 7) is None or data.startswith(b"HTTP/1.")


def test_a_request_names_its_host_and_length() -> None:
    sent = request(parse_url("http://h.example:81/a?b"), "ü".encode(), {"X-Y": "z"})
    head, _, content = sent.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[:2] == ["POST /a?b HTTP/1.1", "Host: h.example:81"]
    assert {"Content-Length: 2", "Content-Type: application/json", "X-Y: z"} <= set(lines)
    assert content == "ü".encode()


def test_a_status_is_success_or_a_sentence() -> None:
    assert verdict(204) == (True, "204")
    assert verdict(500) == (False, "500")
    assert verdict(307)[0] is False
    assert "redirect" in verdict(307)[1]


def test_pauses_grow_to_an_end() -> None:
    retries = Retries()
    full = [retries.pause(made, 1.0) for made in range(1, 9)]
    assert full == [10, 30, 90, 270, 810, 2430, 3600, None]
    assert retries.pause(3, 0.0) == 45
