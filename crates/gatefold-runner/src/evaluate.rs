//! Playing episodes without learning: on held-out seeds, beside what needs no learning.

use std::path::Path;

use burn::module::AutodiffModule;
use gatefold_curriculum::Plan;
use gatefold_env::{
    Action, BatchEnv, EnvEntry, Episode, ObservationBatch, Purpose, StepResults, StreamRng, stream,
};
use gatefold_ops::OpsBackend;
use gatefold_policy::{Acting, Choice, Observation, ObservationScaling, Pick, RoutingInput};
use rand::RngExt;

use crate::assembly::{Parts, build_envs, on_device, on_threads};
use crate::events::{EpisodeMeans, Evaluation, Event, Reporter};
use crate::experiment::restore;
use crate::expert_use::UseCounter;
use crate::report::to_host;
use crate::{ExperimentConfig, RunError, RunOptions, Stop, checkpoint, layers};

/// Steps after which an episode counts as endless.
const LONGEST: u32 = 1_000_000;

/// Who plays.
pub(crate) enum Player<'a, B: OpsBackend> {
    /// A policy under a plan, its observations scaled as in training.
    Policy {
        policy: &'a Acting<'a, B>,
        plan: &'a Plan,
        scaling: Option<&'a ObservationScaling>,
        pick: Pick,
        experts: &'a [String],
        selection_bias: &'a [f32],
        device: &'a B::Device,
    },
    /// Uniform over allowed actions.
    Random,
    /// The environment's scripted policy.
    Scripted,
}

/// Plays `episodes` episodes, the first one of each environment of a batch, and returns them.
///
/// `None` if the player is the scripted policy and the environment has none, or after a signal. Taking the first
/// episode of each environment counts long and short ones alike.
pub(crate) fn play<B: OpsBackend>(
    player: &Player<'_, B>,
    envs: &mut dyn BatchEnv,
    rng: &mut StreamRng,
    mut counter: Option<&mut UseCounter>,
    stop: &Stop,
) -> Result<Option<Vec<Episode>>, RunError> {
    let (spec, count) = (envs.spec().clone(), envs.num_envs());
    let mut observations = ObservationBatch::new(&spec, count);
    let mut results = StepResults::new(&spec, count);
    let mut actions = vec![Action::Discrete(0); count];
    let mut choices = Vec::with_capacity(count);
    let mut first: Vec<Option<Episode>> = vec![None; count];
    envs.reset(observations.as_mut())?;
    for _ in 0..LONGEST {
        if stop.requested() {
            return Ok(None);
        }
        match player {
            Player::Policy { policy, plan, scaling, pick, selection_bias, device, .. } => {
                if let Some(at) = observations.features.iter().position(|x| !x.is_finite()) {
                    return Err(RunError::Stopped(format!(
                        "evaluation: an observation of environment {} is {}",
                        at / spec.num_features,
                        observations.features[at]
                    )));
                }
                if let Some(scaling) = scaling {
                    scaling.apply(&mut observations.features);
                }
                let observation = Observation::new(&spec, observations.clone(), *device);
                let drawn = policy.draw(plan.routing, count, rng, device);
                let input = RoutingInput {
                    drawn,
                    selection_bias: selection_bias.to_vec(),
                    ..RoutingInput::new(plan.routing, plan.temperature)
                };
                let evaluation = policy.act(&observation, input);
                if let (Some(counter), Some(gates)) = (counter.as_deref_mut(), evaluation.gates) {
                    let gates = to_host(gates.alpha);
                    let width = gates.len() / count;
                    for (env, gates) in gates.chunks_exact(width).enumerate() {
                        if first[env].is_none() {
                            counter.add(envs.regime(env), gates);
                        }
                    }
                }
                let logits = evaluation.logits;
                let logits: Vec<f32> =
                    logits.into_data().convert::<f32>().into_vec().expect("logits are f32");
                let mask = spec.masked.then_some(observations.mask.as_slice());
                Choice::rows(&logits, mask, spec.num_actions(), *pick, || rng.random(), &mut choices)
                    .map_err(|e| RunError::Stopped(format!("evaluation: {e}")))?;
                actions.iter_mut().zip(&choices).for_each(|(action, choice)| *action = choice.action);
            }
            Player::Random => {
                for (action, mask) in actions.iter_mut().zip(observations.mask.chunks(spec.num_actions())) {
                    *action = uniform(mask, rng)?;
                }
            }
            Player::Scripted => {
                if !envs.scripted(rng, &mut actions) {
                    return Ok(None);
                }
            }
        }
        envs.step(&actions, observations.as_mut(), &mut results)?;
        for episode in &results.finished {
            first[episode.env].get_or_insert(*episode);
        }
        if first.iter().all(Option::is_some) {
            return Ok(Some(first.into_iter().flatten().collect()));
        }
    }
    Err(RunError::Stopped(format!(
        "evaluation: an episode did not end within {LONGEST} steps; give the environment a time limit"
    )))
}

