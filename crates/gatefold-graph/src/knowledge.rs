//! Knowledge graphs from a file: conditions, operators that need them, effects that follow.
//!
//! ```toml
//! name = "kitchen"
//! acyclic = true                 # optional: the forward edges must have no cycle
//! experts = ["survival"]         # optional: the affinities operators may name
//!
//! [[condition]]
//! id = "hungry"
//! label = "hunger is above one half"
//!
//! [[operator]]
//! id = "eat"
//! expert = "survival"
//! preconditions = ["hungry"]
//! effects = ["fed"]
//!
//! [[effect]]
//! id = "fed"
//! establishes = []               # optional: conditions that this effect brings about
//! ```

use serde::Deserialize;

use crate::{GraphError, TypedGraph};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KnowledgeFile {
    name: Option<String>,
    #[serde(default)]
    acyclic: bool,
    #[serde(default)]
    experts: Vec<String>,
    #[serde(default)]
    condition: Vec<Entry>,
    #[serde(default)]
    operator: Vec<Operator>,
    #[serde(default)]
    effect: Vec<Effect>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    label: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Operator {
    id: String,
    label: Option<String>,
    expert: Option<String>,
    #[serde(default)]
    preconditions: Vec<String>,
    #[serde(default)]
    effects: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Effect {
    id: String,
    label: Option<String>,
    #[serde(default)]
    establishes: Vec<String>,
}

/// Reads a knowledge graph: nodes in the order conditions, operators, effects; relations
/// `precondition`, `effect`, `establishes`, their reverses, and `self`. Operators are read out.
///
/// `source` names the text in messages. Fails on bad TOML, repeated or unknown ids, an expert that
/// is not declared, a declared-acyclic graph with a cycle, and on a graph without operators.
pub fn parse_knowledge(source: &str, text: &str) -> Result<TypedGraph, GraphError> {
    let file: KnowledgeFile = toml::from_str(text)
        .map_err(|e| GraphError::Syntax { graph: source.to_string(), reason: e.to_string() })?;
    let name = file.name.as_deref().unwrap_or(source);
    let mut graph = TypedGraph::new(name, &["condition", "operator", "effect"], &["operator"]);
    let label = |graph: &mut TypedGraph, node, text: &Option<String>| {
        if let Some(text) = text {
            graph.set_label(node, text);
        }
    };
    for c in &file.condition {
        let node = graph.add_node(&c.id, "condition", None)?;
        label(&mut graph, node, &c.label);
    }
    for o in &file.operator {
        if let Some(expert) = &o.expert
            && !file.experts.is_empty()
            && !file.experts.contains(expert)
        {
            return Err(unknown(name, &o.id, expert, "expert", &file.experts.join("` or `")));
        }
        let node = graph.add_node(&o.id, "operator", o.expert.as_deref())?;
        label(&mut graph, node, &o.label);
    }
    for e in &file.effect {
        let node = graph.add_node(&e.id, "effect", None)?;
        label(&mut graph, node, &e.label);
    }
    let must_be =
        |graph: &TypedGraph, holder: &str, id: &str, role: &str, kind: &str| match graph.index_of(id) {
            Some(node) if graph.kind_of(node) == kind => Ok(()),
            _ => Err(unknown(name, holder, id, role, kind)),
        };
    for o in &file.operator {
        for id in &o.preconditions {
            must_be(&graph, &o.id, id, "precondition", "condition")?;
            graph.add_edge(id, &o.id, "precondition")?;
        }
        for id in &o.effects {
            must_be(&graph, &o.id, id, "effect", "effect")?;
            graph.add_edge(&o.id, id, "effect")?;
        }
    }
    for e in &file.effect {
        for id in &e.establishes {
            must_be(&graph, &e.id, id, "established condition", "condition")?;
            graph.add_edge(&e.id, id, "establishes")?;
        }
    }
    if file.acyclic {
        graph.check_acyclic()?;
    }
    graph.validate()?;
    Ok(graph.with_reverse_relations().with_self_loops())
}

fn unknown(graph: &str, node: &str, missing: &str, role: &str, expected: &str) -> GraphError {
    GraphError::UnknownNode {
        graph: graph.to_string(),
        node: node.to_string(),
        missing: missing.to_string(),
        role: role.to_string(),
        expected: format!("known `{expected}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KITCHEN: &str = r#"
        name = "kitchen"
        acyclic = true
        experts = ["survival", "general"]
        [[condition]]
        id = "hungry"
        label = "hunger above one half"
        [[operator]]
        id = "eat"
        expert = "survival"
        preconditions = ["hungry"]
        effects = ["fed"]
        [[effect]]
        id = "fed"
    "#;

    #[test]
    fn a_knowledge_file_becomes_a_graph_that_reads_out_its_operators() {
        let graph = parse_knowledge("kitchen.toml", KITCHEN).unwrap();
        assert_eq!(graph.num_nodes(), 3);
        assert_eq!(graph.readout_nodes(), [1]);
        assert_eq!(graph.node(1).expert.as_deref(), Some("survival"));
        assert_eq!(graph.node(0).label.as_deref(), Some("hunger above one half"));
        let every_node_is_reached = (0..3).all(|n| graph.csr().in_edges(n).count() >= 2);
        assert!(every_node_is_reached);
    }

    #[test]
    fn each_fault_of_a_file_is_one_message_that_names_it() {
        let cases = [
            ("id = \"eat\"", "id = \"hungry\"", "declared twice"),
            ("[\"hungry\"]", "[\"thirsty\"]", "`thirsty` as precondition"),
            ("[\"fed\"]", "[\"hungry\"]", "`hungry` as effect"),
            ("\"survival\"\n        pre", "\"magic\"\n        pre", "`magic` as expert"),
            ("id = \"fed\"", "id = \"fed\"\ncolour = 1", "colour"),
            ("id = \"fed\"", "id = \"fed\"\nestablishes = [\"hungry\"]", "cycle"),
            ("id = \"hungry\"", "id = \"\"", "empty id"),
        ];
        for (from, to, expected) in cases {
            let text = KITCHEN.replacen(from, to, 1);
            assert_ne!(text, KITCHEN, "the case for {expected} changes nothing");
            let message = parse_knowledge("kitchen.toml", &text).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
            assert!(message.contains("kitchen"), "{message}");
        }
    }
}
