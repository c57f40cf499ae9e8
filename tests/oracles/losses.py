"""Makes losses.json: the auxiliary losses, values and gradients, in torch f64.

Every case has `rows` `[B]` of [segment, episode ends here], from which torch's pairs and triples of
consecutive rows of one episode are found, and `losses`: per loss `value` and `grad_INPUT` for each input
that it reads, absent for a gradient of 0 everywhere.

Cases of kind "router" have `z` `[B, K]` router logits, `temperature`, `routing` ("softmax" or "sparsemax"),
`gates` `[B, K]` = routing(z / temperature), `expert_logits` `[B, K, A]`, `mask` `[B, A]` (true = allowed),
`target` `[B, K]` (each row a distribution). With p = softmax(z / temperature):
- `balance_mse` = mean_k (mean_b p_bk - 1/K)^2
- `balance_switch` = K sum_k f_k mean_b p_bk, f_k = mean_b [gate_bk > 0] / |S_b|, constant for the gradient
- `importance` = Var_k(I) / Mean_k(I)^2, I_k = sum_b p_bk, population variance
- `diversity` = mean over b and pairs i < j of cos_ij
- `semantic` = mean over b and pairs i != j of |cos_ij|
- `overlap` = mean_b sum_{i != j} gate_i gate_j cos_ij
- `alpha_entropy` = mean_b -sum over the support of gate ln gate (no coefficient, no sign)
- `alignment` = mean_b sum_k target ln(target / p), 0 ln 0 = 0
- `router_z` = mean_b logsumexp(z)^2, z before the temperature
- `temporal` = mean over pairs (s, t) and k of (gate_tk - gate_sk)^2
- `pet_gates` = mean over triples (r, s, t) and k of (gate_tk - 2 gate_sk + gate_rk)^2
cos(x, y) = <x, y> / sqrt((|x|^2 + d)(|y|^2 + d)), d = 0.01 A with A all actions, of logits centred over the
allowed actions with masked entries 0. Rows with one allowed action have cos 0.
Sparsemax is entmax's, given z / temperature. Inputs but `target` are exact in f32.

Cases of kind "graph" have `z` and `temperature` as above, `scores` `[B, O]` of operators, `experts` `[O]`
(the expert of each operator, -1 for none), `target_temperature`, `target` `[B, K]`, `h` `[B, D]`, `operator_logits`
and `activations` `[B, O]`, `offsets` (CSR rows of edges by target), `attention` `[B, E, H]` with weights in
multiples of 1/64 that sum to 1 per target, and `huber`:
- `alignment` = mean_b KL(target || p), target = softmax(mean score of expert k's operators / target_temperature)
  over the experts that have operators, 0 for the others, constant for the gradient
- `pet` = mean over triples and D of (h_t - 2 h_s + h_r)^2; `pet_huber` = 2 * torch's huber_loss in its place
- `next_operator` = mean over pairs (s, t) and O of torch's BCE with logits of s and activations of t
- `gini` = mean over b, targets with n > 1 in-edges and H of sum_ij |w_i - w_j| / (2 n)
- `gini_loss` = (gini - 0.3)^2

Versions: entmax 1.3, torch 2.15.0, numpy 2.4.6.
Run: `python tests/oracles/losses.py`.
"""

import numpy as np
import torch
from entmax import sparsemax

import fixture


def runs(rows, length):
    """Lists of `length` consecutive rows of one segment with no episode end before the last."""
    starts = range(len(rows) - length + 1)
    inside = lambda i: len({rows[i + j][0] for j in range(length)}) == 1
    unbroken = lambda i: not any(rows[i + j][1] for j in range(length - 1))
    return torch.tensor([[i + j for j in range(length)] for i in starts if inside(i) and unbroken(i)])


def temporal(gates, rows):
    pairs = runs(rows, 2)
    if len(pairs) == 0:
        return torch.tensor(0.0, dtype=torch.float64)
    return torch.nn.functional.mse_loss(gates[pairs[:, 1]], gates[pairs[:, 0]])


def pet(h, rows, penalty=torch.square):
    triples = runs(rows, 3)
    if len(triples) == 0:
        return torch.tensor(0.0, dtype=torch.float64)
    return penalty(torch.diff(h[triples], n=2, dim=1)).mean()


