"""Makes ppo_loss.json: the PPO loss with a masked categorical policy, terms and gradients, in torch f64.

Per case: `logits` `[B, A]`, `mask` `[B, A]` (true = allowed), `actions` `[B]`, `old_log_probs`, `advantages`
(raw), `returns`, `values`, `old_values` `[B]`. A masked action's logit is minus infinity whatever `logits`
says.
- `normalized_advantages` = (A - mean) / (std + 1e-8), std over B - 1 (as torch and CleanRL do), and the raw
  ones where `normalize` is false; A below
- ratio = exp(log_prob - old_log_prob)
- `policy_loss` = mean max(-A ratio, -A clamp(ratio, 1 - clip, 1 + clip))
- `value_loss` = 0.5 mean (V - R)^2, or with `value_clip` > 0 (0 means off) 0.5 mean max((V - R)^2,
  (W - R)^2), W = old + clamp(V - old, -value_clip, value_clip)
- `entropy` = mean over rows of -sum p log p over allowed actions
- `approx_kl` = mean (ratio - 1 - ln ratio); `clip_fraction` = mean [|ratio - 1| > clip]
- `loss` = policy_loss + value_coef * value_loss - entropy_coef * entropy
Gradients: `grad_logits_policy` (of policy_loss), `grad_logits_entropy` (of entropy), `grad_logits` (of
loss), `grad_values_unscaled` (of value_loss), `grad_values` (of loss). Masked entries get 0. `log_probs` are
those of `actions`. Inputs are exact in f32, but for `old_log_probs` where every ratio is 1.

Versions: torch 2.15.0, numpy 2.4.6.
Run: `python tests/oracles/ppo_loss.py`.
"""

import numpy as np
import torch

import fixture


def masked_log_probs(logits, mask):
    return torch.log_softmax(torch.where(mask, logits, -torch.inf), -1)


def evaluate(inputs, clip, value_clip, value_coef, entropy_coef, normalize):
    tensors = {name: torch.tensor(values) for name, values in inputs.items()}
    logits, values = (tensors[name].requires_grad_() for name in ("logits", "values"))
    mask, old_values, returns = tensors["mask"], tensors["old_values"], tensors["returns"]
    advantages = tensors["advantages"]
    if normalize:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)

    all_log_probs = masked_log_probs(logits, mask)
    log_probs = all_log_probs.gather(1, tensors["actions"][:, None])[:, 0]
    plogp = torch.where(mask, all_log_probs, 0.0) * torch.where(mask, all_log_probs.exp(), 0.0)
    entropy = -plogp.sum(-1).mean()
    log_ratio = log_probs - tensors["old_log_probs"]
    ratio = log_ratio.exp()
    policy_loss = torch.max(-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)).mean()
    squares = (values - returns) ** 2
    if value_clip:
        near = old_values + (values - old_values).clamp(-value_clip, value_clip)
        squares = torch.max(squares, (near - returns) ** 2)
    value_loss = 0.5 * squares.mean()
    loss = policy_loss + value_coef * value_loss - entropy_coef * entropy

    gradient = lambda term, of: torch.autograd.grad(term, of, retain_graph=True)[0]
    record = {
        "normalized_advantages": advantages,
        "log_probs": log_probs,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "loss": loss,
        "approx_kl": (ratio - 1 - log_ratio).mean(),
        "clip_fraction": ((ratio - 1).abs() > clip).double().mean(),
        "grad_logits_policy": gradient(policy_loss, logits),
        "grad_logits_entropy": gradient(entropy, logits),
        "grad_logits": gradient(loss, logits),
        "grad_values_unscaled": gradient(value_loss, values),
        "grad_values": gradient(loss, values),
    }
    assert all(torch.all(record[k][~mask] == 0) for k in record if k.startswith("grad_logits"))
    assert (
        min((ratio - 1 - clip).abs().min(), (ratio - 1 + clip).abs().min()) > 1e-5
    ), "a ratio on the clip's edge"
    signs = {
        (bool(a > 0), int(torch.sign(r - 1)) * int((r - 1).abs() > clip)) for a, r in zip(advantages, ratio)
    }
    return record, signs


def case(
    name,
    seed,
    batch=12,
    actions=5,
    masked=0.0,
    clip=0.2,
    value_clip=0.0,
    value_coef=0.5,
    entropy_coef=0.01,
    normalize=True,
    noise=0.4,
    scale=1.0,
    all_signs=True,
):
    rng = np.random.default_rng(seed)
    logits = fixture.grid(rng, (batch, actions), scale)
    mask = rng.random((batch, actions)) >= masked
    mask[np.arange(batch), rng.integers(actions, size=batch)] = True
    if masked:
        mask[0] = np.arange(actions) == 2  # one action left: log-probability and entropy 0
    chosen = np.array([rng.choice(np.flatnonzero(row)) for row in mask])
    log_probs = masked_log_probs(torch.tensor(logits), torch.tensor(mask)).numpy()[np.arange(batch), chosen]
    shift = noise * np.tile([-1.0, 0.1, 1.0], batch)[:batch] + 0.1 * noise * rng.normal(size=batch)
    old = np.round((log_probs + shift) * 1024) / 1024 if noise else log_probs
    sign = np.repeat([1.0, -1.0], 3)[np.arange(batch) % 6]  # every sign of the advantage meets every shift
    values = fixture.grid(rng, batch)
    inputs = {
        "logits": logits,
        "mask": mask,
        "actions": chosen,
        "old_log_probs": old,
        "advantages": sign * (0.5 + np.abs(fixture.grid(rng, batch, 2.0))),
        "returns": fixture.grid(rng, batch),
        "values": values,
        "old_values": values + fixture.grid(rng, batch, 0.3),
    }
    settings = {
        "clip": clip,
        "value_clip": value_clip,
        "value_coef": value_coef,
        "entropy_coef": entropy_coef,
        "normalize": normalize,
    }
    record, signs = evaluate(inputs, **settings)
    if all_signs:  # positive and negative advantages below, inside and above the band
        assert len(signs) == 6, (name, signs)
    return {"name": name, **settings, **inputs, **record}


cases = [
    case("plain", 0),
    case("value clip", 1, value_clip=0.2),
    case("masked", 2, actions=6, masked=0.4),
    case("masked, value clip", 3, actions=6, masked=0.4, value_clip=0.2, value_coef=0.25),
    case("gatefold defaults", 4, clip=0.15, entropy_coef=0.02, value_coef=1.0),
    case("raw advantages", 5, normalize=False),
    case("no entropy", 6, entropy_coef=0.0, value_coef=1.0),
    case("two actions", 7, actions=2),
    case("sharp logits", 8, scale=8.0, masked=0.2, entropy_coef=0.05),
    case("every ratio is 1", 9, masked=0.3, noise=0.0, all_signs=False),
    case("batch of 2", 10, batch=2, value_clip=0.2, all_signs=False),
]
fixture.write(
    __file__, "The PPO loss in torch, f64; fields are explained in ppo_loss.py", ["torch", "numpy"], cases
)
