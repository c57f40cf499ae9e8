//! The graph of lore, of any size: three levels with edges drawn from a seed, and what every situation
//! says for each expert.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use gatefold_env::{EnvError, Purpose, StreamRng, stream};
use gatefold_graph::TypedGraph;
use rand::RngExt;

use super::{EXPERTS, LoreConfig};

/// One operator for so many nodes, and one strategy.
const NODES_PER_OPERATOR: usize = 32;
const NODES_PER_STRATEGY: usize = 8;

/// One edge in so many connects nodes of one level.
const EDGES_PER_LATERAL: usize = 10;

/// One edge in so many leads from a strategy to an operator, if there are strategies for it.
const EDGES_PER_ADVICE: usize = 8;

/// Of four edges between levels, so many stay with their source's expert.
const LOYAL: u32 = 3;

/// The graph and what follows from it.
#[derive(Debug)]
pub(super) struct Knowledge {
    pub(super) graph: Arc<TypedGraph>,
    /// For each situation, the number of ways from it over a strategy to the operators of each expert.
    pub(super) support: Vec<[u32; EXPERTS.len()]>,
}

/// The sizes that decide the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sizes {
    nodes: usize,
    edges: usize,
    seed: u64,
}

/// The graphs in use: all copies of an environment share one.
static SHARED: Mutex<Vec<(Sizes, Weak<Knowledge>)>> = Mutex::new(Vec::new());

impl Knowledge {
    /// The graph that the options describe.
    pub(super) fn of(config: &LoreConfig) -> Result<Arc<Self>, EnvError> {
        let sizes = Sizes { nodes: config.nodes, edges: config.edges, seed: config.graph_seed };
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|(_, knowledge)| knowledge.strong_count() > 0);
        let held =
            shared.iter().find(|(held, _)| *held == sizes).and_then(|(_, knowledge)| knowledge.upgrade());
        if let Some(knowledge) = held {
            return Ok(knowledge);
        }
        let knowledge = Arc::new(Self::draw(sizes)?);
        shared.push((sizes, Arc::downgrade(&knowledge)));
        Ok(knowledge)
    }

    fn draw(sizes: Sizes) -> Result<Self, EnvError> {
        let levels = Levels::new(sizes.nodes);
        let [lateral, advice, evidence] = levels.edges(sizes)?;
        let mut rng = stream(sizes.seed, Purpose::Environment, 0);
        let mut edges = Edges { of: vec![Vec::new(); sizes.nodes], rng: &mut rng };
        let Levels { situations, strategies, operators } = levels;
        edges.between(0..situations, situations..situations + strategies, evidence);
        edges.between(situations..situations + strategies, situations + strategies..sizes.nodes, advice);
        edges.within(0..situations, lateral / 2);
        edges.within(situations..situations + strategies, lateral - lateral / 2);

        let kinds = ["situation", "strategy", "operator"];
        let mut graph = TypedGraph::new("lore", &kinds, &["operator"]);
        let name = |node: usize| match node.checked_sub(situations) {
            None => format!("situation_{node}"),
            Some(strategy) if strategy < strategies => format!("strategy_{strategy}"),
            Some(rest) => format!("operator_{}", rest - strategies),
        };
        for node in 0..sizes.nodes {
            let kind = kinds[usize::from(node >= situations) + usize::from(node >= sizes.nodes - operators)];
            let expert = (kind == "operator").then(|| EXPERTS[node % EXPERTS.len()]);
            graph.add_node(&name(node), kind, expert)?;
        }
        for (source, targets) in edges.of.iter().enumerate() {
            for &target in targets {
                let relation = match (graph.kind_of(source), graph.kind_of(target)) {
                    ("situation", "strategy") => "calls_for",
                    ("strategy", "operator") => "uses",
                    _ => "related",
                };
                graph.add_edge(&name(source), &name(target), relation)?;
            }
        }
        let of_strategy = |strategy: usize| {
            let mut uses = [0; EXPERTS.len()];
            for &operator in edges.of[strategy].iter().filter(|&&node| node >= situations + strategies) {
                uses[operator % EXPERTS.len()] += 1;
            }
            uses
        };
        let support = (0..situations).map(|situation| {
            let mut sum = [0; EXPERTS.len()];
            for &strategy in edges.of[situation].iter().filter(|&&node| node >= situations) {
                for (sum, uses) in sum.iter_mut().zip(of_strategy(strategy)) {
                    *sum += uses;
                }
            }
            sum
        });
        let support = support.collect();
        Ok(Self { graph: Arc::new(graph.with_reverse_relations().with_self_loops()), support })
    }
}

/// How many nodes are on each level, in the order of their indices.
pub(super) struct Levels {
    pub(super) situations: usize,
    strategies: usize,
    operators: usize,
}

impl Levels {
    pub(super) fn new(nodes: usize) -> Self {
        let operators = (nodes / NODES_PER_OPERATOR).max(EXPERTS.len());
        let strategies = (nodes / NODES_PER_STRATEGY).max(2 * EXPERTS.len());
        Self { situations: nodes - strategies - operators, strategies, operators }
    }

