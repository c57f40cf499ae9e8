//! The rules of delve as a player sees them: score, options, knowledge and picture.

use gatefold_env::{Action, Batch, BatchEnv, Environment, EpisodeEnd, Purpose, StepResults, stream};
use gatefold_env::{ObservationBatch, StreamRng};
use gatefold_envs::delve::{Deed, Delve, DelveConfig, NUM_ACTIONS, Scripted};
use rand::RngExt;

fn new_game(config: &DelveConfig, seed: u64) -> (Delve, StreamRng) {
    let mut rng = stream(seed, Purpose::Environment, 0);
    let mut game = Delve::new(config).unwrap();
    game.reset(&mut rng);
    (game, rng)
}

fn random_deed(game: &Delve, rng: &mut StreamRng) -> Deed {
    let allowed: Vec<_> = (0..NUM_ACTIONS).map(Deed::from_index).filter(|&deed| game.allows(deed)).collect();
    allowed[rng.random_range(0..allowed.len())]
}

fn take(game: &mut Delve, deed: Deed, rng: &mut StreamRng) -> gatefold_env::Transition {
    game.step(Action::Discrete(deed.index()), rng)
}

#[test]
fn the_score_never_falls_and_is_gold_plus_experience_plus_fifty_per_level() {
    for seed in 0..30 {
        let (mut game, mut rng) = new_game(&DelveConfig::default(), seed);
        let (mut last, mut rewards) = (0.0, 0.0);
        for turn in 0..600 {
            let deed = if turn % 10 == 0 {
                random_deed(&game, &mut rng)
            } else {
                Scripted::default().act(&game, &mut rng)
            };
            let transition = take(&mut game, deed, &mut rng);
            rewards += f64::from(transition.reward);
            let sum = game.gold() + game.experience() + 50 * (u32::from(game.depth()) - 1);
            assert_eq!(transition.score, f64::from(sum));
            assert!(transition.score >= last);
            last = transition.score;
            assert_eq!(transition.end == Some(EpisodeEnd::Terminated), game.hit_points() <= 0);
            if transition.end.is_some() {
                break;
            }
        }
        assert!((10.0 * rewards - last).abs() < 1e-2, "rewards {rewards} for a score of {last}");
    }
}

#[test]
fn max_steps_truncates() {
    for max_steps in [5, 9] {
        let config = DelveConfig { max_steps, ..DelveConfig::default() };
        let mut batch = Batch::<Delve>::new(&config, 1, 1).unwrap();
        let mut observations = ObservationBatch::new(batch.spec(), 1);
        let mut results = StepResults::new(batch.spec(), 1);
        batch.reset(observations.as_mut()).unwrap();
        let mut steps = 0;
        while results.finished.is_empty() {
            let rest = [Action::Discrete(Deed::Rest.index())];
            batch.step(&rest, observations.as_mut(), &mut results).unwrap();
            steps += 1;
        }
        assert_eq!((steps, results.ends[0]), (max_steps, Some(EpisodeEnd::Truncated)));
    }
}

#[test]
fn levels_bounds_the_depth_and_the_last_level_has_no_stairs() {
    for levels in [1, 2, 5] {
        let config = DelveConfig { levels, monsters: 0.0, ..DelveConfig::default() };
        let (mut game, mut rng) = new_game(&config, 3);
        for _ in 0..600 {
            let deed = Scripted::default().act(&game, &mut rng);
            take(&mut game, deed, &mut rng);
        }
        assert_eq!(game.depth(), levels);
    }
}

#[test]
fn monsters_scales_the_danger() {
    let damage = |monsters| {
        let config = DelveConfig { monsters, ..DelveConfig::default() };
        let hurt = |seed| {
            let (mut game, mut rng) = new_game(&config, seed);
            let mut lost = 0;
            for _ in 0..150 {
                let before = game.hit_points();
                let deed = Scripted::default().act(&game, &mut rng);
                take(&mut game, deed, &mut rng);
                lost += (before - game.hit_points()).max(0);
            }
            lost
        };
        (0..60).map(hurt).sum::<i16>()
    };
    let [none, usual, twice] = [0.0, 1.0, 2.0].map(damage);
    assert!(none == 0 && usual > 100 && 5 * twice > 6 * usual, "{none}, {usual}, {twice}");
}

#[test]
fn a_secret_door_is_a_wall_until_it_is_searched_for() {
    let rows = ["########", "#@?..$.#", "########"];
    let mut game = Delve::from_map(&DelveConfig::default(), &rows, false).unwrap();
    let mut rng = stream(1, Purpose::Environment, 0);
    assert!(!game.allows(Deed::Step(2)) && game.allows(Deed::Search));
    assert!(game.render().unwrap().contains("#@#"));
    take(&mut game, Deed::Search, &mut rng);
    assert!(game.allows(Deed::Step(2)) && !game.allows(Deed::Search));
    assert!(game.render().unwrap().contains("#@+"));
    for deed in [Deed::Step(2), Deed::Explore, Deed::Explore, Deed::Collect] {
        assert!(game.allows(deed), "{deed:?}");
        take(&mut game, deed, &mut rng);
    }
    assert_eq!(game.gold(), 10);
}

#[test]
fn the_picture_shows_what_is_known_and_nothing_else() {
    let rows = ["#########", "#@.%+..k#", "#!).#..>#", "#########"];
    let picture = |lit| Delve::from_map(&DelveConfig::default(), &rows, lit).unwrap().render().unwrap();
    let lit = picture(true);
    assert!(lit.starts_with("#########\n#@.%+..k#\n#!).#..>#\n#########\n"), "{lit}");
    let dark = picture(false);
    assert!(dark.starts_with("###\n#@.\n#!)\n\n"), "{dark}");
    for seed in 0..50 {
        let (game, _) = new_game(&DelveConfig::default(), seed);
        assert_eq!(game.render().unwrap().matches('@').count(), 1);
    }
}

#[test]
fn a_drawn_map_that_cannot_be_played_is_refused() {
    let cases: [(&[&str], &str); 3] = [
        (&["###", "#.#", "###"], "need one `@`"),
        (&["#@#", "#.#", "###"], "the border must be wall"),
        (&["####", "#@Z#", "####"], "an unknown letter"),
    ];
    for (rows, expected) in cases {
        let message = Delve::from_map(&DelveConfig::default(), rows, true).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}
