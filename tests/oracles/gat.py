"""Makes gat.json: PyTorch Geometric's GATConv with a learned scalar per relation and head, and its gradients.

Per case: N nodes, E edges, F inputs, H heads of C outputs, R relations.
Inputs: `x` `[N, F]`, `sources` and `targets` `[E]` (an edge carries messages from source to target;
parallel edges stay separate copies; self loops are explicit), `relations` `[E]`, `weight` `[F, H*C]`
(head-major columns; PyG holds the transpose), `att_src`, `att_dst` `[H, C]`, `relation_bias` `[R, H]`,
`concat` (true: output `[N, H*C]`; false: mean over heads, `[N, C]`), `upstream` (the output's shape).
Outputs: `output`, `alpha` `[E, H]` in edge order, and `grad_*` of sum(upstream * output) by x, weight,
att_src, att_dst, relation_bias.

PyG's edge term is `sum_c (lin_edge(edge_attr) * att_edge)_c` per head. With one-hot `edge_attr`,
`lin_edge.weight[h*C, r] = relation_bias[r, h]` (0 in the other channels) and `att_edge` = 1 it is
`relation_bias[r, h]`, and the gradient at those weights is the gradient by the scalar.
Everything is f64; inputs are exact in f32. `f32_error` holds, per output, the norm of (PyG in f32 minus
f64) over the norm of the f64 tensor: PyG's own rounding, for tensors whose entries cancel.
LeakyReLU's slope is 0.2; no bias, no dropout. The script checks PyG's f64 values against a plain loop.

Versions: torch_geometric 2.8.1, torch 2.15.0, numpy 2.4.6.
Run: `python tests/oracles/gat.py`.
"""

import numpy as np
import torch
from torch_geometric.nn import GATConv

import fixture
from edges import irregular

OUTPUTS = "output", "alpha", "grad_x", "grad_weight", "grad_att_src", "grad_att_dst", "grad_relation_bias"


def pyg(inputs, concat, dtype):
    to = lambda name: torch.tensor(inputs[name], dtype=dtype)
    features = inputs["x"].shape[1]
    heads, channels = inputs["att_src"].shape
    num_relations = len(inputs["relation_bias"])
    conv = GATConv(
        features,
        channels,
        heads,
        concat,
        negative_slope=0.2,
        add_self_loops=False,
        edge_dim=num_relations,
        bias=False,
    ).to(dtype)
    with torch.no_grad():
        conv.lin.weight.copy_(to("weight").T)
        conv.att_src.copy_(to("att_src"))
        conv.att_dst.copy_(to("att_dst"))
        conv.att_edge.fill_(1.0)
        conv.lin_edge.weight.zero_()
        conv.lin_edge.weight[::channels] = to("relation_bias").T
    x = to("x").requires_grad_()
    edge_index = torch.tensor(np.array([inputs["sources"], inputs["targets"]]))
    edge_attr = torch.nn.functional.one_hot(torch.tensor(inputs["relations"]), num_relations).to(dtype)
    output, (_, alpha) = conv(x, edge_index, edge_attr, return_attention_weights=True)
    output.backward(to("upstream"))
    tensors = (
        output,
        alpha,
        x.grad,
        conv.lin.weight.grad.T,
        conv.att_src.grad[0],
        conv.att_dst.grad[0],
        conv.lin_edge.weight.grad[::channels].T,
    )
    return {name: tensor.detach().double().numpy() for name, tensor in zip(OUTPUTS, tensors)}


def loop(inputs, concat):
    """The definition, one node and one head at a time."""
    heads, channels = inputs["att_src"].shape
    projected = (inputs["x"] @ inputs["weight"]).reshape(-1, heads, channels)
    alpha = np.zeros((len(inputs["sources"]), heads))
    output = np.zeros_like(projected)
    for i in range(len(projected)):
        incoming = np.flatnonzero(inputs["targets"] == i)
        for h in range(heads):
            j, r = inputs["sources"][incoming], inputs["relations"][incoming]
            scores = projected[j, h] @ inputs["att_src"][h] + projected[i, h] @ inputs["att_dst"][h]
            scores = scores + inputs["relation_bias"][r, h]
            weights = np.exp(np.where(scores > 0, scores, 0.2 * scores))
            alpha[incoming, h] = weights / weights.sum()
            output[i, h] = alpha[incoming, h] @ projected[j, h]
    return (output.reshape(len(output), -1) if concat else output.mean(1)), alpha


def case(name, seed, nodes, edges, features, heads, channels, relations, concat, parallel=3, scale=1.0):
    rng = np.random.default_rng(seed)
    inputs = irregular(rng, nodes, edges, relations, parallel)
    inputs |= {
        "x": fixture.grid(rng, (nodes, features)),
        "weight": fixture.grid(rng, (features, heads * channels), scale * features**-0.5),
        "att_src": fixture.grid(rng, (heads, channels), scale * channels**-0.5),
        "att_dst": fixture.grid(rng, (heads, channels), scale * channels**-0.5),
        "relation_bias": fixture.grid(rng, (relations, heads), 0.5 * scale),
        "upstream": fixture.grid(rng, (nodes, heads * channels if concat else channels)),
    }
    outputs = pyg(inputs, concat, torch.float64)
    for mine, name_of in zip(loop(inputs, concat), ("output", "alpha")):
        np.testing.assert_allclose(outputs[name_of], mine, rtol=1e-12, atol=1e-13)
    single = pyg(inputs, concat, torch.float32)
    norm = np.linalg.norm
    error = {k: float(f"{norm(single[k] - v) / max(norm(v), 1e-300):.3g}") for k, v in outputs.items()}
    assert max(error.values()) < 1e-4, error
    return {
        "name": name,
        "nodes": nodes,
        "heads": heads,
        "channels": channels,
        "concat": concat,
        **inputs,
        **outputs,
        "f32_error": error,
    }


cases = [
    case("four heads concatenated", 0, 12, 30, 8, 4, 4, 3, True),
    case("four heads averaged", 1, 12, 30, 8, 4, 4, 3, False),
    case("one head", 2, 6, 9, 3, 1, 5, 2, True),
    case("one head averaged", 3, 6, 9, 3, 1, 5, 2, False),
    case("one relation", 4, 8, 16, 5, 2, 3, 1, True),
    case("many relations, many parallel edges", 5, 10, 20, 6, 3, 4, 6, True, parallel=15),
    case("one channel", 6, 7, 12, 4, 4, 1, 3, True),
    case("dense", 7, 9, 120, 4, 2, 4, 4, True),
    case("sharp attention", 8, 10, 30, 6, 2, 4, 3, True, scale=4.0),
    case("hidden 16, averaged at full width", 9, 16, 40, 16, 2, 16, 4, False),
]
fixture.write(
    __file__,
    "GATConv of PyTorch Geometric, values and gradients; fields are explained in gat.py",
    ["torch_geometric", "torch", "numpy"],
    cases,
)
