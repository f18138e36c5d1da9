"""Signals that ask to end become an exception, or wait."""

import os
import signal

import pytest

from lib.utils.signals import Terminated, held_back, raising_terminated


def send(number):
    os.kill(os.getpid(), number)


def test_sigterm_raises_inside_and_is_as_before_outside():
    before = signal.getsignal(signal.SIGTERM)
    assert before == signal.SIG_DFL
    cleaned = []
    with pytest.raises(Terminated), raising_terminated():
        try:
            send(signal.SIGTERM)
        finally:
            cleaned.append(1)
    assert cleaned and signal.getsignal(signal.SIGTERM) == before


def test_a_handler_of_somebody_else_stays():
    came = []
    previous = signal.signal(signal.SIGTERM, lambda *_: came.append(1))
    try:
        with raising_terminated():
            send(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert came


def test_signals_wait_until_the_block_is_done():
    done = []
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background lacks
    with pytest.raises(KeyboardInterrupt), held_back():
        send(signal.SIGINT)
        send(signal.SIGINT)
        done.append(1)
    assert done
    signal.signal(signal.SIGINT, previous)
    with pytest.raises(Terminated), raising_terminated(), held_back():
        send(signal.SIGTERM)
        done.append(2)
    assert done == [1, 2]


def test_ignored_signals_stay_ignored():
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with held_back():
            send(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)
