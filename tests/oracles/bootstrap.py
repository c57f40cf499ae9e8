"""Makes bootstrap.json: estimates and bootstrap intervals of rliable for two arms.

Per case: `x` and `y` `[runs][tasks]`, f64, of two arms, and of rliable.metrics on `x`: `mean`, `iqm`, `median`
(over tasks of the tasks' means), `run_median` (the same on x with each run as a task, so on one task
the median over runs) and `optimality_gap` at `target`; `profile`, the run-score distribution of `x` at
`thresholds`; `improvement`, the probability of improvement of x over y.
`draws` are the runs that rliable drew for RESAMPLES resamples of `x`, flat, each resample
`[runs][tasks]` row by row, and `intervals` `[2]` (low, high) what it made of them, one for each of `mean`,
`iqm`, `median`, `optimality_gap` and `profile` (at the first threshold). `pair_draws` (each resample: all
of x, then all of y) and `improvement_interval` are the same for the probability of improvement.
`large_intervals` are those of `mean` and `iqm` over 20,000 resamples.

rliable draws from NumPy's global generator whatever it is passed; this script records those draws.

Versions: rliable 1.2.0, arch 7.2.0, numpy 2.4.6, scipy 1.17.1; arch 7.2 needs pandas below 3.
Run: `python tests/oracles/bootstrap.py`.
"""

import numpy as np
from rliable import library, metrics

import fixture

RESAMPLES = 60


class Recorded:
    """Stands in for `np.random.choice` and remembers what it drew."""

    def __init__(self):
        self.drawn = []
        self.choice = np.random.choice

    def __enter__(self):
        def choice(runs, shape, replace):
            drawn = self.choice(runs, shape, replace=replace)
            self.drawn.append(drawn.ravel())
            return drawn

        np.random.choice = choice
        return self

    def __exit__(self, *_):
        np.random.choice = self.choice

    def flat(self):
        return np.concatenate(self.drawn)


def interval(scores, func, reps):
    as_vector = lambda *arms: np.array([func(*arms)])
    points, intervals = library.get_interval_estimates({"arm": scores}, as_vector, reps=reps)
    return points["arm"][0], intervals["arm"][:, 0]


def case(name, seed, runs_x, runs_y, tasks, rounded=False):
    rng = np.random.default_rng(seed)
    draw = lambda runs, shift: fixture.grid(rng, (runs, tasks), 3.0) + shift + np.arange(tasks)
    x, y = draw(runs_x, 1.0), draw(runs_y, 0.0)
    if rounded:  # so that there are ties
        x, y = np.round(x), np.round(y)
    target = 2.0
    thresholds = np.array([-1.0, 0.0, 1.0, 2.5, 4.0])
    statistics = {
        "mean": metrics.aggregate_mean,
        "iqm": metrics.aggregate_iqm,
        "median": metrics.aggregate_median,
        "optimality_gap": lambda scores: metrics.aggregate_optimality_gap(scores, gamma=target),
        "profile": lambda scores: library.run_score_deviation(scores, thresholds[0]),
    }
    np.random.seed(seed)
    state = np.random.get_state()
    intervals = {}
    for key, statistic in statistics.items():
        np.random.set_state(state)
        with Recorded() as recorded:
            intervals[key] = interval(x, statistic, RESAMPLES)[1]
    with Recorded() as pairs:
        improvement, improvement_interval = interval([x, y], metrics.probability_of_improvement, RESAMPLES)
    large = {key: interval(x, statistics[key], 20_000)[1] for key in ("mean", "iqm")}
    return {
        "name": name,
        "x": x,
        "y": y,
        "target": target,
        "thresholds": thresholds,
        **{key: statistics[key](x) for key in ("mean", "iqm", "median", "optimality_gap")},
        "run_median": metrics.aggregate_median(x.reshape(1, -1)),
        "profile": library.score_distributions(x, thresholds),
        "improvement": improvement,
        "draws": recorded.flat(),
        "intervals": intervals,
        "pair_draws": pairs.flat(),
        "improvement_interval": improvement_interval,
        "large_intervals": large,
    }


cases = [
    case("five runs of one task", 0, 5, 5, 1),
    case("twelve runs against seven", 1, 12, 7, 1),
    case("ties", 2, 8, 6, 1, rounded=True),
    case("three tasks", 3, 6, 9, 3),
    case("four tasks with ties", 4, 5, 5, 4, rounded=True),
    case("two runs", 5, 2, 3, 1),
]
fixture.write(
    __file__,
    "Estimates and stratified bootstrap intervals of rliable; fields are explained in bootstrap.py",
    ["rliable", "arch", "numpy", "scipy"],
    cases,
)
