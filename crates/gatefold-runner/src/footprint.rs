//! What a run will hold in memory, predicted before anything is built.
//!
//! An estimate from below: environments, evaluation and the allocator come on top. It is there to
//! refuse what cannot work with a message, where the system would end the process without one. Only the
//! rows of a knowledge graph may be fewer than are counted, where states repeat them.

use std::fs;
use std::path::Path;

use gatefold_env::{EnvEntry, EnvSpec};
use gatefold_policy::{Architecture, PolicyConfig};

use crate::assembly::build_envs;
use crate::config::ExperimentConfig;
use crate::error::RunError;

/// Bytes of a number in single precision.
const SINGLE: f64 = 4.0;
/// How often a parameter is held: its value, gradient and two moments; and value and moments once
/// more as a snapshot and as encoded bytes while a checkpoint is written beside the loop.
const COPIES: f64 = 4.0 + 3.0 + 3.0;
/// How often an activation is held: for the backward pass, and as its gradient.
const PASSES: f64 = 2.0;

/// A part of the policy with the keys that size it.
struct Module {
    name: &'static str,
    keys: &'static str,
    /// Parameters.
    params: f64,
    /// Numbers that one row of a minibatch leaves behind.
    per_row: f64,
}

/// Something that takes memory.
#[derive(Debug)]
struct Part {
    name: String,
    keys: String,
    bytes: f64,
}

/// Fails if the run cannot fit into this machine's memory, naming the keys that make it large.
/// Where the system does not tell its memory, nothing is refused.
pub(crate) fn refuse_too_large(config: &ExperimentConfig, entries: &[EnvEntry]) -> Result<(), RunError> {
    let Some(available) = available() else { return Ok(()) };
    let env = build_envs(config, entries, 1, config.run.seed)?;
    judge(&parts(config, env.spec()), available)
}

fn judge(parts: &[Part], available: f64) -> Result<(), RunError> {
    let needed: f64 = parts.iter().map(|part| part.bytes).sum();
    if needed <= available {
        return Ok(());
    }
    let mut large: Vec<_> = parts.iter().filter(|part| part.bytes >= needed / 10.0).collect();
    large.sort_by(|a, b| b.bytes.total_cmp(&a.bytes));
    let large: Vec<_> =
        large.iter().map(|part| format!("{} for {} ({})", size(part.bytes), part.name, part.keys)).collect();
    Err(RunError::TooLarge { needed: size(needed), available: size(available), parts: large.join(", ") })
}

fn size(bytes: f64) -> String {
    const KIB: f64 = 1024.0;
    match bytes {
        _ if bytes < KIB.powi(3) => format!("{:.0} MiB", bytes / KIB.powi(2)),
        _ if bytes < KIB.powi(4) => format!("{:.1} GiB", bytes / KIB.powi(3)),
        _ => format!("{:.1} TiB", bytes / KIB.powi(4)),
    }
}

fn parts(config: &ExperimentConfig, spec: &EnvSpec) -> Vec<Part> {
    let (num_envs, minibatch) = (config.run.num_envs, config.ppo.minibatch);
    let rows = num_envs.max(minibatch) as f64;
    let rows_key = if minibatch >= num_envs { "ppo.minibatch" } else { "run.num_envs" };
    let mut parts = vec![rollout(config, spec)];
    for Module { name, keys, params, per_row } in modules(config, spec) {
        let (learned, passing) = (params * COPIES * SINGLE, rows * per_row * PASSES * SINGLE);
        parts.push(Part {
            name: format!("parameters of the {name}"),
            keys: keys.to_string(),
            bytes: learned,
        });
        let keys = format!("{rows_key}, {keys}");
        parts.push(Part { name: format!("activations of the {name}"), keys, bytes: passing });
    }
    parts
}

