"""Makes sparsemax.json: values and gradients of entmax.sparsemax, f64; simplex.py explains the fields.

Versions: entmax 1.3, torch 2.15.0, numpy 2.4.6.
Run: `python tests/oracles/sparsemax.py`.
"""

from entmax import sparsemax

import fixture
import simplex

fixture.write(
    __file__,
    "entmax.sparsemax, values and gradients; fields are explained in simplex.py",
    ["entmax", "torch", "numpy"],
    simplex.cases(sparsemax),
)
