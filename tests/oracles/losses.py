"""Makes losses.json: the auxiliary losses on routers and experts, values and gradients, in torch f64.

Per case: `z` `[B, K]` router logits, `temperature`, `routing` ("softmax" or "sparsemax"), `gates` `[B, K]`
= routing(z / temperature), `expert_logits` `[B, K, A]`, `mask` `[B, A]` (true = allowed), `target` `[B, K]`
(each row a distribution). With p = softmax(z / temperature), each of `losses` has `value` and `grad_z`
`[B, K]` and, where it reads them, `grad_expert_logits` `[B, K, A]`:
- `balance_mse` = mean_k (mean_b p_bk - 1/K)^2
- `balance_switch` = K sum_k f_k mean_b p_bk, f_k = mean_b [gate_bk > 0] / |S_b|, constant for the gradient
- `diversity` = mean over b and pairs i < j of cos_ij
- `semantic` = mean over b and pairs i != j of |cos_ij|
- `overlap` = mean_b sum_{i != j} gate_i gate_j cos_ij
- `alpha_entropy` = mean_b -sum over the support of gate ln gate (no coefficient, no sign)
- `alignment` = mean_b sum_k target ln(target / p), 0 ln 0 = 0
- `router_z` = mean_b logsumexp(z)^2, z before the temperature
cos(x, y) = <x, y> / sqrt((|x|^2 + d)(|y|^2 + d)), d = 0.01 A with A all actions, of logits centred over the
allowed actions with masked entries 0. Rows with one allowed action have cos 0.
Sparsemax is entmax's, given z / temperature. Inputs but `target` are exact in f32.

Versions: entmax 1.3, torch 2.15.0, numpy 2.4.6.
Run: `python tests/oracles/losses.py`.
"""

import numpy as np
import torch
from entmax import sparsemax

import fixture


def cosines(expert_logits, mask):
    allowed = mask[:, None, :].double()  # [B, 1, A]
    mean = (expert_logits * allowed).sum(-1, keepdim=True) / allowed.sum(-1, keepdim=True)
    centred = (expert_logits - mean) * allowed
    squares = (centred**2).sum(-1) + 0.01 * mask.shape[-1]  # [B, K]
    return centred @ centred.transpose(1, 2) / torch.sqrt(squares[:, :, None] * squares[:, None, :])


def all_losses(z, gates, probabilities, expert_logits, mask, target):
    num_experts = z.shape[1]
    cos = cosines(expert_logits, mask)
    upper = torch.ones(num_experts, num_experts).triu(1).bool()
    apart = ~torch.eye(num_experts, dtype=torch.bool)
    support = gates > 0
    f = (support.double() / support.sum(-1, keepdim=True)).mean(0).detach()
    pairs = gates[:, :, None] * gates[:, None, :] * cos
    xlogx = lambda x: x * torch.where(x > 0, x, 1.0).log()
    return {
        "balance_mse": ((probabilities.mean(0) - 1 / num_experts) ** 2).mean(),
        "balance_switch": num_experts * (f * probabilities.mean(0)).sum(),
        "diversity": cos[:, upper].mean(),
        "semantic": cos[:, apart].abs().mean(),
        "overlap": pairs[:, apart].sum(-1).mean(),
        "alpha_entropy": -xlogx(gates).sum(-1).mean(),
        "alignment": (xlogx(target) - target * probabilities.log()).sum(-1).mean(),
        "router_z": (z.logsumexp(-1) ** 2).mean(),
    }


def case(
    name, seed, routing, temperature, batch=6, experts=4, actions=5, masked=0.0, scale=1.0, logit_scale=1.0
):
    rng = np.random.default_rng(seed)
    mask = rng.random((batch, actions)) >= masked
    mask[np.arange(batch), rng.integers(actions, size=batch)] = True
    if masked:
        mask[0] = np.arange(actions) == 1
    target = np.exp(fixture.grid(rng, (batch, experts)))
    target[0] = np.eye(experts)[0]
    z = torch.tensor(fixture.grid(rng, (batch, experts), scale)).requires_grad_()
    expert_logits = torch.tensor(fixture.grid(rng, (batch, experts, actions), logit_scale)).requires_grad_()
    target = torch.tensor(target / target.sum(-1, keepdims=True))
    gates = {"softmax": torch.softmax, "sparsemax": sparsemax}[routing](z / temperature, -1)
    probabilities = torch.softmax(z / temperature, -1)
    mask = torch.tensor(mask)
    losses = {}
    for loss, value in all_losses(z, gates, probabilities, expert_logits, mask, target).items():
        of_z, of_logits = (
            torch.autograd.grad(value, (z, expert_logits), retain_graph=True, allow_unused=True)
            if value.requires_grad
            else (None, None)
        )
        losses[loss] = {"value": value, "grad_z": torch.zeros_like(z) if of_z is None else of_z}
        if of_logits is not None:
            assert torch.all(of_logits.transpose(1, 2)[~mask] == 0)
            losses[loss]["grad_expert_logits"] = of_logits
    return {
        "name": name,
        "routing": routing,
        "temperature": temperature,
        "z": z,
        "gates": gates,
        "expert_logits": expert_logits,
        "mask": mask,
        "target": target,
        "losses": losses,
    }


cases = [
    case("softmax", 0, "softmax", 1.0),
    case("softmax, temperature 0.5, masked", 1, "softmax", 0.5, actions=6, masked=0.3),
    case("softmax, temperature 2", 2, "softmax", 2.0, experts=3, actions=3),
    case("sparsemax", 3, "sparsemax", 1.0),
    case("sparsemax, temperature 0.5, masked", 4, "sparsemax", 0.5, actions=6, masked=0.3),
    case("sparsemax, nearly uniform", 5, "sparsemax", 0.5, scale=0.05),
    case("sparsemax, one-hot gates", 6, "sparsemax", 0.5, scale=4.0),
    case("two experts", 7, "sparsemax", 0.75, experts=2, actions=4, masked=0.2),
    case("eight experts", 8, "sparsemax", 0.5, batch=4, experts=8, actions=4, scale=0.4),
    case("small logits, as at initialisation", 9, "softmax", 1.0, logit_scale=0.02, scale=0.1),
]
fixture.write(
    __file__,
    "Auxiliary losses in torch, f64; fields are explained in losses.py",
    ["entmax", "torch", "numpy"],
    cases,
)