def cosines(expert_logits, mask):
    allowed = mask[:, None, :].double()  # [B, 1, A]
    mean = (expert_logits * allowed).sum(-1, keepdim=True) / allowed.sum(-1, keepdim=True)
    centred = (expert_logits - mean) * allowed
    squares = (centred**2).sum(-1) + 0.01 * mask.shape[-1]  # [B, K]
    return centred @ centred.transpose(1, 2) / torch.sqrt(squares[:, :, None] * squares[:, None, :])


def xlogx(x):
    return x * torch.where(x > 0, x, 1.0).log()


def router_losses(z, gates, probabilities, expert_logits, mask, target, rows):
    num_experts = z.shape[1]
    cos = cosines(expert_logits, mask)
    upper = torch.ones(num_experts, num_experts).triu(1).bool()
    apart = ~torch.eye(num_experts, dtype=torch.bool)
    support = gates > 0
    f = (support.double() / support.sum(-1, keepdim=True)).mean(0).detach()
    pairs = gates[:, :, None] * gates[:, None, :] * cos
    importance = probabilities.sum(0)
    return {
        "balance_mse": ((probabilities.mean(0) - 1 / num_experts) ** 2).mean(),
        "balance_switch": num_experts * (f * probabilities.mean(0)).sum(),
        "importance": importance.var(correction=0) / importance.mean() ** 2,
        "diversity": cos[:, upper].mean(),
        "semantic": cos[:, apart].abs().mean(),
        "overlap": pairs[:, apart].sum(-1).mean(),
        "alpha_entropy": -xlogx(gates).sum(-1).mean(),
        "alignment": (xlogx(target) - target * probabilities.log()).sum(-1).mean(),
        "router_z": (z.logsumexp(-1) ** 2).mean(),
        "temporal": temporal(gates, rows),
        "pet_gates": pet(gates, rows),
    }


def gini(attention, offsets):
    degrees = [(start, end) for start, end in zip(offsets, offsets[1:]) if end - start > 1]
    per_target = [
        (w[:, :, None] - w[:, None, :]).abs().sum((1, 2)) / (2 * w.shape[1])  # [B, H]
        for w in (attention[:, start:end] for start, end in degrees)
    ]
    return torch.stack(per_target).mean()


def alignment_target(scores, experts, num_experts, temperature):
    """Row by row from the definition, in plain Python."""
    target = torch.zeros(len(scores), num_experts, dtype=torch.float64)
    for b, row in enumerate(scores.tolist()):
        means = {}
        for k in sorted(set(experts) - {-1}):
            own = [score for score, expert in zip(row, experts) if expert == k]
            means[k] = np.exp(sum(own) / len(own) / temperature)
        for k, weight in means.items():
            target[b, k] = weight / sum(means.values())
    return target


def graph_losses(z, temperature, target, h, operator_logits, activations, attention, offsets, rows, huber):
    pairs = runs(rows, 2)
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits
    log_p = torch.log_softmax(z / temperature, -1)
    spread = gini(attention, offsets)
    twice_huber = lambda e: 2 * torch.nn.functional.huber_loss(e, torch.zeros_like(e), delta=huber)
    return {
        "alignment": torch.nn.functional.kl_div(log_p, target, reduction="batchmean"),
        "pet": pet(h, rows),
        "pet_huber": pet(h, rows, twice_huber),
        "next_operator": cross_entropy(operator_logits[pairs[:, 0]], activations[pairs[:, 1]]),
        "gini": spread,
        "gini_loss": (spread - 0.3) ** 2,
    }


def with_gradients(losses, inputs):
    """Each loss as its value and its gradients by the named inputs."""
    result = {}
    for name, value in losses.items():
        result[name] = {"value": value}
        if not value.requires_grad:
            continue
        gradients = torch.autograd.grad(value, list(inputs.values()), retain_graph=True, allow_unused=True)
        for input, gradient in zip(inputs, gradients):
            if gradient is not None:
                result[name][f"grad_{input}"] = gradient
    return result


