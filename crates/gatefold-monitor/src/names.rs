//! The names of all metrics, in the manner of CleanRL and Stable-Baselines3: `group/metric`.

/// Declares the constants and the list of all of them.
macro_rules! names {
    ($($(#[$about:meta])* $constant:ident = $name:literal;)*) => {
        $($(#[$about])* pub const $constant: &str = $name;)*

        /// Every fixed name, in the order of this file. the functions below make the others.
        pub const ALL: &[&str] = &[$($constant),*];
    };
}

names! {
    /// Mean undiscounted raw return of the last 100 finished episodes.
    ROLLOUT_RETURN_MEAN = "rollout/return_mean";
    /// Mean score, as the environment defines it, of the last 100 finished episodes.
    ROLLOUT_SCORE_MEAN = "rollout/score_mean";
    /// Mean length of the last 100 finished episodes, in environment steps.
    ROLLOUT_LENGTH_MEAN = "rollout/length_mean";
    /// Episodes finished since the run's start.
    ROLLOUT_EPISODES = "rollout/episodes";
    /// Mean value that the critic predicted in this rollout, in units of scaled rewards.
    ROLLOUT_VALUE_MEAN = "rollout/value_mean";
    /// Mean magnitude of this rollout's raw rewards; exactly 0 if no step was rewarded.
    ROLLOUT_REWARD_ABS_MEAN = "rollout/reward_abs_mean";

    /// Mean of `(ratio - 1) - ln ratio`, an estimate of KL(old || new) that is never negative.
    TRAIN_APPROX_KL = "train/approx_kl";
    /// Fraction of samples whose ratio left the trusted band.
    TRAIN_CLIP_FRACTION = "train/clip_fraction";
    /// `1 - Var(returns - values) / Var(returns)`, of the values predicted in the rollout.
    TRAIN_EXPLAINED_VARIANCE = "train/explained_variance";
    /// Mean entropy of the action distribution, in nats.
    TRAIN_ENTROPY = "train/entropy";
    /// Mean clipped surrogate loss.
    TRAIN_POLICY_LOSS = "train/policy_loss";
    /// Mean value loss, before its coefficient.
    TRAIN_VALUE_LOSS = "train/value_loss";
    /// Mean value loss of the second critic, half the mean square, before its coefficient.
    TRAIN_SECOND_VALUE_LOSS = "train/second_value_loss";
    /// Mean of the whole loss, the quantity that is differentiated.
    TRAIN_LOSS = "train/loss";
    /// Mean global gradient norm before clipping.
    TRAIN_GRAD_NORM = "train/grad_norm";
    /// Fraction of optimizer steps whose gradient was clipped.
    TRAIN_GRAD_CLIPPED_FRACTION = "train/grad_clipped_fraction";
    /// Learning rate of the iteration's last optimizer step.
    TRAIN_LEARNING_RATE = "train/learning_rate";
    /// Largest |ratio - 1| on the first minibatch, where rollout and update hold the same parameters:
    /// the two compute the same function only if this is rounding error.
    TRAIN_RATIO_DEVIATION_FIRST = "train/ratio_deviation_first";
    /// Optimizer steps since the run's start.
    TRAIN_OPTIMIZER_STEPS = "train/optimizer_steps";
    /// Standard deviation of the rollout's advantages before they are normalised, in units of scaled
    /// rewards.
    TRAIN_ADVANTAGE_STD = "train/advantage_std";
    /// `sd(values) / sd(returns)` over the rollout; near 0 if the critic predicts one number.
    TRAIN_VALUE_SD_RATIO = "train/value_sd_ratio";
    /// `1 - mean (returns - values)^2 / Var(returns)` over the rollout: how much better than the best
    /// constant. Unlike `train/explained_variance` it counts a wrong mean.
    TRAIN_VALUE_SKILL = "train/value_skill";
    /// Largest gradient norm of a single tensor before clipping, over the iteration's steps.
    TRAIN_GRAD_NORM_MAX_TENSOR = "train/grad_norm_max_tensor";
    /// Share of the rollout's steps that took its most frequent action, 0 to 1.
    TRAIN_ACTION_MAX_SHARE = "train/action_max_share";
    /// Variance of `train/loss` over the last 50 updates (one update per iteration).
    TRAIN_LOSS_VARIANCE_50 = "train/loss_variance_50";
    /// Variance of `train/loss` over the last 100 updates.
    TRAIN_LOSS_VARIANCE_100 = "train/loss_variance_100";

    /// Mean entropy of one decision's gates `mean_b H(alpha_b)`, in nats.
    ROUTER_ENTROPY = "router/entropy";
    /// Entropy of the mean gates `H(mean_b alpha_b) / ln K`, 0 to 1; low means that experts are unused.
    ROUTER_USAGE_ENTROPY = "router/usage_entropy";
    /// `H(mean_b alpha_b) - mean_b H(alpha_b)`, in nats; 0 if the router ignores its input.
    ROUTER_SPECIALISATION = "router/specialisation";
    /// Mean number of experts with a gate above 0.
    ROUTER_SUPPORT = "router/support";
    /// How far the router moved in this iteration: `mean_{b,k} |p_k(x_b) - p'_k(x_b)|`, where `p` is
    /// `softmax(z / tau)` after and `p'` before the update, both at the iteration's temperature, on what
    /// the router read before it at the rollout's start. Exactly 0 if the router does not learn.
    ROUTER_DRIFT = "router/drift";
    /// Largest age of an expert: iterations since its mean gate was above a small share.
    ROUTER_DEAD_AGE = "router/dead_age";
    /// Mean attention entropy over the layers, normalised by ln(degree), 0 to 1.
    GAT_ATTENTION_ENTROPY = "gat/attention_entropy";

    /// Mean load-balance loss, before its coefficient.
    LOSSES_LOAD_BALANCE = "losses/load_balance";
    /// Mean diversity loss, before its coefficient.
    LOSSES_DIVERSITY = "losses/diversity";
    /// Mean entropy of the gates in the update, in nats, before its signed coefficient.
    LOSSES_GATE_ENTROPY = "losses/gate_entropy";
    /// Mean alignment of routing with operator scores, a KL divergence in nats, before its coefficient.
    LOSSES_ALIGNMENT = "losses/alignment";
    /// Mean absolute cosine of expert pairs, before its coefficient.
    LOSSES_SEMANTIC = "losses/semantic";
    /// Mean gate-weighted cosine of expert pairs, before its coefficient.
    LOSSES_OVERLAP = "losses/overlap";
    /// Mean squared change of gates between adjacent steps, before its coefficient.
    LOSSES_TEMPORAL = "losses/temporal";
    /// Squared coefficient of variation of the experts' importance, before its coefficient.
    LOSSES_IMPORTANCE = "losses/importance";
    /// Mean squared log-sum-exp of the router's logits, before its coefficient.
    LOSSES_ROUTER_Z = "losses/router_z";
    /// Squared distance of the attention's Gini coefficient from 0.3, before its coefficient.
    LOSSES_ATTENTION_GINI = "losses/attention_gini";
    /// Mean cross-entropy of the next step's operators, in nats, before its coefficient.
    LOSSES_NEXT_OPERATOR = "losses/next_operator";
    /// Mean squared second difference of adjacent states, before its coefficient.
    LOSSES_PET = "losses/pet";
    /// Variance of `losses/pet` over the last 50 updates.
    LOSSES_PET_VARIANCE_50 = "losses/pet_variance_50";
    /// Variance of `losses/pet` over the last 100 updates.
    LOSSES_PET_VARIANCE_100 = "losses/pet_variance_100";

    /// Loss of supervised learning on training data, in its own units.
    SUPERVISED_LOSS = "supervised/loss";
    /// Loss of supervised learning on held-out episodes.
    SUPERVISED_VALIDATION_LOSS = "supervised/validation_loss";
    /// Accuracy of supervised learning on training data, 0 to 1.
    SUPERVISED_ACCURACY = "supervised/accuracy";
    /// Accuracy of supervised learning on held-out episodes, 0 to 1.
    SUPERVISED_VALIDATION_ACCURACY = "supervised/validation_accuracy";
    /// Variance of `supervised/accuracy` over the last 50 updates.
    SUPERVISED_ACCURACY_VARIANCE_50 = "supervised/accuracy_variance_50";
    /// Variance of `supervised/accuracy` over the last 100 updates.
    SUPERVISED_ACCURACY_VARIANCE_100 = "supervised/accuracy_variance_100";

    /// Events of the numerical guard since the run's start: discarded updates and dumps.
    GUARD_EVENTS = "guard/events";
    /// Updates that were discarded since the run's start.
    GUARD_DISCARDED_UPDATES = "guard/discarded_updates";
    /// Attempts at the present healthy snapshot; 0 while updates go through.
    GUARD_ATTEMPTS = "guard/attempts";
    /// Share of the last 20 iterations that were discarded, since the run's start or the ladder's last step.
    GUARD_DISCARD_RATE = "guard/discard_rate";
    /// Rung of the fallback ladder: 0 full, 1 freeze-gat, 2 softmax-only, 3 fewer-experts, 4 v2-routing.
    LADDER_RUNG = "ladder/rung";
    /// Alarms that stand in this iteration.
    MONITOR_ALARMS = "monitor/alarms";
    /// Warnings that stand in this iteration.
    MONITOR_WARNINGS = "monitor/warnings";

    /// Phase of the curriculum: 0 warmup, 1 transition, 2 fine-tune.
    CURRICULUM_PHASE = "curriculum/phase";
    /// Divisor of the router's logits.
    CURRICULUM_TEMPERATURE = "curriculum/temperature";
    /// Weight of sparsemax against softmax, 0 to 1; absent where neither routes.
    CURRICULUM_BLEND = "curriculum/blend";

    /// What raw rewards were divided by in this iteration.
    REWARD_SCALE = "reward/scale";

    /// Mean undiscounted raw return of the evaluation's episodes.
    EVAL_RETURN_MEAN = "eval/return_mean";
    /// Mean score of the evaluation's episodes.
    EVAL_SCORE_MEAN = "eval/score_mean";
    /// Mean length of the evaluation's episodes, in environment steps.
    EVAL_LENGTH_MEAN = "eval/length_mean";
    /// Episodes of the evaluation.
    EVAL_EPISODES = "eval/episodes";

    /// Iterations (rollout and update) since the run's start.
    TIME_ITERATION = "time/iteration";
    /// Environment steps since the run's start, over all environments.
    TIME_ENV_STEPS = "time/env_steps";
    /// Environment steps per second of wall time over the run so far, as CleanRL's SPS.
    TIME_STEPS_PER_SECOND = "time/steps_per_second";
    /// Wall time of this iteration up to its update, in seconds: the rollout, its scaling and its advantages.
    TIME_ROLLOUT = "time/rollout";
    /// Time of the environments' steps in this iteration's rollout, in seconds: of each thread, on average.
    TIME_ROLLOUT_ENV = "time/rollout_env";
    /// Wall time of this iteration's rollout outside the environments, in seconds: evaluating the policy,
    /// choosing actions, keeping what was seen.
    TIME_ROLLOUT_POLICY = "time/rollout_policy";
    /// Wall time of this iteration's update, in seconds.
    TIME_UPDATE = "time/update";
    /// Wall time of the run so far, in seconds.
    TIME_TOTAL = "time/total";
}

/// `router/usage/<expert>`: the expert's mean gate; over the experts these sum to 1.
pub fn usage(expert: &str) -> String {
    format!("router/usage/{expert}")
}

/// `router/probability/<expert>`: the expert's mean routing probability `softmax(z / tau)`; above 0 even
/// where sparse routing never opens its gate.
pub fn probability(expert: &str) -> String {
    format!("router/probability/{expert}")
}

/// `gat/layer<i>/<what>`, with what one of `attention_entropy` (0 to 1), `attention_variance` and
/// `smoothness` (mean cosine distance of node vectors; near 0 is over-smoothing).
pub fn gat_layer(layer: usize, what: &str) -> String {
    format!("gat/layer{layer}/{what}")
}

/// `losses/<loss>_<what>`: a statistic of an auxiliary loss on the iteration's first minibatch, such as
/// `losses/alignment_agreement`.
pub fn loss_statistic(loss: &str, what: &str) -> String {
    format!("{loss}_{what}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn well_formed(name: &str) -> bool {
        let word = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_lowercase())
                && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
                && !part.ends_with('_')
        };
        name.contains('/') && name.split('/').all(word)
    }

    #[test]
    fn every_name_is_a_group_and_a_metric_in_snake_case() {
        for name in ALL {
            assert!(well_formed(name), "{name}");
        }
        for malformed in ["loss", "Train/loss", "train/", "train/loss 2", "/loss", "train//loss"] {
            assert!(!well_formed(malformed), "{malformed}");
        }
    }

    #[test]
    fn names_are_unique_and_no_name_is_the_group_of_another() {
        let unique: HashSet<_> = ALL.iter().collect();
        assert_eq!(unique.len(), ALL.len());
        for name in ALL {
            let group = format!("{name}/");
            assert!(!ALL.iter().any(|other| other.starts_with(&group)), "{name} is a group too");
        }
    }

    #[test]
    fn each_expert_has_a_usage_of_its_own() {
        assert_eq!(usage("survival"), "router/usage/survival");
        assert!(!ALL.contains(&"router/usage"), "a name and a group at once");
    }
}
