"""Payloads hold what was put in, and tell when they no longer do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dq.errors import DamagedPayload
from dq.model.payload import FAILURE, FILE, PICKLE, SIGNED, is_failure, seal, unseal


@given(
    tag=st.sampled_from([PICKLE, FILE, FAILURE]), body=st.binary(max_size=9000).filter(lambda body: body[:1] != SIGNED)
)
def test_what_is_sealed_comes_out(tag: bytes, body: bytes) -> None:
    found, content = unseal(seal(tag, body))
    assert (found, bytes(content)) == (tag, body)


@given(body=st.binary(min_size=1, max_size=5000), where=st.integers(min_value=0), bit=st.integers(0, 7))
def test_a_flipped_bit_is_seen(body: bytes, where: int, bit: int) -> None:
    payload = bytearray(seal(PICKLE, body))
    payload[where % len(payload)] ^= 1 << bit
    if bytes(payload[:1]) in (FILE, FAILURE):  # still a payload, of another kind
        return
    with pytest.raises(DamagedPayload):
        unseal(bytes(payload))


@pytest.mark.parametrize("payload", [b"", b"p", b"p\0\0\0", b"x" + seal(PICKLE, b"abc")[1:], seal(PICKLE, b"abc")[:-1]])
def test_what_is_no_payload_is_refused(payload: bytes) -> None:
    with pytest.raises(DamagedPayload):
        unseal(payload)


def test_a_large_body_is_not_copied() -> None:
    payload = seal(PICKLE, bytes(100_000))
    _, body = unseal(payload)
    assert isinstance(body, memoryview)
    assert body.obj is payload


def test_failures_are_known_by_their_tag() -> None:
    assert is_failure(seal(FAILURE, b""))
    assert not is_failure(seal(PICKLE, b""))
    assert not is_failure(b"")