def draw_rows(rng, batch, ends=0.2):
    """Two segments, with episode ends drawn at random."""
    return [(int(b >= batch * 2 // 3), bool(rng.random() < ends)) for b in range(batch)]


def router_case(
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
    rows = draw_rows(rng, batch)
    values = router_losses(z, gates, probabilities, expert_logits, mask, target, rows)
    losses = with_gradients(values, {"z": z, "expert_logits": expert_logits})
    for gradient in (loss.get("grad_expert_logits") for loss in losses.values()):
        assert gradient is None or torch.all(gradient.transpose(1, 2)[~mask] == 0)
    return {
        "kind": "router",
        "name": name,
        "routing": routing,
        "temperature": temperature,
        "z": z,
        "gates": gates,
        "expert_logits": expert_logits,
        "mask": mask,
        "target": target,
        "rows": rows,
        "losses": losses,
    }


def graph_case(name, seed, experts, num_experts, offsets, heads, batch=9, width=3, temperature=1.0, huber=1.0):
    rng = np.random.default_rng(seed)
    draw = lambda *shape, scale=1.0: torch.tensor(fixture.grid(rng, (batch, *shape), scale))
    operators = len(experts)
    scores, target_temperature = draw(operators), temperature * 2
    activations = torch.tensor(rng.choice([0.0, 0.25, 1.0], (batch, operators), p=[0.5, 0.2, 0.3]))
    rows = draw_rows(rng, batch, 0.15)
    attention = np.zeros((batch, offsets[-1], heads))
    for start, end in zip(offsets, offsets[1:]):
        if end > start:
            counts = rng.multinomial(64, rng.dirichlet(np.ones(end - start), (batch, heads)))
            attention[:, start:end] = counts.transpose(0, 2, 1) / 64
    inputs = {
        "z": draw(num_experts),
        "h": draw(width),
        "operator_logits": draw(operators, scale=3.0),
        "attention": torch.tensor(attention),
    }
    inputs["operator_logits"][0] = 0
    for tensor in inputs.values():
        tensor.requires_grad_()
    target = alignment_target(scores, experts, num_experts, target_temperature)
    constants = {"activations": activations, "offsets": offsets, "rows": rows, "huber": huber}
    losses = graph_losses(**inputs, **constants, temperature=temperature, target=target)
    return {
        "kind": "graph",
        "name": name,
        "temperature": temperature,
        "scores": scores,
        "experts": experts,
        "target_temperature": target_temperature,
        "target": target,
        **inputs,
        **constants,
        "losses": with_gradients(losses, inputs),
    }


cases = [
    router_case("softmax", 0, "softmax", 1.0),
    router_case("softmax, temperature 0.5, masked", 1, "softmax", 0.5, actions=6, masked=0.3),
    router_case("softmax, temperature 2", 2, "softmax", 2.0, experts=3, actions=3),
    router_case("sparsemax", 3, "sparsemax", 1.0),
    router_case("sparsemax, temperature 0.5, masked", 4, "sparsemax", 0.5, actions=6, masked=0.3),
    router_case("sparsemax, nearly uniform", 5, "sparsemax", 0.5, scale=0.05),
    router_case("sparsemax, one-hot gates", 6, "sparsemax", 0.5, scale=4.0),
    router_case("two experts", 7, "sparsemax", 0.75, experts=2, actions=4, masked=0.2),
    router_case("eight experts", 8, "sparsemax", 0.5, batch=4, experts=8, actions=4, scale=0.4),
    router_case("small logits, as at initialisation", 9, "softmax", 1.0, logit_scale=0.02, scale=0.1),
    graph_case("four experts, one without operators", 20, [0, 1, 0, 3, -1], 4, [0, 3, 4, 4, 6, 10], 2),
    graph_case(
        "two experts, temperature 0.5, Huber 0.25", 21, [1, 0, 1], 2, [0, 2, 7], 1, temperature=0.5, huber=0.25
    ),
    graph_case("three experts, one with operators", 22, [-1, 2], 3, [0, 1, 1, 4], 4, batch=6, width=5),
]
fixture.write(
    __file__,
    "Auxiliary losses in torch, f64; fields are explained in losses.py",
    ["entmax", "torch", "numpy"],
    cases,
)
