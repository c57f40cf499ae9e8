"""Makes gatv2.json: GATv2 with a learned scalar per relation and head, and its gradients.

Per case: N nodes, E edges, F inputs, H heads of C outputs, R relations.
Inputs: `x` `[N, F]`, `sources` and `targets` `[E]` (an edge carries messages from source to target;
parallel edges stay separate copies; self loops are explicit), `relations` `[E]`, `weight` `[F, 2*H*C]`
(head-major columns: those of the sources, PyG's `lin_l`, then those of the targets, `lin_r`), `att`
`[H, C]`, `relation_bias` `[R, H]`, `concat` (true: output `[N, H*C]`; false: mean over heads, `[N, C]`),
`upstream` (the output's shape).
Outputs: `output`, `alpha` `[E, H]` in edge order, and `grad_*` of sum(upstream * output) by x, weight,
att, relation_bias.

PyG adds edge features inside the LeakyReLU; the scalar here comes after it. So PyG's GATv2Conv is the
reference of the cases whose scalars are all 0 (`by` = "PyG"), and the others come from the definition in
torch (`by` = "definition"), which the script holds against PyG where it can, values and gradients, and
against a plain loop everywhere.
Everything is f64; inputs are exact in f32. `f32_error` holds, per output, the norm of (the reference in
f32 minus f64) over the norm of the f64 tensor: its own rounding, for tensors whose entries cancel.
LeakyReLU's slope is 0.2; no bias, no dropout.

Versions: torch_geometric 2.8.1, torch 2.15.0, numpy 2.4.6.
Run: `python tests/oracles/gatv2.py`.
"""

import numpy as np
import torch
from torch_geometric.nn import GATv2Conv

import fixture
from edges import irregular

OUTPUTS = "output", "alpha", "grad_x", "grad_weight", "grad_att", "grad_relation_bias"


def pyg(inputs, concat, dtype):
    """All outputs but the gradient by the relations' scalars."""
    to = lambda name: torch.tensor(inputs[name], dtype=dtype)
    heads, channels = inputs["att"].shape
    features = inputs["x"].shape[1]
    conv = GATv2Conv(
        features, channels, heads, concat, negative_slope=0.2, add_self_loops=False, bias=False
    ).to(dtype)
    with torch.no_grad():
        weights = to("weight").chunk(2, 1)
        conv.lin_l.weight.copy_(weights[0].T)
        conv.lin_r.weight.copy_(weights[1].T)
        conv.att.copy_(to("att"))
    x = to("x").requires_grad_()
    edge_index = torch.tensor(np.array([inputs["sources"], inputs["targets"]]))
    output, (_, alpha) = conv(x, edge_index, return_attention_weights=True)
    output.backward(to("upstream"))
    weight = torch.cat([conv.lin_l.weight.grad.T, conv.lin_r.weight.grad.T], 1)
    tensors = output, alpha, x.grad, weight, conv.att.grad[0]
    return {name: tensor.detach().double().numpy() for name, tensor in zip(OUTPUTS, tensors)}


def definition(inputs, concat, dtype):
    leaf = lambda name: torch.tensor(inputs[name], dtype=dtype, requires_grad=True)
    x, weight, att, bias = leaf("x"), leaf("weight"), leaf("att"), leaf("relation_bias")
    index = lambda name: torch.tensor(inputs[name])
    sources, targets, relations = index("sources"), index("targets"), index("relations")
    sent, asked = ((x @ half).view(len(x), *att.shape) for half in weight.chunk(2, 1))
    met = torch.nn.functional.leaky_relu(sent[sources] + asked[targets], 0.2)
    score = (met * att).sum(-1) + bias[relations]
    weights = score.exp()
    alpha = weights / torch.zeros_like(asked[..., 0]).index_add(0, targets, weights)[targets]
    output = torch.zeros_like(sent).index_add(0, targets, alpha.unsqueeze(-1) * sent[sources])
    output = output.flatten(1) if concat else output.mean(1)
    output.backward(torch.tensor(inputs["upstream"], dtype=dtype))
    tensors = output, alpha, x.grad, weight.grad, att.grad, bias.grad
    return {name: tensor.detach().double().numpy() for name, tensor in zip(OUTPUTS, tensors)}


