"""Frames over a stream socket: how the orchestrator and a forked kernel talk.

A frame is one byte of kind, four of length, and a payload. Text that a cell prints goes as it is; everything
else is a Jupyter message as JSON with its binary buffers behind it. Standard library only.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

STDOUT, STDERR, MESSAGE = b"o", b"e", b"m"
#: Says when the next frame was sent, and how much of what programs had printed was unread then.
MARK = b"t"
_HEAD = struct.Struct(">cI")
_SIZE = struct.Struct(">I")
_MARK = struct.Struct(">QII")


def packed(kind: bytes, payload: bytes) -> bytes:
    """Return a frame."""
    return _HEAD.pack(kind, len(payload)) + payload


def packed_mark(sent_ns: int, stdout: int, stderr: int) -> bytes:
    """Return a mark: nanoseconds of the monotonic clock, and bytes in each pipe."""
    return packed(MARK, _MARK.pack(sent_ns, stdout, stderr))


def unpacked_mark(payload: bytes) -> tuple[int, dict[bytes, int]]:
    """Return when the next frame was sent, and how many bytes of each kind come before it."""
    sent_ns, stdout, stderr = _MARK.unpack(payload)
    return sent_ns, {STDOUT: stdout, STDERR: stderr}


def packed_message(
    message: Any, buffers: Sequence[Any] = (), default: Callable[[Any], Any] | None = None
) -> bytes:
    """Return a message, and the bytes that belong to it, as a frame.

    Raises
    ------
    ValueError
        If it holds NaN or an infinity, which JSON does not know.
    """
    parts = [bytes(memoryview(item).cast("B")) for item in buffers]
    body = json.dumps(
        {"message": message, "buffers": [len(part) for part in parts]}, default=default, allow_nan=False
    )
    text = body.encode("ascii")
    return packed(MESSAGE, b"".join([_SIZE.pack(len(text)), text, *parts]))


def unpacked_message(payload: bytes) -> tuple[Any, list[bytes]]:
    """Return what ``packed_message`` was given."""
    (size,) = _SIZE.unpack_from(payload)
    end = _SIZE.size + size
    record = json.loads(payload[_SIZE.size : end])
    buffers = []
    for length in record["buffers"]:
        buffers.append(payload[end : end + length])
        end += length
    return record["message"], buffers


class Frames:
    """Frames out of bytes that arrive in pieces."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """Take in some bytes and return kind and payload of each frame that is complete now."""
        self._bytes += data
        complete = []
        start = 0
        while len(self._bytes) - start >= _HEAD.size:
            kind, length = _HEAD.unpack_from(self._bytes, start)
            end = start + _HEAD.size + length
            if len(self._bytes) < end:
                break
            complete.append((kind, bytes(self._bytes[start + _HEAD.size : end])))
            start = end
        del self._bytes[:start]
        return complete
