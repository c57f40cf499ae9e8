//! The balance of delve over a thousand seeds: random play dies, and every habit of the scripted
//! policy earns its keep.

use std::thread;

use gatefold_env::{Action, Environment, EpisodeEnd, Purpose, stream};
use gatefold_envs::delve::{Deed, Delve, DelveConfig, NUM_ACTIONS, Scripted};
use rand::RngExt;

const SEEDS: u64 = 1000;

#[derive(Clone, Copy)]
enum Player {
    /// Uniform over the allowed actions.
    Random,
    Habits(Scripted),
}

struct Outcome {
    score: f64,
    died: bool,
}

fn play(player: Player, seed: u64) -> Outcome {
    let mut world = stream(seed, Purpose::Environment, 0);
    let mut choices = stream(seed, Purpose::Actions, 0);
    let mut game = Delve::new(&DelveConfig::default()).expect("the default configuration is valid");
    let limit = game.spec().max_episode_steps.expect("delve has a time limit");
    game.reset(&mut world);
    let mut score = 0.0;
    for _ in 0..limit {
        let deed = match player {
            Player::Random => {
                let allowed = (0..NUM_ACTIONS).map(Deed::from_index).filter(|&deed| game.allows(deed));
                let pick = choices.random_range(0..allowed.clone().count());
                allowed.clone().nth(pick).expect("a mask is never empty")
            }
            Player::Habits(habits) => habits.act(&game, &mut choices),
        };
        assert!(game.allows(deed), "{deed:?} is not allowed");
        let transition = game.step(Action::Discrete(deed.index()), &mut world);
        score = transition.score;
        if transition.end == Some(EpisodeEnd::Terminated) {
            return Outcome { score, died: true };
        }
    }
    Outcome { score, died: false }
}

fn play_all(player: Player) -> Vec<Outcome> {
    let workers = thread::available_parallelism().map_or(1, |n| n.get()) as u64;
    thread::scope(|scope| {
        let share = |worker: u64| SEEDS * worker / workers..SEEDS * (worker + 1) / workers;
        let handles: Vec<_> = (0..workers)
            .map(|worker| {
                scope.spawn(move || share(worker).map(|seed| play(player, seed)).collect::<Vec<_>>())
            })
            .collect();
        handles.into_iter().flat_map(|handle| handle.join().expect("no game panics")).collect()
    })
}

/// Mean score and the half-width of its 95% interval (normal; a thousand independent seeds).
fn interval(outcomes: &[Outcome]) -> (f64, f64) {
    let n = outcomes.len() as f64;
    let mean = outcomes.iter().map(|o| o.score).sum::<f64>() / n;
    let variance = outcomes.iter().map(|o| (o.score - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, 1.96 * (variance / n).sqrt())
}

#[test]
#[cfg_attr(debug_assertions, ignore = "a thousand games each: run with --release")]
fn a_random_policy_dies_in_more_than_half_of_its_games_and_scores_a_fraction() {
    let outcomes = play_all(Player::Random);
    let deaths = outcomes.iter().filter(|o| o.died).count();
    assert!(deaths > outcomes.len() / 2, "{deaths} deaths");
    let (random, _) = interval(&outcomes);
    let (scripted, _) = interval(&play_all(Player::Habits(Scripted::default())));
    assert!(scripted > 5.0 * random, "scripted {scripted:.1}, random {random:.1}");
}

#[test]
#[cfg_attr(debug_assertions, ignore = "a thousand games each: run with --release")]
fn without_any_one_of_its_habits_the_scripted_policy_loses_a_quarter_of_its_score() {
    let all = Scripted::default();
    let (full, half_width) = interval(&play_all(Player::Habits(all)));
    let without = [
        ("survival", Scripted { survival: false, ..all }),
        ("combat", Scripted { combat: false, ..all }),
        ("exploration", Scripted { exploration: false, ..all }),
    ];
    for (habit, habits) in without {
        let (score, spread) = interval(&play_all(Player::Habits(habits)));
        assert!(score <= 0.75 * full, "without {habit} {score:.1} of {full:.1}");
        assert!(score + spread < full - half_width, "without {habit} the intervals overlap");
    }
}
