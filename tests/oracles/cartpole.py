"""Makes cartpole.json: traces of Gymnasium's CartPole-v1, step for step.

Each episode is one case: `kind` ("random" or "controller"), `seed`, the initial state as Gymnasium
holds it (f64) and its observation (f32), the actions as one string of 0 and 1, and the observation
after every step (f32, `[T, 4]`: cart position and velocity, pole angle and velocity). Every reward is
1, checked here. `end` says how the last step ended; no earlier step ends. Random actions fall
(terminated); a linear controller stands until the limit of 500 steps (truncated).
Gymnasium integrates in f64 and rounds only the observation; `final_state` is the last f64 state.

Versions: gymnasium 1.3.0, numpy 2.4.6.
Run: `python tests/oracles/cartpole.py` (writes beside itself, in a second).
"""

import gymnasium
import numpy as np

import fixture

RANDOM_SEEDS = range(50)  # about 25 steps each
CONTROLLER_SEEDS = range(100, 105)


def controller(observation):
    x, x_dot, theta, theta_dot = observation
    return int(theta + 0.5 * theta_dot + 0.05 * x + 0.1 * x_dot > 0.0)


def episode(kind, seed):
    env = gymnasium.make("CartPole-v1")
    observation, _ = env.reset(seed=seed)
    case = {
        "kind": kind,
        "seed": seed,
        "initial_state": np.float64(env.unwrapped.state),
        "initial_observation": observation,
    }
    draws = np.random.default_rng(seed)
    actions, observations = "", []
    terminated = truncated = False
    while not (terminated or truncated):
        action = int(draws.integers(2)) if kind == "random" else controller(observation)
        observation, reward, terminated, truncated, _ = env.step(action)
        assert reward == 1.0 and observation.dtype == np.float32
        actions += str(action)
        observations.append(observation)
    assert terminated == (kind == "random") and truncated == (len(actions) == 500)
    return case | {
        "final_state": np.float64(env.unwrapped.state),
        "end": "terminated" if terminated else "truncated",
        "steps": len(actions),
        "actions": actions,
        "observations": observations,
    }


cases = [episode("random", seed) for seed in RANDOM_SEEDS]
cases += [episode("controller", seed) for seed in CONTROLLER_SEEDS]
total = {kind: sum(c["steps"] for c in cases if c["kind"] == kind) for kind in ("random", "controller")}
assert min(total.values()) >= 1000, total
fixture.write(
    __file__,
    "CartPole-v1 traces; fields are explained in cartpole.py",
    ["gymnasium", "numpy"],
    cases,
    reward=1.0,
    steps=total,
)
