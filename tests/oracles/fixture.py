"""How the scripts here write their JSON: a header, then one case per line.

Floats are the shortest decimals that read back as the same number of their own width (f32 or f64).
`null` stands for minus infinity; any other non-finite number is an error. `grid` draws inputs that f32
and f64 both hold exactly, so that a test in either width starts from the very same numbers.
"""

import json
import math
from importlib.metadata import version
from pathlib import Path

import numpy as np


def encode(value):
    if hasattr(value, "detach"):  # a torch tensor
        value = value.detach().numpy()
    if isinstance(value, np.ndarray):
        value = value[()] if value.ndim == 0 else list(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{encode(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(encode, value)) + "]"
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (int, np.integer)):
        return str(value)
    if isinstance(value, (float, np.floating)):
        if value == -math.inf:
            return "null"
        assert np.isfinite(value), value
        return repr(value.item()) if isinstance(value, np.float64) else str(value)
    return json.dumps(value)


def write(script, about, packages, cases, **header):
    """Writes the fixture beside `script`, checks that it parses, and keeps it small."""
    header = {"about": about, "versions": {name: version(name) for name in packages}, **header}
    lines = [f"{json.dumps(key)}: {encode(value)}" for key, value in header.items()]
    body = ",\n".join(encode(case) for case in cases)
    text = "{\n" + ",\n".join(lines) + ',\n"cases": [\n' + body + "\n]\n}\n"
    json.loads(text)
    assert len(text) < 300_000, len(text)
    Path(script).with_suffix(".json").write_text(text)


def grid(rng, shape, scale=1.0):
    """Normal draws times `scale`, rounded to multiples of 1/1024: f64, and exact in f32."""
    values = np.round(rng.normal(size=shape) * scale * 1024.0) / 1024.0
    assert np.all(values == values.astype(np.float32))
    return values + 0.0  # no negative zero
