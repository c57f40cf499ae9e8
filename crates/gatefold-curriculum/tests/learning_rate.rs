//! The learning rate's composition: one writer, a closed form, and the faults that must not return.

use gatefold_curriculum::{Curriculum, CurriculumConfig, Decay, Plan, Progress, WarmupConfig};

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
