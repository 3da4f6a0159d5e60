"""What thinks and what is timed exclude each other, and nobody starves."""

from __future__ import annotations

import threading

from polycomp.tuner.turns import Turns


def test_a_thought_waits_for_the_end_of_a_timing_and_goes_before_the_next() -> None:
    turns, events = Turns(), list[str]()
    thinker_waits = threading.Event()

    def think() -> None:
        thinker_waits.set()
        with turns.thinking():
            events.append("thought")

    def time() -> None:
        with turns.timing():
            events.append("next timing")

    with turns.timing():
        thinker = threading.Thread(target=think)
        thinker.start()
        thinker_waits.wait()
        while not turns.is_awaited:
            pass
        events.append("timing")
    timer = threading.Thread(target=time)
    timer.start()
    thinker.join()
    timer.join()
    assert events == ["timing", "thought", "next timing"]


def test_a_timing_waits_for_the_end_of_a_thought() -> None:
    turns, events = Turns(), list[str]()

    def time() -> None:
        with turns.timing():
            events.append("timing")

    timer = threading.Thread(target=time)
    with turns.thinking():
        timer.start()
        timer.join(0.05)
        events.append("thought")
    timer.join()
    assert events == ["thought", "timing"]


def test_an_error_ends_a_turn() -> None:
    turns = Turns()
    for turn in (turns.thinking, turns.timing):
        try:
            with turn():
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
    with turns.thinking():
        pass
    with turns.timing():
        pass
