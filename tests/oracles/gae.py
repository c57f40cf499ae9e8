"""Makes gae.json: advantages and returns of Stable-Baselines3's RolloutBuffer.

Per case, `[T][N]` (steps, environments), f32: `rewards` (raw), `values` = V(s_t), `ends` (0 goes on,
1 terminated, 2 truncated at this step), `final_values` = V(final observation) where `ends` is 2 and 0
elsewhere, and `last_values` `[N]` = V(next observation) after the last step, used where the last step
does not end. `advantages` and `returns` are SB3's, f32.
SB3 knows one kind of end only, so its users add gamma * V(final) to the reward of a truncated step
(`OnPolicyAlgorithm.collect_rollouts` does); this script does the same.
The script itself checks SB3's recursion against the direct f64 sum over the rest of the episode, to
1e-5 of the largest advantage.

Versions: stable-baselines3 2.9.2, torch 2.15.0, gymnasium 1.3.0, numpy 2.4.6.
Run: `python tests/oracles/gae.py`.
"""

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer

import fixture

TERMINATED, TRUNCATED = 1, 2


def sb3(rewards, values, ends, final_values, last_values, gamma, gae_lambda):
    steps, num_envs = rewards.shape
    buffer = RolloutBuffer(
        steps,
        spaces.Box(-1, 1, (1,)),
        spaces.Discrete(2),
        device="cpu",
        gamma=gamma,
        gae_lambda=gae_lambda,
        n_envs=num_envs,
    )
    bootstrapped = rewards + np.float32(gamma) * final_values
    episode_starts = np.zeros(num_envs, bool)
    for t in range(steps):
        buffer.add(
            np.zeros((num_envs, 1)),
            np.zeros((num_envs, 1)),
            bootstrapped[t],
            episode_starts,
            torch.from_numpy(values[t]),
            torch.zeros(num_envs),
        )
        episode_starts = ends[t] != 0
    buffer.compute_returns_and_advantage(torch.from_numpy(last_values), episode_starts)
    return buffer.advantages, buffer.returns


def direct(rewards, values, ends, final_values, last_values, gamma, gae_lambda):
    """`A_t = sum_l (gamma lambda)^l d_{t+l}` up to the end of t's episode, in f64."""
    steps, num_envs = rewards.shape
    values = np.vstack([values, last_values]).astype(np.float64)
    advantages = np.zeros((steps, num_envs))
    for n in range(num_envs):
        for t in range(steps):
            for later in range(t, steps):
                end = ends[later, n]
                following = {
                    0: values[later + 1, n],
                    TERMINATED: 0.0,
                    TRUNCATED: float(final_values[later, n]),
                }[end]
                delta = float(rewards[later, n]) + gamma * following - values[later, n]
                advantages[t, n] += (gamma * gae_lambda) ** (later - t) * delta
                if end:
                    break
    return advantages


def case(name, steps, num_envs, gamma, gae_lambda, end_rate, seed, last_ends=None):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: fixture.grid(rng, shape).astype(np.float32)
    rewards, values, last_values = draw(steps, num_envs), draw(steps, num_envs), draw(num_envs)
    ends = rng.choice(3, size=(steps, num_envs), p=[1 - 2 * end_rate, end_rate, end_rate])
    if last_ends is not None:
        ends[-1] = last_ends
    final_values = np.where(ends == TRUNCATED, draw(steps, num_envs), np.float32(0))
    inputs = rewards, values, ends, final_values, last_values
    advantages, returns = sb3(*inputs, gamma, gae_lambda)
    advantages_f64 = direct(*inputs, gamma, gae_lambda)
    assert np.abs(advantages - advantages_f64).max() <= 1e-5 * max(1.0, np.abs(advantages_f64).max())
    names = "rewards", "values", "ends", "final_values", "last_values"
    return {
        "name": name,
        "gamma": gamma,
        "gae_lambda": gae_lambda,
        **dict(zip(names, inputs)),
        "advantages": advantages,
        "returns": returns,
    }


cases = [
    case("defaults", 32, 4, 0.995, 0.97, 0.05, 0),
    case("cleanrl", 32, 4, 0.99, 0.95, 0.05, 1),
    case("no end", 64, 2, 0.99, 0.95, 0.0, 2),
    case("every pair of ends", 12, 3, 0.9, 0.8, 0.3, 3),
    case("last step goes on, terminates, is truncated", 8, 3, 0.99, 0.95, 0.1, 4, [0, TERMINATED, TRUNCATED]),
    case("one step", 1, 3, 0.99, 0.95, 0.0, 5, [0, TERMINATED, TRUNCATED]),
    case("one environment", 40, 1, 0.99, 0.9, 0.1, 6),
    case("lambda 0", 16, 2, 0.95, 0.0, 0.1, 7),
    case("lambda 1", 16, 2, 0.99, 1.0, 0.1, 8),
    case("gamma 1", 16, 2, 1.0, 0.95, 0.1, 9),
    case("gamma 0", 16, 2, 0.0, 0.95, 0.1, 10),
]
fixture.write(
    __file__,
    "Generalised advantage estimates of SB3's RolloutBuffer; fields are explained in gae.py",
    ["stable-baselines3", "torch", "gymnasium", "numpy"],
    cases,
)
