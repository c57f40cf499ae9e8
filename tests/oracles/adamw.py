"""Makes adamw.json: trajectories of torch.optim.AdamW behind clip_grad_norm_, f64.

Per case, two tensors, `weight` `[3, 4]` and `bias` `[5]`: their initial values, and one entry of `steps` per
step: `lr`, `grad_weight`, `grad_bias` (before clipping), `norm` (global, over both tensors, before
clipping), and the parameters after the step. `final` holds AdamW's moments after the last step.
Before each step the gradients are multiplied by min(1, max_norm / (norm + 1e-6)), which is clip_grad_norm_.
AdamW: `theta <- theta (1 - lr weight_decay)`, then `theta <- theta - lr m_hat / (sqrt(v_hat) + epsilon)` with
bias-corrected moments. Decay applies to both tensors. Inputs are exact in f32; `f32_error` is the largest
|f32 - f64| of a parameter over the whole trajectory. Some gradients are exactly 0, at one step (index 7)
all are; norms lie on both sides of `max_norm`.

Versions: torch 2.15.0, numpy 2.4.6.
Run: `python tests/oracles/adamw.py`.
"""

import numpy as np
import torch

import fixture

STEPS = 12


def trajectory(initial, grads, rates, dtype, max_norm, **settings):
    params = [torch.tensor(values, dtype=dtype).requires_grad_() for values in initial]
    optimizer = torch.optim.AdamW(params, lr=rates[0], foreach=False, **settings)
    norms, after = [], []
    for lr, step_grads in zip(rates, grads):
        optimizer.param_groups[0]["lr"] = lr
        for param, grad in zip(params, step_grads):
            param.grad = torch.tensor(grad, dtype=dtype)
        norms.append(torch.nn.utils.clip_grad_norm_(params, max_norm).item())
        optimizer.step()
        after.append([param.detach().double().numpy().copy() for param in params])
    moments = [optimizer.state[param] for param in params]
    return norms, after, moments


def case(
    name, seed, lr=1e-2, betas=(0.9, 0.999), epsilon=1e-5, weight_decay=0.0, max_norm=0.5, decay_lr=False
):
    rng = np.random.default_rng(seed)
    initial = [fixture.grid(rng, (3, 4)), fixture.grid(rng, 5)]
    grads = []
    for step in range(STEPS):
        scale = (0.02, 0.1, 3.0)[step % 3]
        grads.append([fixture.grid(rng, (3, 4), scale), fixture.grid(rng, 5, scale)])
        grads[-1][0][0, 0] = grads[-1][1][4] = 0.0
    grads[7] = [0 * grads[7][0], 0 * grads[7][1]]
    rates = [lr * (1 - step / STEPS) if decay_lr else lr for step in range(STEPS)]
    run = lambda dtype: trajectory(
        initial, grads, rates, dtype, max_norm, betas=betas, eps=epsilon, weight_decay=weight_decay
    )
    norms, after, moments = run(torch.float64)
    single = run(torch.float32)[1]
    error = max(np.abs(a - b).max() for ours, theirs in zip(after, single) for a, b in zip(ours, theirs))
    assert min(norms) < max_norm
    steps = [
        {
            "lr": rates[t],
            "grad_weight": grads[t][0],
            "grad_bias": grads[t][1],
            "norm": norms[t],
            "weight": after[t][0],
            "bias": after[t][1],
        }
        for t in range(STEPS)
    ]
    return {
        "name": name,
        "betas": list(betas),
        "epsilon": epsilon,
        "weight_decay": weight_decay,
        "max_norm": max_norm,
        "initial_weight": initial[0],
        "initial_bias": initial[1],
        "steps": steps,
        "final": {
            "first_moment_weight": moments[0]["exp_avg"],
            "first_moment_bias": moments[1]["exp_avg"],
            "second_moment_weight": moments[0]["exp_avg_sq"],
            "second_moment_bias": moments[1]["exp_avg_sq"],
        },
        "f32_error": float(f"{error:.3g}"),
    }


cases = [
    case("no decay", 0),
    case("decay 0.01", 1, weight_decay=0.01),
    case("strong decay", 2, weight_decay=0.5),
    case("epsilon 1e-8", 3, epsilon=1e-8, weight_decay=0.01),
    case("other betas", 4, betas=(0.8, 0.95), weight_decay=0.01),
    case("rate linear to 0", 5, lr=2.5e-2, decay_lr=True),
    case("clip out of reach", 6, max_norm=1000.0, weight_decay=0.01),
]
fixture.write(
    __file__,
    "torch AdamW with global-norm clipping; fields are explained in adamw.py",
    ["torch", "numpy"],
    cases,
)
