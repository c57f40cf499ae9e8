//! Rungs that the user sets, at the start and between two sittings.

use std::path::Path;

use gatefold_curriculum::Rung;
use gatefold_runner::checkpoint;
use gatefold_runner::events::{Happening, Silent};
use gatefold_runner::{StepFrom, apply_rung, resume, train};
use gatefold_tests::camp;
use gatefold_tests::copies::copy_folder;

use crate::runs::*;

fn at_start(rung: Rung) -> Ran {
    ran(CALM, &[format!("ladder.start={rung}")])
}

#[test]
fn each_rung_set_by_hand_has_its_effects_and_those_of_the_rungs_above() {
    let full = at_start(Rung::Full);
    for rung in Rung::ALL {
        let run = at_start(rung);
        let (first, last) = (&run.saved[0], run.saved.last().expect("checkpoints"));
        let moved = parts(&differing(&first.policy, &last.policy)).join(" ");
        let graph = if rung >= Rung::FreezeGat { "" } else { "graph " };
        assert_eq!(moved, format!("actor_trunk critic_trunk {graph}head router value"), "{rung}");
        assert!(run.metrics.iter().all(|line| number(line, "ladder/rung") == rung.index() as f64));

        let line = run.metrics.last().expect("iterations");
        let support = number(line, "router/support");
        match rung {
            Rung::Full | Rung::FreezeGat => assert!(support < 3.0, "{rung}: sparsemax at {support}"),
            Rung::SoftmaxOnly => assert_eq!(support, 4.0, "{rung}"),
            Rung::FewerExperts => assert_eq!(support, 2.0, "{rung}"),
            Rung::V2Routing => assert_eq!(support, 1.0, "{rung}"),
        }
        let usage = |expert: &str| line[format!("router/usage/{expert}")].as_f64();
        let all = ["survival", "combat", "exploration", "general"].map(usage);
        assert_eq!(all[1].is_some() && all[2].is_some(), rung < Rung::FewerExperts, "{rung}: {all:?}");
        let sum: f64 = all.iter().flatten().sum();
        assert!((sum - 1.0).abs() < 1e-6, "{rung}: gates sum to {sum}");
        for line in &run.metrics {
            assert!(number(line, "train/ratio_deviation_first") <= 1e-5, "{rung}");
        }

        let start = &full.saved[0];
        let expected =
            if rung >= Rung::FewerExperts { narrowed(&start.policy) } else { start.policy.clone() };
        let fresh = parts(&differing(&first.policy, &expected)).join(" ");
        assert_eq!(fresh, if rung == Rung::V2Routing { "router" } else { "" }, "{rung}");
    }
}

#[test]
fn a_rung_that_changes_nothing_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let overrides = ["ladder.start=fewer-experts", "policy.experts=[\"survival\", \"general\"]"];
    let config = config(CALM, &overrides.map(String::from));
    let error = train(&config, &options(&run), &[camp::ENTRY], &mut Silent).unwrap_err().to_string();
    assert!(error.contains("fewer-experts") && error.contains("softmax-only"), "{error}");
    assert!(!run.exists());
}

#[test]
fn rungs_set_by_hand_take_and_give_back_whatever_the_way() {
    use Rung::{FewerExperts, FreezeGat, Full, V2Routing};
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let entries = [camp::ENTRY];
    let overrides = ["losses.load_balance=bias", "curriculum.routing=top-k"].map(String::from);
    train(&config(CALM, &overrides), &options(&run), &entries, &mut Silent).unwrap();
    let newest = |run: &Path| present(checkpoint::open(run).unwrap().snapshot.policy);
    let whole = newest(&run);
    let ways: [&[Rung]; 6] = [
        &[FewerExperts, Full],
        &[V2Routing, Full],
        &[FewerExperts, V2Routing, Full],
        &[FewerExperts, V2Routing, FewerExperts, Full],
        &[V2Routing, FewerExperts, FreezeGat, Full],
        &[FewerExperts, Full, V2Routing, FewerExperts, Full],
    ];
    for (i, way) in ways.into_iter().enumerate() {
        let copy = folder.path().join(format!("copy{i}"));
        copy_folder(&run, &copy);
        for &rung in way {
            apply_rung(&copy, rung, StepFrom::Present, None, &options(&copy), &entries, &mut Silent).unwrap();
            let now = newest(&copy);
            let expected = if rung >= FewerExperts { narrowed(&whole) } else { whole.clone() };
            let fresh = parts(&differing(&now, &expected)).join(" ");
            assert_eq!(fresh, if rung == V2Routing { "router" } else { "" }, "{rung} of {way:?}");
        }
        let more = ["run.total_steps=480".to_string()];
        resume(&copy, &more, &options(&copy), &entries, &mut Silent).unwrap();
        assert!(parts(&differing(&newest(&copy), &whole)).contains(&"graph"), "{way:?}: it learns again");
    }
}

#[test]
fn a_step_by_hand_begins_with_the_present_weights_or_with_the_last_healthy_ones() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let entries = [camp::ENTRY];
    let overrides = [
        "run.total_steps=384",
        "ladder.automatic=false",
        "curriculum.warmup_until=1.0",
        "curriculum.transition_until=1.0",
    ];
    train(&config(STORMY, &overrides.map(String::from)), &options(&run), &entries, &mut Silent).unwrap();
    // The first window is full after the second iteration, which is unhealthy already.
    for (from, iteration) in [(StepFrom::Present, 4), (StepFrom::LastHealthy, 1)] {
        let copy = folder.path().join(format!("from-{iteration}"));
        let mut told = Happenings::default();
        let change =
            apply_rung(&run, Rung::FreezeGat, from, Some(&copy), &options(&copy), &entries, &mut told);
        assert_eq!(change.unwrap().env_steps, 384, "counters are those of the checkpoint");
        let expected = checkpoint::open(&run.join(format!("checkpoints/step-{:012}", STEPS * iteration)));
        let now = checkpoint::open(&copy).unwrap().snapshot;
        let expected = expected.unwrap().snapshot;
        assert_eq!(differing(&present(expected.policy), &present(now.policy)), Vec::<String>::new());
        assert_eq!(differing(&present(expected.optimizer), &present(now.optimizer)), Vec::<String>::new());
        let back = told.0.iter().filter_map(|event| match event.what {
            Happening::RolledBack { to_env_step, .. } => Some(to_env_step),
            _ => None,
        });
        let expected = if from == StepFrom::LastHealthy { vec![STEPS] } else { vec![] };
        assert_eq!(back.collect::<Vec<_>>(), expected);
    }
}
