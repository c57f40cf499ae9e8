//! The last word of a run.

use serde::{Deserialize, Serialize};

/// What `summary.json` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// The environment.
    pub env: String,
    /// The run's seed.
    pub seed: u64,
    /// Environment steps taken.
    pub total_steps: u64,
    /// Seconds of training, over all sittings of a resumed run.
    pub wall_s: f64,
    /// Environment steps per second of training.
    pub steps_per_second: f64,
    /// Mean raw return of the last 100 training episodes; `None` before the first has ended.
    pub train_return_mean: Option<f64>,
    /// Mean raw return of the final evaluation.
    pub eval_return_mean: Option<f64>,
    /// Mean score of the final evaluation.
    pub eval_score_mean: Option<f64>,
    /// Episodes of the final evaluation.
    pub eval_episodes: usize,
    /// Environment steps at which the mean return first reached `run.target_return`.
    pub steps_to_target: Option<u64>,
    /// Seconds of training until then.
    pub seconds_to_target: Option<f64>,
    /// Trainable parameters.
    pub params: usize,
    /// `cpu` or `cuda`.
    pub device: String,
    /// Worker threads.
    pub threads: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_exactly_the_documented_keys() {
        let summary = Summary {
            env: "corridor".into(),
            seed: 1,
            total_steps: 2,
            wall_s: 3.0,
            steps_per_second: 4.0,
            train_return_mean: None,
            eval_return_mean: Some(5.0),
            eval_score_mean: Some(6.0),
            eval_episodes: 7,
            steps_to_target: None,
            seconds_to_target: None,
            params: 8,
            device: "cpu".into(),
            threads: 9,
        };
        let value = serde_json::to_value(&summary).unwrap();
        let keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        let documented = "env, seed, total_steps, wall_s, steps_per_second, train_return_mean, \
            eval_return_mean, eval_score_mean, eval_episodes, steps_to_target, seconds_to_target, params, \
            device, threads";
        assert_eq!(keys.join(", "), documented);
        assert_eq!(serde_json::from_value::<Summary>(value).unwrap(), summary);
    }
}
