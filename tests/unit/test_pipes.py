from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from nbtools.execution.kernels.warm import wire
from nbtools.execution.kernels.warm.pipes import Pipe, Pipes


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    out, into = os.pipe()
    os.set_blocking(out, False)
    yield out, into
    os.close(out)
    os.close(into)


def test_what_was_unread_when_a_frame_was_sent_comes_before_it_and_the_rest_after(
    ends: tuple[int, int],
) -> None:
    pipe = Pipe(ends[0])
    os.write(ends[1], b"one ")
    sent = time.monotonic_ns()
    os.write(ends[1], b"two ")
    pipe.read()
    assert pipe.before(sent, 4) == b"one "
    assert pipe.rest() == b"two "


def test_what_was_read_before_a_frame_was_sent_comes_before_it(ends: tuple[int, int]) -> None:
    pipe = Pipe(ends[0])
    os.write(ends[1], b"one ")
    pipe.read()
    sent = time.monotonic_ns()
    assert pipe.before(sent, 0) == b"one "


def test_bytes_that_two_frames_have_counted_as_unread_are_taken_out_once(ends: tuple[int, int]) -> None:
    pipe = Pipe(ends[0])
    os.write(ends[1], b"one ")
    first = time.monotonic_ns()
    os.write(ends[1], b"two ")
    second = time.monotonic_ns()
    os.write(ends[1], b"three ")
    assert pipe.before(first, 4) == b"one "
    assert pipe.before(second, 8) == b"two "
    pipe.read()
    assert pipe.rest() == b"three "


def test_a_frame_that_counted_what_is_gone_waits_for_nothing(ends: tuple[int, int]) -> None:
    pipe = Pipe(ends[0])
    assert pipe.before(time.monotonic_ns(), 100) == b""


def test_each_pipe_is_counted_by_itself(ends: tuple[int, int]) -> None:
    out, into = os.pipe()
    os.set_blocking(out, False)
    pipes = Pipes({wire.STDOUT: ends[0], wire.STDERR: out})
    os.write(ends[1], b"printed")
    os.write(into, b"warned")
    pipes.read()
    assert list(pipes.before(0, {wire.STDOUT: 0, wire.STDERR: 6})) == [(wire.STDERR, b"warned")]
    assert list(pipes.rest()) == [(wire.STDOUT, b"printed")]
    os.close(out)
    os.close(into)
