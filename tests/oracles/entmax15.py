"""Makes entmax15.json: values and gradients of entmax.entmax15, f64; simplex.py explains the fields.

Versions: entmax 1.3, torch 2.15.0, numpy 2.4.6.
Run: `python tests/oracles/entmax15.py`.
"""

from entmax import entmax15

import fixture
import simplex

# A lone largest entry is the whole support where all others are 2 or more below it.
edge = simplex.case(
    entmax15, "ties at the edge of this support", [[2.0, 0.0, 0.0, 0.0], [0.0, -2.0, -2.5, -9.0]]
)
fixture.write(
    __file__,
    "entmax.entmax15, values and gradients; fields are explained in simplex.py",
    ["entmax", "torch", "numpy"],
    simplex.cases(entmax15) + [edge],
)
