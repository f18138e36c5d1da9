"""Signals that ask a process to end: as an exception, or later than a block that must not be left half done."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

ENDING = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """SIGTERM came, where nothing else was in charge of it."""


@contextmanager
def raising_terminated() -> Iterator[None]:
    """Inside, SIGTERM raises Terminated, so that what is open is closed and unfinished files go; a handler that
    somebody else has set stays."""
    ours = _set({signal.SIGTERM: _raise}) if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL else {}
    try:
        yield
    finally:
        _set(ours)


@contextmanager
def held_back() -> Iterator[None]:
    """Signals that ask to end wait until the block is done."""
    came: list[int] = []
    previous = _set({number: lambda number, _: came.append(number) for number in ENDING})
    try:
        yield
    finally:
        _set(previous)
        for number in came:
            signal.raise_signal(number)


def _set(handlers: dict) -> dict:
    """Set handlers; returns those before.  Outside the main thread signals are somebody else's."""
    previous = {}
    for number, handler in handlers.items():
        try:
            previous[number] = signal.signal(number, handler)
        except ValueError:
            break
        if previous[number] is None:  # not set from Python, so that it cannot be set again
            previous[number] = signal.SIG_DFL
    return previous


def _raise(number, frame) -> None:
    raise Terminated