/// Observations, and what is known of each step.
fn rollout(config: &ExperimentConfig, spec: &EnvSpec) -> Part {
    /// Action, log-probability, two values, raw and scaled reward, advantage, return.
    const NUMBERS: f64 = 8.0;
    /// Action, log-probability, old value, advantage, return.
    const COPIED: f64 = 5.0;
    let steps = (config.ppo.num_steps * config.run.num_envs) as f64;
    let gates = if config.policy.has_router() { config.policy.experts.len() } else { 0 };
    let read = spec.num_features + spec.num_nodes() * (1 + spec.node_features);
    let observation = SINGLE * read as f64 + spec.num_actions() as f64;
    // Without a graph, the update reads copies of most of it.
    let copied =
        if config.policy.architecture == Architecture::Mlp { observation + SINGLE * COPIED } else { 0.0 };
    let bytes = (steps + config.run.num_envs as f64) * observation
        + steps * (SINGLE * (NUMBERS + gates as f64) + copied);
    Part { name: "the rollout".to_string(), keys: "run.num_envs, ppo.num_steps".to_string(), bytes }
}

fn modules(config: &ExperimentConfig, spec: &EnvSpec) -> Vec<Module> {
    let policy = &config.policy;
    let sum = |widths: &[usize]| widths.iter().map(|&width| width as f64).sum::<f64>();
    let width = policy.trunk.last().copied().unwrap_or(0) as f64;
    let (actions, experts) = (spec.num_actions() as f64, policy.experts.len() as f64);
    let graph = spec.graph.as_ref().filter(|_| policy.architecture != Architecture::Mlp);
    let hidden = policy.gat.hidden as f64;
    let graph_width = if graph.is_some() { hidden } else { 0.0 };
    let joined = width + graph_width;

    let critics = if policy.twin_critics { 2.0 } else { 1.0 };
    let mut modules = vec![Module {
        name: "trunks",
        keys: "policy.trunk",
        params: (1.0 + critics) * mlp(spec.num_features as f64, &policy.trunk) + critics * (joined + 1.0),
        per_row: (1.0 + critics) * sum(&policy.trunk),
    }];
    if let Some(graph) = graph {
        let (nodes, edges) = (graph.num_nodes() as f64, graph.csr().num_edges() as f64);
        let (layers, heads) = (policy.gat.layers as f64, policy.gat.heads as f64);
        // The enums of the choices are a crate below the policy's; their names in a file will do.
        let full_width = serde_json::json!(policy.gat.combine) == "average";
        let new = if full_width { heads * hidden } else { hidden };
        // GATv2 projects a row twice and scores with one vector a head; GAT projects once and has two.
        let gatv2 = serde_json::json!(policy.gat.attention) == "gatv2";
        let (projected, vectors) = if gatv2 { (2.0 * new, new) } else { (new, 2.0 * new) };
        let relations = graph.relations().len() as f64 + f64::from(u8::from(learned(policy)));
        let layer = hidden * projected + vectors + 2.0 * hidden + relations * heads;
        let readout = graph.readout_nodes().len() as f64;
        modules.push(Module {
            name: "graph encoder",
            keys: "policy.gat.hidden, policy.gat.layers, policy.gat.heads",
            params: (graph.kinds().len() + spec.node_features + 1) as f64 * hidden
                + nodes * hidden
                + layers * layer
                + hidden * (hidden + 2.0),
            // The last layer computes the readout's rows alone.
            per_row: ((layers - 1.0) * nodes + readout) * (hidden + projected) + layers * edges * heads,
        });
        if policy.cross_attention {
            modules.push(Module {
                name: "cross-attention",
                keys: "policy.cross_attention, policy.gat.hidden",
                params: 4.0 * (hidden * hidden + hidden),
                per_row: 2.0 * readout * hidden + 3.0 * hidden,
            });
        }
        if policy.next_operator {
            modules.push(Module {
                name: "prediction of operators",
                keys: "policy.next_operator, policy.gat.hidden",
                params: (hidden + 1.0) * readout,
                per_row: readout,
            });
        }
    }
    if !policy.has_experts() {
        let (params, per_row) = (joined * actions + actions, actions);
        modules.push(Module { name: "action head", keys: "policy.trunk", params, per_row });
        return modules;
    }
    if policy.experts.len() > 1 {
        let widths = [&policy.router_hidden[..], &[policy.experts.len()]].concat();
        let norms = 2.0 * sum(&policy.router_hidden);
        let reads_observation = policy.architecture == Architecture::V2;
        let read = if reads_observation { spec.num_features as f64 + graph_width } else { joined };
        modules.push(Module {
            name: "router",
            keys: "policy.router_hidden",
            params: mlp(read, &widths) + norms,
            per_row: 2.0 * sum(&widths),
        });
    }
    let widths = [&policy.expert_hidden[..], &[spec.num_actions()]].concat();
    let experts = experts + f64::from(u8::from(policy.shared_expert));
    modules.push(Module {
        name: "experts",
        keys: "policy.expert_hidden, policy.experts",
        params: experts * mlp(width, &widths),
        per_row: experts * sum(&widths),
    });
    modules
}