def loop(inputs, concat):
    """The definition, one node and one head at a time."""
    heads, channels = inputs["att"].shape
    sent, asked = ((inputs["x"] @ w).reshape(-1, heads, channels) for w in np.split(inputs["weight"], 2, 1))
    alpha = np.zeros((len(inputs["sources"]), heads))
    output = np.zeros_like(sent)
    for i in range(len(sent)):
        incoming = np.flatnonzero(inputs["targets"] == i)
        for h in range(heads):
            j, r = inputs["sources"][incoming], inputs["relations"][incoming]
            z = sent[j, h] + asked[i, h]
            weights = np.exp(np.where(z > 0, z, 0.2 * z) @ inputs["att"][h] + inputs["relation_bias"][r, h])
            alpha[incoming, h] = weights / weights.sum()
            output[i, h] = alpha[incoming, h] @ sent[j, h]
    return (output.reshape(len(output), -1) if concat else output.mean(1)), alpha


def case(name, seed, nodes, edges, features, heads, channels, relations, concat, parallel=3, scale=1.0, bias=0.5):
    rng = np.random.default_rng(seed)
    inputs = irregular(rng, nodes, edges, relations, parallel)
    inputs |= {
        "x": fixture.grid(rng, (nodes, features)),
        "weight": fixture.grid(rng, (features, 2 * heads * channels), scale * features**-0.5),
        "att": fixture.grid(rng, (heads, channels), scale * channels**-0.5),
        "relation_bias": fixture.grid(rng, (relations, heads), bias * scale),
        "upstream": fixture.grid(rng, (nodes, heads * channels if concat else channels)),
    }
    outputs, single = definition(inputs, concat, torch.float64), definition(inputs, concat, torch.float32)
    for mine, name_of in zip(loop(inputs, concat), ("output", "alpha")):
        np.testing.assert_allclose(outputs[name_of], mine, rtol=1e-12, atol=1e-13)
    if bias == 0.0:
        reference = pyg(inputs, concat, torch.float64)
        for name_of, value in reference.items():
            np.testing.assert_allclose(outputs[name_of], value, rtol=1e-9, atol=1e-12)
        outputs |= reference
        single |= pyg(inputs, concat, torch.float32)
    norm = np.linalg.norm
    error = {k: float(f"{norm(single[k] - v) / max(norm(v), 1e-300):.3g}") for k, v in outputs.items()}
    assert max(error.values()) < 1e-4, error
    return {
        "name": name,
        "by": "PyG" if bias == 0.0 else "definition",
        "nodes": nodes,
        "heads": heads,
        "channels": channels,
        "concat": concat,
        **inputs,
        **outputs,
        "f32_error": error,
    }


cases = [
    case("four heads concatenated", 0, 12, 30, 8, 4, 4, 3, True, bias=0.0),
    case("four heads averaged", 1, 12, 30, 8, 4, 4, 3, False, bias=0.0),
    case("one head", 2, 6, 9, 3, 1, 5, 2, True, bias=0.0),
    case("one channel", 6, 7, 12, 4, 4, 1, 3, True, bias=0.0),
    case("dense", 7, 9, 120, 4, 2, 4, 4, True, bias=0.0),
    case("sharp attention", 8, 10, 30, 6, 2, 4, 3, True, scale=4.0, bias=0.0),
    case("four heads of 8", 10, 10, 24, 6, 4, 8, 3, True, bias=0.0),
    case("scalars of relations", 3, 12, 30, 8, 4, 4, 3, True),
    case("scalars of relations, averaged at full width", 9, 12, 30, 8, 2, 8, 4, False),
    case("many relations, many parallel edges", 5, 10, 20, 6, 3, 4, 6, True, parallel=15),
    case("scalars of relations, sharp attention", 11, 10, 30, 6, 2, 4, 3, True, scale=4.0),
]
fixture.write(
    __file__,
    "GATv2 by PyTorch Geometric and by its definition, values and gradients; see gatv2.py",
    ["torch_geometric", "torch", "numpy"],
    cases,
)
