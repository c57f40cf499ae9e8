//! `gatefold bench growth`: what environments, widths, experts, nodes and edges cost.

mod plot;

use std::fs;
use std::path::Path;

use gatefold_env::EnvEntry;
use gatefold_runner::{BenchResult, RunError, RunOptions, Until, bench_training, layers};

use super::terminal::Terminal;

/// One quantity that grows while all else stays.
struct Axis {
    /// Of its plot's file.
    name: &'static str,
    title: &'static str,
    /// What is counted on the horizontal axis.
    counted: &'static str,
    /// The experiment.
    text: &'static str,
    values: &'static [usize],
    /// Each with what is set over the experiment.
    series: &'static [(&'static str, &'static [&'static str])],
    /// What a value sets.
    set: fn(usize) -> Vec<String>,
}

/// What one point measured.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Point {
    axis: &'static str,
    series: &'static str,
    value: usize,
    result: BenchResult,
}

const CARTPOLE: &str = r#"
    about = "benchmark"
    preset = "cleanrl"
    [env]
    name = "cartpole"
    [run]
    num_envs = 64
    [ppo]
    num_steps = 32
    minibatch = 256
"#;

/// Routing by the whole table of the constant schedule; experts of no operator are aligned with nothing.
const DELVE: &str = r#"
    about = "benchmark"
    [env]
    name = "delve"
    [run]
    num_envs = 16
    [ppo]
    num_steps = 32
    minibatch = 256
    [curriculum]
    schedule = "constant"
    top_k = 2
"#;

const LORE: &str = r#"
    about = "benchmark"
    [env]
    name = "lore"
    [run]
    num_envs = 64
    [ppo]
    num_steps = 32
    minibatch = 512
    gamma = 0.0
    gae_lambda = 0.0
"#;

const AXES: [Axis; 5] = [
    Axis {
        name: "environments",
        title: "CartPole, two networks of 64-64, rollouts of 32 steps, minibatches of at most 256",
        counted: "environments",
        text: CARTPOLE,
        values: &[1, 4, 16, 64, 256, 1024, 4096],
        series: &[("plain", &[])],
        set: |envs| vec![format!("run.num_envs={envs}"), format!("ppo.minibatch={}", (32 * envs).min(256))],
    },
    Axis {
        name: "hidden",
        title: "CartPole, two networks of two layers, 64 environments",
        counted: "units of a hidden layer",
        text: CARTPOLE,
        values: &[16, 32, 64, 128, 256, 512],
        series: &[("plain", &[])],
        set: |width| vec![format!("policy.trunk=[{width},{width}]")],
    },
    Axis {
        name: "experts",
        title: "delve, the full method, 16 environments",
        counted: "experts",
        text: DELVE,
        values: &[2, 4, 8, 16, 32, 64, 128, 256],
        series: &[
            ("softmax", &["curriculum.constant.routing=softmax"]),
            ("sparsemax", &["curriculum.constant.routing=sparsemax"]),
            ("top-2", &["curriculum.constant.routing=top-k"]),
        ],
        set: |experts| {
            let names: Vec<String> = (0..experts).map(|k| format!("\"expert{k}\"")).collect();
            vec![format!("policy.experts=[{}]", names.join(","))]
        },
    },
    Axis {
        name: "nodes",
        title: "lore, the full method, 64 environments, 4.4 edges for each node",
        counted: "nodes of the knowledge graph",
        text: LORE,
        values: &[128, 256, 512, 1024, 2048, 4096],
        series: &[("plain", &[])],
        set: |nodes| vec![format!("env.nodes={nodes}"), format!("env.edges={}", nodes * 44 / 10)],
    },
    Axis {
        name: "edges",
        title: "lore, the full method, 64 environments, 527 nodes",
        counted: "edges of the knowledge graph",
        text: LORE,
        values: &[600, 1200, 2400, 4800, 9600, 16_000],
        series: &[("plain", &[])],
        set: |edges| vec!["env.nodes=527".to_string(), format!("env.edges={edges}")],
    },
];

/// Measures every point of every axis for `seconds` on one thread, and writes `growth.csv` and a plot for
/// each axis into `out`.
pub(super) fn carry_out(
    out: &Path,
    seconds: f64,
    entries: &[EnvEntry],
    terminal: &mut Terminal,
) -> Result<(), RunError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |cause| RunError::Io { path, action: "write", cause }
    };
    fs::create_dir_all(out).map_err(failed(out))?;
    let one = RunOptions { threads: 1, ..RunOptions::default() };
    let mut table =
        String::from("axis,series,value,training_steps_per_s,rollout_steps_per_s,steps,seconds\n");
    for axis in &AXES {
        let mut points = Vec::new();
        for &(series, overrides) in axis.series {
            for &value in axis.values {
                let all = [(axis.set)(value), overrides.iter().map(ToString::to_string).collect()].concat();
                let config = layers::resolve("bench", axis.text, &all, entries)?;
                let result = bench_training(&config, Until::Seconds(seconds), &one, entries)?;
                let point = Point { axis: axis.name, series, value, result };
                terminal.note(point.line().trim_end());
                table += &point.line();
                points.push(point);
            }
        }
        let path = out.join(format!("growth-{}.svg", axis.name));
        fs::write(&path, plot::svg(axis, &points)).map_err(failed(&path))?;
    }
    let path = out.join("growth.csv");
    fs::write(&path, table).map_err(failed(&path))?;
    terminal.say(&format!("{}, and a plot for each axis beside it", path.display()));
    Ok(())
}

impl Point {
    fn line(&self) -> String {
        let BenchResult { tps, transitions, seconds, .. } = self.result;
        let (axis, series, value, rollout) = (self.axis, self.series, self.value, self.rollout());
        format!("{axis},{series},{value},{tps:.0},{rollout:.0},{transitions},{seconds:.2}\n")
    }

    /// Environment steps per second of rollouts alone.
    fn rollout(&self) -> f64 {
        self.result.transitions as f64 / self.result.rollout_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_a_valid_experiment_that_sets_what_its_axis_counts() {
        let entries = gatefold_envs::TABLE;
        for axis in &AXES {
            for &(series, overrides) in axis.series {
                for &value in axis.values {
                    let all =
                        [(axis.set)(value), overrides.iter().map(ToString::to_string).collect()].concat();
                    let config = layers::resolve("bench", axis.text, &all, entries);
                    let config = config.unwrap_or_else(|e| panic!("{} {series} {value}: {e}", axis.name));
                    let set = match axis.name {
                        "environments" => config.run.num_envs,
                        "hidden" => config.policy.trunk[1],
                        "experts" => config.policy.experts.len(),
                        option => config.env.options[option].as_integer().expect("a whole number") as usize,
                    };
                    assert_eq!(set, value, "{}", axis.name);
                }
            }
        }
    }
}