    /// How many edges are lateral, lead to operators, and lead to strategies.
    fn edges(&self, sizes: Sizes) -> Result<[usize; 3], EnvError> {
        let Self { situations, strategies, operators } = *self;
        let split = |edges: usize| {
            let lateral = edges / EDGES_PER_LATERAL;
            let advice = (edges / EDGES_PER_ADVICE).clamp(strategies, strategies * operators / 2);
            [lateral, advice, edges.saturating_sub(lateral + advice)]
        };
        let enough = |edges: usize| split(edges)[2] >= situations;
        let room = |edges: usize| {
            let [lateral, _, evidence] = split(edges);
            evidence <= situations * strategies / 2 && lateral < strategies * strategies / 2
        };
        if enough(sizes.edges) && room(sizes.edges) {
            return Ok(split(sizes.edges));
        }
        let most = sizes.nodes * sizes.nodes;
        let least = first(most, enough);
        let too_many = first(most, |edges| !room(edges));
        Err(EnvError::Option {
            key: "edges".to_string(),
            value: sizes.edges.to_string(),
            expected: format!("a graph of {} nodes needs {least} to {} edges", sizes.nodes, too_many - 1),
        })
    }
}

/// The first number up to `most` from which on `holds`.
fn first(most: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, most);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// Edges under way, by source.
struct Edges<'a> {
    of: Vec<Vec<usize>>,
    rng: &'a mut StreamRng,
}

impl Edges<'_> {
    /// Draws `count` edges from one level to the next, at least one from every source; most stay with
    /// the source's expert, which is the node's index by the number of experts.
    fn between(&mut self, from: std::ops::Range<usize>, to: std::ops::Range<usize>, count: usize) {
        for drawn in 0..count {
            loop {
                let source =
                    if drawn < from.len() { from.start + drawn } else { self.rng.random_range(from.clone()) };
                let loyal = self.rng.random_range(0..4) < LOYAL;
                let target = self.rng.random_range(to.clone());
                let same = target % EXPERTS.len() == source % EXPERTS.len();
                if (same || !loyal) && self.add(source, target) {
                    break;
                }
            }
        }
    }

    /// Draws `count` edges between nodes of one level.
    fn within(&mut self, level: std::ops::Range<usize>, count: usize) {
        for _ in 0..count {
            loop {
                let (source, target) =
                    (self.rng.random_range(level.clone()), self.rng.random_range(level.clone()));
                if source != target && self.add(source, target) {
                    break;
                }
            }
        }
    }

    /// Adds an edge unless it is there.
    fn add(&mut self, source: usize, target: usize) -> bool {
        let new = !self.of[source].contains(&target);
        if new {
            self.of[source].push(target);
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knowledge(nodes: usize, edges: usize, graph_seed: u64) -> Result<Arc<Knowledge>, EnvError> {
        Knowledge::of(&LoreConfig { nodes, edges, graph_seed, ..LoreConfig::default() })
    }

    #[test]
    fn a_graph_has_the_nodes_and_edges_asked_for_and_their_reverses() {
        for (nodes, edges) in [(527, 2333), (40, 120), (4000, 30_000)] {
            let graph = knowledge(nodes, edges, 3).unwrap().graph.clone();
            let csr = graph.csr();
            let proper = (0..nodes)
                .flat_map(|node| csr.in_edges(node).map(move |(source, ..)| (source as usize, node)));
            assert_eq!(graph.num_nodes(), nodes);
            assert_eq!(proper.filter(|(source, target)| source != target).count(), 2 * edges);
            assert!((0..nodes).all(|node| csr.in_edges(node).count() >= 2), "no node stands alone");
        }
    }

    #[test]
    fn the_seed_decides_the_graph() {
        let csr = |seed| knowledge(64, 200, seed).unwrap().graph.csr();
        assert_eq!(csr(1), csr(1));
        assert_ne!(csr(1), csr(2));
    }

    #[test]
    fn support_counts_the_ways_along_the_graph() {
        let knowledge = knowledge(200, 900, 5).unwrap();
        let graph = &knowledge.graph;
        let (csr, relation) =
            (graph.csr(), |name: &str| graph.relations().iter().position(|r| r == name).unwrap() as u32);
        let mut support = vec![[0; EXPERTS.len()]; knowledge.support.len()];
        for operator in graph.readout_nodes() {
            let expert =
                EXPERTS.iter().position(|&e| Some(e) == graph.node(operator).expert.as_deref()).unwrap();
            for (strategy, ..) in csr.in_edges(operator).filter(|edge| edge.1 == relation("uses")) {
                for (situation, ..) in
                    csr.in_edges(strategy as usize).filter(|edge| edge.1 == relation("calls_for"))
                {
                    support[situation as usize][expert] += 1;
                }
            }
        }
        assert_eq!(support, knowledge.support);
    }

    #[test]
    fn edges_that_do_not_fit_are_refused_with_those_that_would() {
        for (nodes, edges) in [(527, 400), (64, 1_000_000)] {
            let message = knowledge(nodes, edges, 0).unwrap_err().to_string();
            assert!(
                message.contains(&format!("[env] edges = {edges}: a graph of {nodes} nodes needs")),
                "{message}"
            );
            let words: Vec<usize> = message.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let [.., least, most] = words[..] else { panic!("{message}") };
            assert!(knowledge(nodes, least, 0).is_ok() && knowledge(nodes, most, 0).is_ok(), "{message}");
        }
    }
}
