"""Makes reward_scaling.json: rewards scaled by running statistics, a NumPy f64 reference.

Per case: `gamma`, `num_envs`, and consecutive `rollouts`, each with `rewards` `[T, N]` and `ends` `[T, N]`
(true: the episode ended with this step, either way). State starts at zero and is carried from one rollout
to the next, discounted returns included. Per rollout:
- `discounted` `[T, N]`: R_t = gamma R_{t-1} + r_t, where R_{t-1} counts as 0 after an end
- `return_count`, `return_mean`, `return_variance` over every R of this and all earlier rollouts (population
  variance; Welford/Chan merging has to agree with NumPy's two-pass values over everything, stored here)
- `scaled` = clip(r / sqrt(return_variance + 1e-8), -10, 10), with the statistics after this rollout
- `reward_mean`, `reward_variance` of every raw reward so far, and `standardized` = (r - reward_mean) /
  sqrt(reward_variance + 1e-8), before any clipping
- `carry` `[N]`: R at the end of the rollout, 0 where it ended

Versions: numpy 2.4.6.
Run: `python tests/oracles/reward_scaling.py`.
"""

import numpy as np

import fixture


def case(name, seed, gamma, shapes, rewards_of, end_rate=0.1):
    rng = np.random.default_rng(seed)
    num_envs = shapes[0][1]
    carry = np.zeros(num_envs)
    all_returns, all_rewards, rollouts = [], [], []
    for shape in shapes:
        rewards, ends = rewards_of(rng, shape), rng.random(shape) < end_rate
        discounted = np.zeros(shape)
        for t in range(shape[0]):
            discounted[t] = gamma * carry + rewards[t]
            carry = np.where(ends[t], 0.0, discounted[t])
        all_returns.append(discounted.ravel())
        all_rewards.append(rewards.ravel())
        returns, raw = np.concatenate(all_returns), np.concatenate(all_rewards)
        rollouts.append(
            {
                "rewards": rewards,
                "ends": ends,
                "discounted": discounted,
                "carry": carry,
                "return_count": len(returns),
                "return_mean": returns.mean(),
                "return_variance": returns.var(),
                "scaled": np.clip(rewards / np.sqrt(returns.var() + 1e-8), -10, 10),
                "reward_mean": raw.mean(),
                "reward_variance": raw.var(),
                "standardized": (rewards - raw.mean()) / np.sqrt(raw.var() + 1e-8),
            }
        )
    return {"name": name, "gamma": gamma, "num_envs": num_envs, "rollouts": rollouts}


def sparse(rng, shape):
    return np.where(rng.random(shape) < 0.01, 100.0, 0.0)


twice = lambda steps, envs: [(steps, envs)] * 2
normal = lambda rng, shape: fixture.grid(rng, shape)
cases = [
    case("normal rewards", 0, 0.99, twice(16, 4), normal),
    case("defaults' gamma, three rollouts", 1, 0.995, [(16, 3)] * 3, normal),
    case("far from zero", 2, 0.99, twice(16, 2), lambda rng, shape: fixture.grid(rng, shape, 0.25) + 50.0),
    case("large rewards", 3, 0.95, twice(12, 3), lambda rng, shape: fixture.grid(rng, shape, 1000.0)),
    case("sparse rewards: clipped", 4, 0.9, twice(128, 2), sparse, 0.3),
    case("always 1", 5, 0.99, twice(16, 2), lambda rng, shape: np.ones(shape)),
    case("always 0", 6, 0.99, twice(4, 2), lambda rng, shape: np.zeros(shape)),
    case("no end", 7, 0.9, twice(16, 2), normal, 0.0),
    case("an end at every step", 8, 0.9, twice(8, 2), normal, 1.0),
    case("one environment, one step", 9, 0.99, [(1, 1)] * 3, normal, 0.0),
    case("rollouts of unequal length", 10, 0.99, [(4, 2), (20, 2)], normal),
]
clipped = next(c for c in cases if "clipped" in c["name"])
assert any((np.abs(rollout["scaled"]) == 10).any() for rollout in clipped["rollouts"])
fixture.write(
    __file__, "Reward scaling in NumPy, f64; fields are explained in reward_scaling.py", ["numpy"], cases
)