/// An action drawn evenly from those that the mask allows.
fn uniform(mask: &[bool], rng: &mut StreamRng) -> Result<Action, RunError> {
    let allowed = mask.iter().filter(|&&allowed| allowed).count();
    if allowed == 0 {
        return Err(RunError::Stopped("evaluation: the environment's mask allows no action".to_string()));
    }
    let nth = rng.random_range(0..allowed);
    let index =
        mask.iter().enumerate().filter(|&(_, &allowed)| allowed).nth(nth).map_or(0, |(index, _)| index);
    Ok(Action::Discrete(index))
}

fn means(episodes: &[Episode]) -> EpisodeMeans {
    let mean = |of: fn(&Episode) -> f64| episodes.iter().map(of).sum::<f64>() / episodes.len() as f64;
    EpisodeMeans {
        return_mean: mean(|e| e.episode_return),
        score_mean: mean(|e| e.score),
        length_mean: mean(|e| f64::from(e.length)),
    }
}

/// Evaluates a policy on the configuration's held-out seed; `None` after a signal; with `beside`, also the random and the
/// scripted policy on the same environments.
pub(crate) fn evaluate_policy<B: OpsBackend>(
    player: &Player<'_, B>,
    config: &ExperimentConfig,
    entries: &[EnvEntry],
    beside: bool,
    stop: &Stop,
) -> Result<Option<Evaluation>, RunError> {
    let (episodes, seed) = (config.eval.episodes, config.eval.seed);
    let mut counter = None;
    let mut played = |player: &Player<'_, B>| -> Result<Option<EpisodeMeans>, RunError> {
        let mut envs = build_envs(config, entries, episodes, seed)?;
        let mut rng = stream(seed, Purpose::Evaluation, 0);
        if let Player::Policy { experts, .. } = player {
            counter = UseCounter::new(experts, envs.regimes());
        }
        let counter = counter.as_mut().filter(|_| matches!(player, Player::Policy { .. }));
        Ok(play(player, envs.as_mut(), &mut rng, counter, stop)?.map(|episodes| means(&episodes)))
    };
    let Some(policy) = played(player)? else { return Ok(None) };
    let (random, scripted) =
        if beside { (played(&Player::Random)?, played(&Player::Scripted)?) } else { (None, None) };
    let experts = counter.map(UseCounter::report);
    Ok((!stop.requested()).then_some(Evaluation { policy, episodes, random, scripted, experts }))
}

/// Evaluates the newest whole checkpoint of a run, or one checkpoint, on held-out seeds.
///
/// The reporter is told of damaged checkpoints that were passed over.
pub fn evaluate(
    path: &Path,
    episodes: usize,
    deterministic: bool,
    options: &RunOptions,
    entries: &[EnvEntry],
    reporter: &mut dyn Reporter,
) -> Result<Evaluation, RunError> {
    let found = checkpoint::open(path)?;
    found.warnings.iter().for_each(|warning| reporter.event(&Event::Warning(warning.clone())));
    let name = found.path.join("config.toml").display().to_string();
    let mut config = layers::resolve(&name, &found.snapshot.config, &[], entries)?;
    config.eval.episodes = episodes;
    config.eval.deterministic |= deterministic;
    on_threads(options, || {
        on_device!(options.device, |device: B| {
            let mut parts = Parts::<B>::new(&config, entries, &device)?;
            let (state, _) = restore(&mut parts, &found, &device)?;
            let plan = parts.plan(state.counters.progress(config.run.total_steps, &state.window));
            let policy = parts.policy().valid();
            let player = Player::Policy {
                policy: &Acting::new(&policy),
                plan: &plan,
                scaling: parts.collector.scaling(),
                pick: pick(&config),
                experts: &parts.learner.experts,
                selection_bias: &parts.selection_bias,
                device: &device,
            };
            let stop = Stop::default(); // an evaluation alone has nothing to save: a signal ends it
            let evaluation = evaluate_policy(&player, &config, entries, true, &stop)?;
            Ok(evaluation.expect("nothing asks this one to stop"))
        })
    })
}

pub(crate) fn pick(config: &ExperimentConfig) -> Pick {
    if config.eval.deterministic { Pick::Mode } else { Pick::Sample }
}
