from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens.errors import TeacherError
from manylens.teacher.backends.failures import PassingFault, Refused, check_response, retry_after, server_message

ERROR = json.dumps({"error": {"message": "this is why", "type": "x"}}).encode()


def test_a_good_response_passes() -> None:
    check_response(200, {}, b"whatever")


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_faults_that_pass(status: int) -> None:
    with pytest.raises(PassingFault, match=f"HTTP {status}: this is why") as caught:
        check_response(status, {}, ERROR)
    assert caught.value.overload == (status == 429 or status >= 500)
    assert caught.value.retry_after == 0.0


@pytest.mark.parametrize("status", [400, 403, 413, 422])
def test_refusals_of_a_request(status: int) -> None:
    with pytest.raises(Refused, match=f"HTTP {status}: this is why") as caught:
        check_response(status, {}, ERROR)
    assert caught.value.kind == f"HTTP {status}"


@pytest.mark.parametrize("status", [301, 307, 401, 402, 404, 405])
def test_what_no_request_gets_past(status: int) -> None:
    with pytest.raises(TeacherError, match=f"HTTP {status}: this is why"):
        check_response(status, {}, ERROR)


def test_an_account_without_money_is_no_passing_fault() -> None:
    body = json.dumps({"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}).encode()
    with pytest.raises(TeacherError, match="You exceeded your quota"):
        check_response(429, {"Retry-After": "1"}, body)


def test_retry_after_reaches_the_fault() -> None:
    with pytest.raises(PassingFault) as caught:
        check_response(503, {"Retry-After": "7"}, b"")
    assert caught.value.retry_after == 7.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, 0.0), ("0", 0.0), ("12", 12.0), ("0.25", 0.25), ("-3", 0.0), ("soon", 0.0), ("", 0.0), ("999999", 3600.0)],
)
def test_retry_after_in_seconds(value: str | None, seconds: float) -> None:
    assert retry_after(value) == seconds


def test_retry_after_as_a_date() -> None:
    now = datetime.now(UTC)
    assert 25 < retry_after(format_datetime(now + timedelta(seconds=30), usegmt=True)) <= 30
    assert retry_after(format_datetime(now - timedelta(seconds=30), usegmt=True)) == 0.0


@given(st.text(max_size=60))
def test_retry_after_takes_any_text(value: str) -> None:
    assert 0.0 <= retry_after(value) <= 3600.0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "too\\n long"}}', "too long"),
        (b'{"error": "model not found"}', "model not found"),
        (b'{"message": "of vLLM", "code": 400}', "of vLLM"),
        (b'{"detail": "of FastAPI"}', "of FastAPI"),
        (b'{"detail": [{"msg": "missing"}]}', "[{'msg': 'missing'}]"),
        (b'{"other": 1}', '{"other": 1}'),
        (b"<html>\n<h1>Bad gateway</h1>", "<html> <h1>Bad gateway</h1>"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"", "no message"),
        (b"null", "null"),
        (b"x" * 1000, "x" * 300 + " ..."),
    ],
)
def test_the_servers_message(body: bytes, message: str) -> None:
    assert server_message(body) == message


@given(st.binary(max_size=80))
def test_the_servers_message_takes_any_body(body: bytes) -> None:
    assert server_message(body)
