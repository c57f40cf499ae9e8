"""Makes sparsemax.json: values and gradients of entmax.sparsemax, f64.

Per case: `logits` `[B][K]` (null = minus infinity, a masked entry), `temperature`, `upstream` `[B][K]`,
`gates` = sparsemax(logits / temperature) and `gradient` of sum(upstream * gates) by `logits`, 0 at masked
entries. entmax subtracts the row maximum itself, but after z / temperature, and its cumulative sum meets
minus infinity; so it is given `u = (z - max z) / temperature` with masked entries at -1e6 below
the row maximum, which changes neither values (the support reaches at most 1 below the maximum) nor
gradients (constant shifts fall out). With ties at the edge of the support (u_j equal to the threshold) the
support has gates > 0 only, and so does the gradient.

Versions: entmax 1.3, torch 2.15.0, numpy 2.4.6.
Run: `python tests/oracles/sparsemax.py`.
"""

import numpy as np
import torch
from entmax import sparsemax

import fixture

INF = float("inf")


def case(name, logits, temperature=1.0, seed=0):
    logits = np.atleast_2d(np.asarray(logits, np.float64))
    upstream = fixture.grid(np.random.default_rng(seed), logits.shape)
    z = torch.from_numpy(logits).requires_grad_()
    shifted = (z - z.max(-1, keepdim=True).values.detach()) / temperature
    gates = sparsemax(torch.where(z == -INF, torch.full_like(z, -1e6), shifted), dim=-1)
    gates.backward(torch.from_numpy(upstream))
    gradient = torch.where(z == -INF, torch.zeros_like(z), z.grad)
    assert torch.all(gates[z == -INF] == 0) and torch.allclose(
        gates.sum(-1), torch.ones(len(gates), dtype=gates.dtype)
    )
    return {
        "name": name,
        "temperature": temperature,
        "logits": logits,
        "upstream": upstream,
        "gates": gates,
        "gradient": gradient,
    }


def masked(logits, rate, seed):
    hidden = np.random.default_rng(seed).random(logits.shape) < rate
    hidden[np.arange(len(logits)), logits.argmax(-1) if seed % 2 else logits.argmin(-1)] = False
    return np.where(hidden, -INF, logits)


rng = np.random.default_rng(7)
normal = lambda rows, columns, scale=1.0: fixture.grid(rng, (rows, columns), scale)
cases = [
    case("random, K 4", normal(24, 4)),
    case("random, K 2", normal(8, 2)),
    case("random, K 3", normal(8, 3)),
    case("random, K 8", normal(12, 8, 0.5), seed=1),
    case("random, K 17", normal(6, 17, 0.3), seed=2),
    case("random, K 64", normal(2, 64, 0.25), seed=3),
    case("near uniform: full support", normal(8, 4, 0.05), seed=4),
    case("temperature 0.5", normal(12, 4), 0.5, seed=5),
    case("temperature 0.25", normal(6, 6), 0.25, seed=6),
    case("temperature 2", normal(6, 6), 2.0, seed=7),
    case("temperature 10", normal(6, 4, 3.0), 10.0, seed=8),
    case("one column", [[0.0], [3.5], [-1e38]]),
    case("one column survives its mask", [[-INF, 2.0, -INF], [-4.0, -INF, -INF]]),
    case("masked", masked(normal(16, 5), 0.4, 1), seed=9),
    case("masked, temperature 0.5", masked(normal(8, 4), 0.4, 2), 0.5, seed=10),
    case("all equal", [[0.0] * 4, [1.5] * 4, [-1e30] * 4]),
    case("ties inside the support", [[1.0, 1.0, 0.5, 0.5], [0.25, 0.0, 0.25, 0.0], [0.5, 0.5, 0.5, 0.25]]),
    case("ties outside the support", [[3.0, 0.0, 0.0, 0.0], [2.0, 2.0, 0.5, 0.5]]),
    case(
        "ties at the edge of the support",
        [[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.0, -1.0, -1.0, -2.0]],
    ),
    case("closed form", [[3.0, 0.0], [0.5, 0.0], [0.0, 0.0]]),
    case("huge", [[1e38, -1e38, 0.0], [1e38, 1e38, -1e38], [-1e38, -1e38, -1e38], [1e6, 999999.5, 0.0]]),
    case("huge, temperature 0.5", [[1e38, 9e37, -1e38], [-1e38, -1e38, -9e37]], 0.5),
    case("tiny", [[1e-38, 0.0, -1e-38], [1e-6, 2e-6, 0.0]]),
]
fixture.write(
    __file__,
    "entmax.sparsemax, values and gradients; fields are explained in sparsemax.py",
    ["entmax", "torch", "numpy"],
    cases,
)
