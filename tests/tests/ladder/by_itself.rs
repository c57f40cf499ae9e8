//! Steps that the ladder makes on unhealthy and on healthy iterations.

use gatefold_curriculum::Rung;
use gatefold_runner::checkpoint::NamedTensor;
use gatefold_runner::events::{Happening, RunEvent};

use crate::runs::*;

/// A step of the ladder: iterations done when it was made, the rungs, and the iteration of the state
/// that it started from.
struct Step {
    at: usize,
    from: String,
    to: String,
    by: String,
    evidence: String,
    base: usize,
}

fn steps(run: &Ran) -> Vec<Step> {
    let mut base = None;
    let mut steps = Vec::new();
    for RunEvent { iteration, what, .. } in &run.happened {
        match what {
            Happening::RolledBack { to_env_step, .. } => base = Some((to_env_step / STEPS) as usize),
            Happening::LadderStep { from, to, by, evidence } => {
                let (from, to, by, evidence) = (from.clone(), to.clone(), by.clone(), evidence.clone());
                let at = *iteration as usize;
                steps.push(Step { at, from, to, by, evidence, base: base.take().unwrap_or(at) });
            }
            _ => (),
        }
    }
    steps
}

#[test]
fn lasting_trouble_leads_down_every_rung_from_the_last_healthy_state_and_lasting_health_back_up() {
    let run = ran(STORMY, &[]);
    let steps = steps(&run);
    let names: Vec<String> = Rung::ALL.iter().map(ToString::to_string).collect();
    let down = names.windows(2).map(|pair| (pair[0].as_str(), pair[1].as_str(), "monitors"));
    let up = names.windows(2).rev().map(|pair| (pair[1].as_str(), pair[0].as_str(), "recovery"));
    let expected: Vec<_> = down.chain(up).collect();
    let told: Vec<_> = steps.iter().map(|s| (s.from.as_str(), s.to.as_str(), s.by.as_str())).collect();
    assert_eq!(told, expected);
    for step in &steps[..4] {
        assert!(step.evidence.starts_with("2 unhealthy iterations in a row"), "{}", step.evidence);
        assert!(step.evidence.contains("approx-kl"), "{}", step.evidence);
        assert_eq!(step.base, step.at - 2, "the last healthy state is from before two unhealthy ones");
    }
    for step in &steps[4..] {
        assert_eq!(step.evidence, "3 healthy iterations in a row");
    }
    let [freeze, softmax, fewer, v2, to_fewer, to_softmax, to_freeze, to_full] = &steps[..] else {
        panic!("eight steps")
    };

    // Steps that change no shape return to the healthy state, whole.
    for step in [freeze, softmax] {
        let (base, after) = (&run.saved[step.base], &run.saved[step.at]);
        assert_eq!(differing(&base.policy, &after.policy), Vec::<String>::new(), "{}", step.to);
        assert_eq!(differing(&base.moments, &after.moments), Vec::<String>::new(), "{}", step.to);
    }
    let graph = |saved: &Saved| -> Vec<NamedTensor> {
        saved.policy.values().filter(|t| t.path.starts_with("graph.")).cloned().collect()
    };
    for saved in &run.saved[freeze.at..=to_full.at] {
        assert_eq!(graph(saved), graph(&run.saved[freeze.base]), "held fixed");
    }
    assert_ne!(graph(&run.saved[0]), graph(&run.saved[1]), "it learned before");
    assert_ne!(graph(run.saved.last().unwrap()), graph(&run.saved[to_full.at]), "and learns again");

    // Two experts stay, with weights and moments; the router's moments start anew.
    let (base, after) = (&run.saved[fewer.base], &run.saved[fewer.at]);
    assert_eq!(differing(&narrowed(&base.policy), &after.policy), Vec::<String>::new());
    let fresh = differing(&narrowed(&base.moments), &after.moments);
    assert_eq!(parts(&fresh), ["router"]);
    let router = after.moments.values().filter(|t| t.path.starts_with("router."));
    assert!(router.flat_map(|t| &t.data).all(|&x| x == 0.0), "fresh moments are 0");
    let told = run.metrics[fewer.at..v2.at].iter();
    for line in told.chain(&run.metrics[to_fewer.at..to_softmax.at]) {
        let sum = number(line, "router/usage/survival") + number(line, "router/usage/general");
        assert!((sum - 1.0).abs() < 1e-6, "gates of the two sum to {sum}");
        assert_eq!(number(line, "router/support"), 2.0, "softmax routes");
    }

    // A fresh router reads two features and h_graph, and one expert acts.
    let (base, after) = (&run.saved[v2.base], &run.saved[v2.at]);
    assert_eq!(parts(&differing(&base.policy, &after.policy)), ["router"]);
    assert_eq!(parts(&differing(&base.moments, &after.moments)), ["router"]);
    let widest = after.policy.values().filter(|t| t.path.starts_with("router.")).map(|t| t.shape[0]).max();
    let before = base.policy.values().filter(|t| t.path.starts_with("router.")).map(|t| t.shape[0]).max();
    assert_eq!((before, widest), (Some(16 + 8), Some(16)), "2 + 8 are read, into 16");
    for line in &run.metrics[v2.at..to_fewer.at] {
        assert_eq!((number(line, "router/entropy"), number(line, "router/support")), (0.0, 1.0));
    }

    // On the way back the rate is 0: what is not put back stays as it is.
    let router = |saved: &Saved| -> Vec<NamedTensor> {
        saved.policy.values().filter(|t| t.path.starts_with("router.")).cloned().collect()
    };
    let (before, after) = (&run.saved[to_fewer.at - 1], &run.saved[to_fewer.at]);
    assert_eq!(parts(&differing(&before.policy, &after.policy)), ["router"]);
    assert_eq!(router(after), router(&run.saved[v2.base]), "the router that was taken away");

    let (before, after) = (&run.saved[to_softmax.at - 1], &run.saved[to_softmax.at]);
    assert_eq!(differing(&narrowed(&after.policy), &before.policy), Vec::<String>::new());
    let taken = &run.saved[fewer.base].policy;
    for tensor in after.policy.values().filter(|t| is_per_expert(t)) {
        let (back, parked) = (kept(tensor, &[1, 2]), kept(&taken[&tensor.path], &[1, 2]));
        assert_eq!(bits(&back), bits(&parked), "{} of the experts that were taken away", tensor.path);
    }
    for step in [to_freeze, to_full] {
        let (before, after) = (&run.saved[step.at - 1], &run.saved[step.at]);
        assert_eq!(differing(&before.policy, &after.policy), Vec::<String>::new(), "{}", step.to);
    }
}
