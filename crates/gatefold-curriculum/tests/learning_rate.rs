//! The learning rate's composition: one writer, a closed form, and the faults that must not return.

use gatefold_curriculum::{
    Applicable, Curriculum, CurriculumConfig, Decay, Health, Ladder, LadderConfig, LearningRate, Moment,
    Phase, Plan, Progress, Rung, WarmupConfig,
};

fn at_steps(env_steps: u64) -> Progress {
    Progress { env_steps, total_steps: 1_000_000, episodes: 0 }
}

fn plan(config: CurriculumConfig, minibatch: usize, progress: Progress) -> Plan {
    Curriculum::new(config, minibatch, 4).unwrap().plan(progress)
}

#[test]
fn the_learning_rate_is_the_product_of_scale_phase_warmup_and_cosine() {
    let config = CurriculumConfig { lr_scale: 3.0, ..CurriculumConfig::default() };
    let cases = [(0, 0, 1e-4), (100_000, 499, 1e-4), (300_000, 999, 5e-5), (800_000, 70_000, 1e-5)];
    for (env_steps, optimizer_step, phase_lr) in cases {
        let warmup = f64::min(1.0, (optimizer_step + 1) as f64 / 1000.0);
        let cosine = (1.0 + (std::f64::consts::PI * env_steps as f64 / 1e6).cos()) / 2.0;
        let expected = 3.0 * phase_lr * warmup * cosine;
        let rate = plan(config.clone(), 256, at_steps(env_steps)).learning_rate.at(optimizer_step);
        assert!((rate / expected - 1.0).abs() < 1e-14, "step {env_steps}: {rate} for {expected}");
    }
}

#[test]
fn a_warmup_fraction_counts_the_optimizer_steps_of_the_run() {
    // 1,000,000 samples, each in 4 epochs of minibatches of 250: 16,000 optimizer steps.
    let config = CurriculumConfig { lr_warmup_fraction: 0.1, ..CurriculumConfig::default() };
    assert_eq!(plan(config, 250, at_steps(0)).learning_rate.warmup_steps, 1600);
}

#[test]
fn the_learning_rate_after_warmup_is_the_phase_rate_not_two_ninths_of_it() {
    let config = CurriculumConfig { lr_decay: Decay::None, ..CurriculumConfig::default() };
    let mut curriculum = Curriculum::new(config, 256, 4).unwrap();
    // 100 optimizer steps per iteration: warmup ends with the tenth, inside the first phase.
    for iteration in 0..100 {
        let plan = curriculum.plan(at_steps(iteration * 10_000));
        let phase_lr = [1e-4, 5e-5, 1e-5][plan.phase.index()];
        for optimizer_step in iteration * 100..(iteration + 1) * 100 {
            let rate = plan.learning_rate.at(optimizer_step);
            if optimizer_step < 999 {
                assert!(rate < phase_lr, "warmup ended early, at step {optimizer_step}");
            } else {
                assert_eq!(rate, phase_lr, "step {optimizer_step}");
            }
        }
    }
}

#[test]
fn evaluating_rates_in_any_order_cannot_overwrite_the_phase_rate() {
    let config = CurriculumConfig { lr_decay: Decay::None, ..CurriculumConfig::default() };
    let mut scheduled = Curriculum::new(config.clone(), 256, 4).unwrap();
    let warmup = scheduled.plan(at_steps(0)).learning_rate;
    let forwards: Vec<_> = (0..2000).map(|step| warmup.at(step)).collect();
    let mut backwards: Vec<_> = (0..2000).rev().map(|step| warmup.at(step)).collect();
    backwards.reverse();
    assert_eq!(forwards, backwards);
    // A new phase starts from its own rate, whatever was evaluated before it.
    assert_eq!(scheduled.plan(at_steps(200_000)).learning_rate.at(2000), 5e-5);
    assert_eq!(scheduled.plan(at_steps(200_000)), plan(config, 256, at_steps(200_000)));
}

#[test]
fn linear_decay_equals_the_annealing_of_cleanrl() {
    // CleanRL: frac = 1 - (update - 1) / num_updates; lr = frac * learning_rate, updates from 1.
    let (num_updates, batch) = (976_u64, 512);
    let config = CurriculumConfig::dense(2.5e-4, 0.01, Decay::Linear);
    let mut curriculum = Curriculum::new(config, 128, 4).unwrap();
    for update in 1..=num_updates {
        let env_steps = (update - 1) * batch;
        let progress = Progress { env_steps, total_steps: num_updates * batch, episodes: 0 };
        let rate = curriculum.plan(progress).learning_rate;
        let expected = (1.0 - (update as f64 - 1.0) / num_updates as f64) * 2.5e-4;
        assert_eq!(rate.at((update - 1) * 16), expected, "first step of update {update}");
        assert_eq!(rate.at(update * 16 - 1), expected, "last step of update {update}");
    }
}

