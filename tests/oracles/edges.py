"""Edges of the graphs that gat.py and gatv2.py attend over."""

import numpy as np


def irregular(rng, num_nodes, extra_edges, num_relations, parallel):
    """Self loops of relation 0, random edges of the others; node 0's only in-edge is its self loop."""
    source, target = rng.integers(num_nodes, size=extra_edges), rng.integers(1, num_nodes, size=extra_edges)
    relation = rng.integers(min(1, num_relations - 1), num_relations, size=extra_edges)
    again = rng.integers(extra_edges, size=parallel)  # copies of one relation, and of one pair by another
    nodes = np.arange(num_nodes)
    sources = np.concatenate([nodes, source, source[again], source[:1]])
    targets = np.concatenate([nodes, target, target[again], target[:1]])
    relations = np.concatenate([0 * nodes, relation, relation[again], [num_relations - 1]])
    order = rng.permutation(len(sources))
    return {"sources": sources[order], "targets": targets[order], "relations": relations[order]}
