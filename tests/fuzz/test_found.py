"""What the sweeps over frames and bytes have found, each as a case of its own."""

from __future__ import annotations

import msgspec
import pytest

from dq.executor import options


def test_options_whose_text_is_no_text_are_none() -> None:
    packed = options.pack(options.Options(on_crash="park", version="v")).replace(b"park", b"p\xffrk")
    with pytest.raises(msgspec.MsgspecError):
        options.unpack(packed)
