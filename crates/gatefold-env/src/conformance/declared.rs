//! What an environment declares before the first step: spec, graph and options.

use schemars::Schema;

use crate::conformance::compare::row_difference;
use crate::conformance::drive::Driver;
use crate::conformance::report::{Check, Fault, Outcome};
use crate::conformance::{Lab, NUM_ENVS};
use crate::{EnvSpec, Params};

/// The check that comes before all others.
pub(super) const BUILDS: &str = "builds";

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: BUILDS,
        about: "The options build a batch of as many copies as asked for.",
        // Nothing else runs unless this held.
        run: |_| Ok(Outcome::Held),
    },
    Check {
        name: "sizes-are-positive",
        about: "There is at least one feature, one action, one step before the clock cuts, and a graph under \
                node features.",
        run: sizes_are_positive,
    },
    Check {
        name: "spec-repeats",
        about: "Two batches of the same options have the same spec, before and after stepping.",
        run: spec_repeats,
    },
    Check { name: "graph-validates", about: "The graph has nodes to read out.", run: graph_validates },
    Check {
        name: "nodes-have-in-edges",
        about: "Every graph node has an in-edge (a self loop will do), or attention would be empty.",
        run: nodes_have_in_edges,
    },
    Check {
        name: "unknown-options-are-named",
        about: "An option that does not exist is an error that names it.",
        run: unknown_options_are_named,
    },
    Check {
        name: "options-are-documented",
        about: "Every option has a description in the schema.",
        run: options_are_documented,
    },
    Check {
        name: "defaults-can-be-written",
        about: "The defaults in the schema, written out, build the same environment.",
        run: defaults_can_be_written,
    },
    Check {
        name: "no-copies-is-an-error",
        about: "Asking for 0 copies is an error.",
        run: no_copies_is_an_error,
    },
];

fn sizes_are_positive(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    let EnvSpec { num_features, max_episode_steps, .. } = lab.spec;
    let num_actions = lab.spec.num_actions();
    if num_features == 0 || num_actions == 0 || max_episode_steps == Some(0) {
        return Err(Fault::new(format!(
            "{num_features} features, {num_actions} actions, time limit {max_episode_steps:?}"
        )));
    }
    if lab.spec.node_features > 0 && lab.spec.graph.is_none() {
        return Err(Fault::new(format!("{} node features without a graph", lab.spec.node_features)));
    }
    Ok(Outcome::Held)
}

fn spec_repeats(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    let mut drive = lab.drive(NUM_ENVS, lab.settings.seed + 1, Driver::Random)?;
    same_spec(&lab.spec, drive.batch.spec()).map_err(|e| Fault::at(0, e))?;
    drive.advance(lab.settings.steps)?;
    same_spec(&lab.spec, drive.batch.spec()).map_err(|e| Fault::at(drive.step, e))?;
    Ok(Outcome::Held)
}

fn same_spec(a: &EnvSpec, b: &EnvSpec) -> Result<(), String> {
    if !a.same_sizes(b) {
        return Err(format!("{a:?} became {b:?}"));
    }
    if let (Some(a), Some(b)) = (&a.graph, &b.graph) {
        let nodes = a.nodes().eq(b.nodes()) && a.readout_nodes() == b.readout_nodes();
        let edges = a.relations() == b.relations() && a.csr() == b.csr();
        if !(nodes && edges && a.kinds() == b.kinds()) {
            return Err(format!("graph `{}` became another graph", a.name()));
        }
    }
    Ok(())
}

fn no_graph() -> Outcome {
    Outcome::Skipped("it has no graph".to_string())
}

fn graph_validates(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    let Some(graph) = &lab.spec.graph else { return Ok(no_graph()) };
    graph.validate().map_err(|e| Fault::new(e.to_string()))?;
    Ok(Outcome::Held)
}

fn nodes_have_in_edges(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    let Some(graph) = &lab.spec.graph else { return Ok(no_graph()) };
    let csr = graph.csr();
    match (0..csr.num_nodes()).find(|&node| csr.in_edges(node).next().is_none()) {
        Some(node) => Err(Fault::new(format!("node `{}` has none", graph.node(node).id))),
        None => Ok(Outcome::Held),
    }
}

fn unknown_options_are_named(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    let unknown = "no_option_has_this_name";
    let mut params = Params { options: lab.settings.options.clone(), ..Params::new(1, 1) };
    params = params.with(unknown, 1);
    match (lab.entry.build)(&params) {
        Ok(_) => Err(Fault::new(format!("`{unknown} = 1` was accepted"))),
        Err(error) if !error.to_string().contains(unknown) => {
            Err(Fault::new(format!("`{unknown} = 1` gives an error that does not name it: {error}")))
        }
        Err(_) => Ok(Outcome::Held),
    }
}

/// The options of a schema with what it says about them.
fn options(schema: &Schema) -> impl Iterator<Item = (&String, &serde_json::Value)> {
    schema.get("properties").and_then(|properties| properties.as_object()).into_iter().flatten()
}

fn options_are_documented(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    let schema = (lab.entry.options)();
    for (key, about) in options(&schema) {
        let text = about.get("description").and_then(|text| text.as_str()).unwrap_or_default();
        if text.trim().is_empty() {
            return Err(Fault::new(format!("option `{key}` has no description")));
        }
    }
    Ok(Outcome::Held)
}

fn defaults_can_be_written(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    let schema = (lab.entry.options)();
    let mut params = Params::new(NUM_ENVS, lab.settings.seed);
    let plain = (lab.entry.build)(&params)?;
    for (key, about) in options(&schema) {
        // TOML has no null: an absent default is written by leaving the option out.
        if let Some(default) = about.get("default").filter(|default| !default.is_null()) {
            let value = toml::Value::try_from(default)
                .map_err(|e| Fault::new(format!("default {default} of `{key}` is not TOML: {e}")))?;
            params.options.insert(key.clone(), value);
        }
    }
    let written = (lab.entry.build)(&params)
        .map_err(|error| Fault::new(format!("the written defaults are refused: {error}")))?;
    same_spec(plain.spec(), written.spec()).map_err(Fault::new)?;
    let mut drives = [plain, written].map(|batch| super::drive::Drive::new(batch, Driver::Random));
    for drive in &mut drives {
        drive.start()?;
    }
    let [plain, written] = &drives;
    for env in 0..NUM_ENVS {
        if let Some(found) = row_difference((&plain.seen, env), (&written.seen, env)) {
            return Err(Fault::at(0, format!("written defaults change environment {env}: {found}")));
        }
    }
    Ok(Outcome::Held)
}

fn no_copies_is_an_error(lab: &Lab<'_>) -> Result<Outcome, Fault> {
    match lab.build(0, lab.settings.seed) {
        Ok(batch) => Err(Fault::new(format!("got a batch of {}", batch.num_envs()))),
        Err(_) => Ok(Outcome::Held),
    }
}