/// Whether heads have a learned temperature.
fn learned(policy: &PolicyConfig) -> bool {
    serde_json::json!(policy.gat.attention_temperature) == "learned"
}

/// Weights and biases from `input` through layers of `widths`.
fn mlp(input: f64, widths: &[usize]) -> f64 {
    let mut from = input;
    let layer = |width: &usize| {
        let to = *width as f64;
        let params = from * to + to;
        from = to;
        params
    };
    widths.iter().map(layer).sum()
}

/// Bytes that this process can still take, where the system tells.
fn available() -> Option<f64> {
    let free = mem_available(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups).into_iter().filter_map(|file| {
        // A group without a limit says `max`.
        fs::read_to_string(file).ok()?.trim().parse::<f64>().ok()
    });
    Some(limits.fold(free, f64::min))
}

/// `MemAvailable` of /proc/meminfo in bytes.
fn mem_available(meminfo: &str) -> Option<f64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

/// Where the limits of this process's control groups stand, those of the groups above included.
fn limit_files(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        for group in Path::new(path).ancestors() {
            let group = group.display().to_string();
            files.push(format!("{root}{}/{file}", group.trim_end_matches('/')));
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use burn::backend::Flex;
    use gatefold_env::{Purpose, stream};
    use gatefold_gat::{Attention, AttentionTemperature, Heads};
    use gatefold_graph::TypedGraph;
    use gatefold_policy::ActorCritic;

    use super::*;

    fn spec(nodes: usize) -> EnvSpec {
        let mut graph = TypedGraph::new("chain", &["condition", "operator"], &["operator"]);
        for i in 0..nodes {
            graph.add_node(&i.to_string(), ["condition", "operator"][i % 2], None).unwrap();
            if i > 0 {
                graph.add_edge(&(i - 1).to_string(), &i.to_string(), "then").unwrap();
            }
        }
        let graph = (nodes > 0).then(|| Arc::new(graph.with_self_loops()));
        EnvSpec { graph, ..EnvSpec::new(30, 7) }
    }

    fn changed(change: impl FnOnce(&mut ExperimentConfig)) -> ExperimentConfig {
        let mut config = ExperimentConfig::new("a test", "somewhere");
        change(&mut config);
        config
    }

    #[test]
    fn the_parameters_foreseen_are_those_that_are_built() {
        let changed = |change: fn(&mut ExperimentConfig)| {
            let mut config = changed(|config| {
                let policy = &mut config.policy;
                (policy.trunk, policy.router_hidden) = (vec![12, 10], vec![9, 7]);
                (policy.expert_hidden, policy.gat.hidden) = (vec![11, 13], 8);
            });
            change(&mut config);
            config
        };
        let cases = [
            (changed(|_| ()), 6),
            (changed(|_| ()), 0),
            (changed(|config| config.policy.experts.truncate(1)), 6),
            (changed(|config| config.policy.gat.combine = Heads::Average), 6),
            (changed(|config| config.policy.gat.attention = Attention::Gatv2), 6),
            (
                changed(|config| {
                    let gat = &mut config.policy.gat;
                    (gat.attention, gat.combine) = (Attention::Gatv2, Heads::Average);
                }),
                6,
            ),
            (changed(|config| config.policy.trunk = vec![300, 20]), 6),
            (changed(|config| config.policy.shared_expert = true), 6),
            (changed(|config| config.policy.twin_critics = true), 6),
            (changed(|config| config.policy.cross_attention = true), 6),
            (changed(|config| config.policy.next_operator = true), 6),
            (changed(|config| config.policy.gat.attention_temperature = AttentionTemperature::Learned), 6),
            (changed(|config| config.policy.architecture = Architecture::V2), 6),
            (changed(|config| config.policy.architecture = Architecture::V2), 0),
            (changed(|config| config.policy.architecture = Architecture::Mlp), 6),
            (changed(|config| config.policy.architecture = Architecture::MlpGat), 6),
        ];
        for (config, nodes) in cases {
            let mut rng = stream(1, Purpose::Initialisation, 0);
            let policy =
                ActorCritic::<Flex>::new(&config.policy, &spec(nodes), &mut rng, &Default::default())
                    .unwrap();
            let built = gatefold_optim::count(&policy) as f64;
            let foreseen: f64 = modules(&config, &spec(nodes)).iter().map(|module| module.params).sum();
            assert_eq!(foreseen, built, "{:?}", config.policy);
        }
    }

    #[test]
    fn what_is_too_large_is_refused_with_the_keys_that_make_it_so() {
        const GIB: f64 = 1024.0 * 1024.0 * 1024.0;
        let told = |config: &ExperimentConfig| {
            judge(&parts(config, &spec(6)), 8.0 * GIB).map_err(|error| error.to_string())
        };
        assert_eq!(told(&changed(|_| ())), Ok(()));
        let cases = [
            (
                changed(|config| config.policy.trunk = vec![4096; 20]),
                "parameters of the trunks (policy.trunk)",
            ),
            (
                changed(|config| config.policy.expert_hidden = vec![4096; 8]),
                "parameters of the experts (policy.expert_hidden, policy.experts)",
            ),
            (
                changed(|config| (config.run.num_envs, config.ppo.num_steps) = (1 << 14, 1 << 12)),
                "the rollout (run.num_envs, ppo.num_steps)",
            ),
            (
                changed(|config| (config.ppo.minibatch, config.ppo.num_steps) = (1 << 20, 1 << 15)),
                "activations of the experts (ppo.minibatch, policy.expert_hidden, policy.experts)",
            ),
        ];
        for (config, expected) in cases {
            let told = told(&config).expect_err(expected);
            assert!(told.contains(expected) && told.contains("8.0 GiB are available"), "{told}");
        }
    }

    #[test]
    fn memory_is_read_as_the_system_tells_it() {
        let meminfo = "MemTotal:       24682196 kB\nMemAvailable:    1024 kB\nBuffers: 0 kB\n";
        assert_eq!(mem_available(meminfo), Some(1024.0 * 1024.0));
        assert_eq!(mem_available("MemTotal: 1 kB\n"), None);
        assert_eq!(
            limit_files("0::/app/run\n"),
            [
                "/sys/fs/cgroup/app/run/memory.max",
                "/sys/fs/cgroup/app/memory.max",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        assert_eq!(
            limit_files("5:cpu,cpuacct:/a\n4:memory:/\n"),
            ["/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        );
        let sizes = [(5e5, "0 MiB"), (3e9, "2.8 GiB"), (3e12, "2.7 TiB")];
        sizes.iter().for_each(|&(bytes, text)| assert_eq!(size(bytes), text));
    }
}
