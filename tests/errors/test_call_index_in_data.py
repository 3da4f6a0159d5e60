"""An index among the data that lies outside of the tensor it chooses from."""

from __future__ import annotations

import numpy as np
from mistakes import array, fails

import polycomp as pc
from polycomp.errors import ExecutionError


def test_call_index_in_data() -> None:
    table, rows = pc.placeholder((4, 6), name="table"), pc.placeholder((3,), "int64", "rows")
    chosen = pc.compute((3, 6), lambda i, j: table[rows[i], j], "chosen")
    choose = pc.build(pc.Schedule(chosen))
    data = array(4, 6)
    assert (choose(data, np.array([3, 0, 3])) == data[[3, 0, 3]]).all()
    for wrong in (4, -1, 10**12):
        message = (
            f"a run of 'kernel' failed: the index {wrong} is outside of a dimension of size 4 of 'table', in 'kernel'; "
            f"give indices within it"
        )
        with fails(ExecutionError, message):
            choose(data, np.array([0, wrong, 0]))
