"""A tuning that goes on until it is killed: ``python endless_session.py LOG``."""

from __future__ import annotations

import pathlib
import random
import sys
import time

import computed
import planted

from polycomp.decisions import Decisions
from polycomp.tuner.database import Database
from polycomp.tuner.evolution import EvolutionarySearch
from polycomp.tuner.session import Budget, Layer, Session
from polycomp.tuner.space import Space


def make_search(space: Space) -> EvolutionarySearch:
    return EvolutionarySearch(space, [space.own], random.Random(0))


def slowly(decisions: Decisions) -> float:
    time.sleep(0.01)
    return computed.landscape(decisions)


if __name__ == "__main__":
    layer = Layer(planted.product(), 1, make_search)
    Session([layer], computed.Computed(slowly), Database(pathlib.Path(sys.argv[1]))).run(Budget())