#[test]
fn minibatches_above_256_scale_the_rate_by_the_square_root_if_asked() {
    let config = CurriculumConfig {
        large_batch_scaling: true,
        warmup: WarmupConfig { lr: 1e-4, ..WarmupConfig::default() },
        ..CurriculumConfig::default()
    };
    let without = CurriculumConfig { large_batch_scaling: false, ..config.clone() };
    for (minibatch, factor) in [(64, 1.0), (256, 1.0), (1024, 2.0), (2304, 3.0)] {
        let rate = plan(config.clone(), minibatch, at_steps(0)).learning_rate.at(5000);
        assert_eq!(rate, factor * 1e-4, "minibatch {minibatch}");
        assert_eq!(plan(without.clone(), minibatch, at_steps(0)).learning_rate.at(5000), 1e-4);
    }
}

/// The rate at an optimizer step, re-derived from the step alone.
fn closed_form(phase: Phase, env_steps: u64, optimizer_step: u64) -> f64 {
    let phase_lr = [1e-4, 5e-5, 1e-5][phase.index()];
    let warmup = f64::min(1.0, (optimizer_step + 1) as f64 / 900.0);
    let cosine = (1.0 + (std::f64::consts::PI * env_steps as f64 / 1e6).cos()) / 2.0;
    2.0 * phase_lr * warmup * cosine
}

/// A warmup of 900 steps; the first phase ends with its 200th, far below its full rate.
fn warmed_up_over_phases() -> CurriculumConfig {
    CurriculumConfig {
        lr_scale: 2.0,
        lr_warmup_steps: 900,
        advance_when_healthy: true,
        ..CurriculumConfig::default()
    }
}

/// Every rate of a run of 1000 optimizer steps with phases, one of them late, warmup, cosine, a ladder
/// that goes all the way down, and a restart before each iteration that `restarts` names.
fn rates(restarts: impl Fn(u64) -> bool) -> Vec<f64> {
    let applicable = Applicable { graph: true, router: true, num_experts: 4 };
    let fresh = || {
        let ladder = LadderConfig { patience: 3, cooldown: 2, ..LadderConfig::default() };
        let curriculum = Curriculum::new(warmed_up_over_phases(), 256, 4).unwrap();
        (curriculum, Ladder::new(ladder, applicable).unwrap())
    };
    let (mut curriculum, mut ladder) = fresh();
    let mut rates = Vec::new();
    for iteration in 0..100 {
        if restarts(iteration) {
            let saved = serde_json::to_string(&(curriculum.state(), ladder.state())).unwrap();
            let (curriculum_state, ladder_state) = serde_json::from_str(&saved).unwrap();
            (curriculum, ladder) = fresh();
            curriculum.restore(curriculum_state);
            ladder.restore(ladder_state);
        }
        let env_steps = iteration * 10_000;
        let plan = ladder.limit(curriculum.plan(at_steps(env_steps)));
        for optimizer_step in iteration * 10..(iteration + 1) * 10 {
            let rate = plan.learning_rate.at(optimizer_step);
            let expected = closed_form(plan.phase, env_steps, optimizer_step);
            assert!((rate / expected - 1.0).abs() < 1e-13, "step {optimizer_step}: {rate} for {expected}");
            rates.push(rate);
        }
        let ill = (15..28).contains(&iteration) || (40..60).contains(&iteration);
        let health = if ill { Health::unhealthy("an alarm") } else { Health::healthy() };
        curriculum.observe(&health);
        ladder.observe(Moment { iteration, env_step: env_steps }, &health);
    }
    assert!(curriculum.entered()[1].due.is_some(), "the transition was to start late");
    assert_eq!(ladder.rung(), Rung::V2Routing, "the ladder was to go down");
    rates
}

#[test]
fn a_warmed_up_rate_never_becomes_the_base_of_a_recursive_scheduler() {
    // The fault: a scheduler multiplies the rate it finds, and what it finds was warmed up to 2/9.
    let base = 2e-4;
    let found = LearningRate { phase_rate: base, decay: 1.0, warmup_steps: 900 }.at(199);
    assert!((found / base - 2.0 / 9.0).abs() < 1e-15, "200 of 900 steps");

    let uninterrupted = rates(|_| false);
    assert_eq!(rates(|_| true), uninterrupted, "restarted before every iteration");
    assert_eq!(rates(|iteration| iteration == 20), uninterrupted, "restarted at the end of a phase");
    // Past warmup the rate is the whole of the phase's, with its decay, not 2/9 of it.
    let last_phase = 2.0 * 1e-5 * (1.0 + (std::f64::consts::PI * 0.9).cos()) / 2.0;
    assert!((uninterrupted[900] / last_phase - 1.0).abs() < 1e-13);
}
