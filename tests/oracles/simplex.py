"""Cases of projections on the simplex, shared by sparsemax.py and entmax15.py.

Per case: `logits` `[B][K]` (null = minus infinity, a masked entry), `temperature`, `upstream` `[B][K]`,
`gates` = project(logits / temperature) and `gradient` of sum(upstream * gates) by `logits`, 0 at masked
entries. entmax subtracts the row maximum itself, but after z / temperature, and its cumulative sum meets
minus infinity; so it is given `u = (z - max z) / temperature` with masked entries at -1e6 below
the row maximum, which changes neither values (a support reaches at most 2 below the maximum) nor
gradients (constant shifts fall out). With ties at the edge of the support the support has gates > 0 only,
and so does the gradient.
"""

import numpy as np
import torch

import fixture

INF = float("inf")


def case(project, name, logits, temperature=1.0, seed=0):
    logits = np.atleast_2d(np.asarray(logits, np.float64))
    upstream = fixture.grid(np.random.default_rng(seed), logits.shape)
    z = torch.from_numpy(logits).requires_grad_()
    shifted = (z - z.max(-1, keepdim=True).values.detach()) / temperature
    gates = project(torch.where(z == -INF, torch.full_like(z, -1e6), shifted), dim=-1)
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


def cases(project):
    """The cases for one projection; the same inputs for all."""
    rng = np.random.default_rng(7)
    normal = lambda rows, columns, scale=1.0: fixture.grid(rng, (rows, columns), scale)
    of = lambda *arguments, **options: case(project, *arguments, **options)
    return [
        of("random, K 4", normal(24, 4)),
        of("random, K 2", normal(8, 2)),
        of("random, K 3", normal(8, 3)),
        of("random, K 8", normal(12, 8, 0.5), seed=1),
        of("random, K 17", normal(6, 17, 0.3), seed=2),
        of("random, K 64", normal(2, 64, 0.25), seed=3),
        of("near uniform: full support", normal(8, 4, 0.05), seed=4),
        of("temperature 0.5", normal(12, 4), 0.5, seed=5),
        of("temperature 0.25", normal(6, 6), 0.25, seed=6),
        of("temperature 2", normal(6, 6), 2.0, seed=7),
        of("temperature 10", normal(6, 4, 3.0), 10.0, seed=8),
        of("one column", [[0.0], [3.5], [-1e38]]),
        of("one column survives its mask", [[-INF, 2.0, -INF], [-4.0, -INF, -INF]]),
        of("masked", masked(normal(16, 5), 0.4, 1), seed=9),
        of("masked, temperature 0.5", masked(normal(8, 4), 0.4, 2), 0.5, seed=10),
        of("all equal", [[0.0] * 4, [1.5] * 4, [-1e30] * 4]),
        of("ties inside the support", [[1.0, 1.0, 0.5, 0.5], [0.25, 0.0, 0.25, 0.0], [0.5, 0.5, 0.5, 0.25]]),
        of("ties outside the support", [[3.0, 0.0, 0.0, 0.0], [2.0, 2.0, 0.5, 0.5]]),
        of(
            "ties at the edge of the support",
            [[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.0, -1.0, -1.0, -2.0]],
        ),
        of("closed form", [[3.0, 0.0], [0.5, 0.0], [0.0, 0.0]]),
        of("huge", [[1e38, -1e38, 0.0], [1e38, 1e38, -1e38], [-1e38, -1e38, -1e38], [1e6, 999999.5, 0.0]]),
        of("huge, temperature 0.5", [[1e38, 9e37, -1e38], [-1e38, -1e38, -9e37]], 0.5),
        of("tiny", [[1e-38, 0.0, -1e-38], [1e-6, 2e-6, 0.0]]),
    ]
