"""Frames: every message survives the way, and nothing else gets through."""

from __future__ import annotations

import types
import typing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dq.executor import frames
from dq.executor.contract import Outcome
from dq.executor.frames import HEAD, BadFrame, Claim, Context, Flush, Hello, Message, Results, decode, encode

KINDS: tuple[type[Message], ...] = typing.get_args(frames.Any)


def sample(kind: object) -> object:
    """Some value of a type that messages use."""
    plain: dict[object, object] = {int: 1 << 62, str: "text é", bytes: b"\0\xff", bool: True}
    if kind in plain:
        return plain[kind]
    if kind is typing.Any:
        return "whatever it is"
    if kind is Context:
        return Context("python", "script.py", "/", ("a", "b"), "hash")
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind(*[sample(field.type) for field in msgspec.structs.fields(kind)])
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return sample(inside[0])
    if origin is typing.Annotated:
        pattern = inside[1].pattern
        return pattern.strip("^()$").split("|")[0] if pattern else sample(inside[0])
    if origin is list:
        return [sample(inside[0])] * 2
    assert origin is tuple, kind
    return tuple(sample(part) for part in inside)


def message(kind: type[Message]) -> Message:
    fields = msgspec.structs.fields(kind)
    return kind(*[sample(field.type) for field in fields])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_message_survives(kind: type[Message]) -> None:
    sent = message(kind)
    frame = encode(sent)
    assert HEAD.unpack_from(frame)[0] == len(frame) - 4
    assert decode(frame[4:]) == sent
    assert decode(memoryview(frame)[4:]) == sent


def test_all_messages_are_known_and_tags_are_unique() -> None:
    kinds = {value for value in vars(frames).values() if isinstance(value, type) and issubclass(value, Message)}
    assert kinds - {Message} == set(KINDS)
    tags = [kind.__struct_config__.tag for kind in KINDS]
    assert len(set(tags)) == len(tags)


def test_an_outcome_is_a_row_of_results() -> None:
    rows: list[typing.Any] = [Outcome(1, 0, b"p", 3, 4)]
    assert decode(encode(Results(9, rows))[4:]) == Results(9, [(1, 0, b"p", 3, 4)])


@given(st.binary(max_size=200))
def test_garbage_is_refused(body: bytes) -> None:
    try:
        found = decode(body)
    except BadFrame:
        return
    assert isinstance(found, KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_cut_frame_is_refused(kind: type[Message]) -> None:
    body = encode(message(kind))[4:]
    for length in range(len(body)):
        with pytest.raises(BadFrame):
            decode(body[:length])


@pytest.mark.parametrize(
    "content",
    [["x"], [7], [250, 1], [25, "seven"], [25, None], [50, 1, [[1, 2, 3]]], [50, 1, [[1, 2, 3, "text"]]], {}, None, 25],
)
def test_wrong_shapes_are_refused(content: object) -> None:
    with pytest.raises(BadFrame):
        decode(msgspec.msgpack.encode(content))


def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(BadFrame):
        decode(b"\x91" * 100_000)


def test_messages_are_values() -> None:
    assert Flush(1) == Flush(1)
    with pytest.raises(AttributeError):
        Flush(1).ticket = 2  # type: ignore[misc]
    assert Claim(1, []) != Claim(2, [])
    assert Hello(1, 2, b"", None).context is None
