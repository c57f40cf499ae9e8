//! What can be written on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use gatefold_curriculum::Rung;
use gatefold_env::EnvEntry;
use gatefold_runner::{Device, ExperimentConfig, RunError, RunOptions, faster_device};

use super::chaos::ChaosArgs;
use super::compare::CompareArgs;
use super::study::StudyArgs;
use super::terminal::Terminal;

const QUICKSTART: &str = "\
Quickstart:
  cargo run --release -- train experiments/quickstart.toml   train the full method in three minutes
  cargo run --release -- eval runs/quickstart/<RUN>          evaluate what it learned
  cargo run --release -- config defaults                     every key that a file can set
";

/// The greatest seed that TOML, whose integers are signed, can write.
const MOST_SEED: u64 = i64::MAX as u64;

/// Trains routed-expert policies with PPO.
#[derive(Debug, Parser)]
#[command(name = "gatefold", version, after_help = QUICKSTART, max_term_width = 100)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Train a policy as an experiment file says
    Train {
        /// The experiment, such as experiments/quickstart.toml
        file: PathBuf,
        /// Settings over the file's, such as run.total_steps=200000 or policy.activation=tanh
        #[arg(value_name = "KEY=VALUE")]
        overrides: Vec<String>,
        /// Seed of the run; the same as run.seed=N
        #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole(0, MOST_SEED))]
        seed: Option<u64>,
        /// Folder of the run, empty or absent [default: runs/<name>/<timestamp>-s<seed>]
        #[arg(long, value_name = "D")]
        run_dir: Option<PathBuf>,
        /// Rung of the fallback ladder to start at; the same as ladder.start=R
        #[arg(long, value_name = "R", value_parser = rung)]
        rung: Option<Rung>,
        #[command(flatten)]
        machine: Machine,
    },
    /// Go on with a run from its last checkpoint
    Resume {
        /// The run directory
        run: PathBuf,
        /// Settings that a resumed run may change, such as run.total_steps=2000000
        #[arg(value_name = "KEY=VALUE")]
        overrides: Vec<String>,
        /// Rung of the fallback ladder to go to first, up or down; see `gatefold ladder`
        #[arg(long, value_name = "R", value_parser = rung)]
        rung: Option<Rung>,
        #[command(flatten)]
        machine: Machine,
    },
    /// Evaluate a trained policy on held-out seeds, beside a random and the scripted policy
    Eval {
        /// A run directory, or one checkpoint in it
        path: PathBuf,
        /// Take the run's best checkpoint by evaluation instead of its newest
        #[arg(long)]
        best: bool,
        /// Episodes to play
        #[arg(long, value_name = "N", default_value_t = 100, allow_negative_numbers = true, value_parser = whole(1, 10_000))]
        episodes: u64,
        /// Take the most probable action instead of sampling
        #[arg(long)]
        deterministic: bool,
        #[command(flatten)]
        machine: Machine,
    },
    /// Train every arm of a study with every seed and compare them; the same command goes on with it
    Study(StudyArgs),
    /// Compare arms of finished runs, with bootstrap intervals
    Compare(CompareArgs),
    /// Take a run that stands still to a rung of the fallback ladder
    ///
    /// Its newest checkpoint is changed and saved again at the same step; `resume` goes on at that rung.
    Ladder {
        /// The run directory
        run: PathBuf,
        /// full, freeze-gat, softmax-only, fewer-experts or v2-routing: above or below the present one
        #[arg(long, value_name = "R", value_parser = rung)]
        rung: Rung,
        /// Begin with what was learned up to the last healthy iteration, not with the newest weights
        #[arg(long)]
        from_healthy: bool,
        /// Leave the run as it is and change a copy in this folder, empty or absent
        #[arg(long, value_name = "D")]
        out: Option<PathBuf>,
        #[command(flatten)]
        machine: Machine,
    },
    /// Tell what happened in a run: what fired, on what evidence, what was done, what to do next
    Explain {
        /// The run directory; the run may be going on
        run: PathBuf,
    },
    /// Run an update that a run discarded again, and compare bit for bit
    ///
    /// A run writes a dump when a number of an update is not finite. Exit code 0 if the update fails as it
    /// did in the run, 1 if not.
    ReplayUpdate {
        /// The dump, such as RUN/dumps/iteration-000123
        dump: PathBuf,
        #[command(flatten)]
        machine: Machine,
    },
    /// Put faults into an experiment, and report what it does about each
    #[cfg_attr(not(feature = "chaos"), command(hide = true))]
    Chaos(ChaosArgs),
    /// The environments
    #[command(subcommand)]
    Env(EnvCommand),
    /// The configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Saved states of a run
    #[command(subcommand)]
    Checkpoint(CheckpointCommand),
    /// Measure speed
    #[command(subcommand)]
    Bench(BenchCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum EnvCommand {
    /// Name every environment
    List,
    /// Check an environment against the contract of environments
    Check {
        /// The environment
        name: String,
        /// Its own options, such as length=5
        #[arg(value_name = "KEY=VALUE")]
        options: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the resolved configuration of an experiment file
    Check {
        /// The experiment
        file: PathBuf,
        /// Settings over the file's
        #[arg(value_name = "KEY=VALUE")]
        overrides: Vec<String>,
    },
    /// Print every key with documentation, range and default
    Defaults,
}

#[derive(Debug, Subcommand)]
pub(super) enum CheckpointCommand {
    /// Check every byte of the checkpoints of a run, or of one checkpoint
    Verify {
        /// A run directory, or one checkpoint in it
        path: PathBuf,
    },
    /// Print the SHA-256 over all learned and running state
    Hash {
        /// A run directory (its newest checkpoint), or one checkpoint in it
        path: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// Train on CartPole and print environment steps per second
    Ppo {
        /// Named settings to measure: cleanrl, sb3-fast, ...
        #[arg(long, default_value = "sb3-fast")]
        preset: String,
        /// Environment steps to measure, after one iteration to warm up
        #[arg(long, value_name = "N", default_value_t = 20_480, allow_negative_numbers = true, value_parser = whole(1, u64::MAX))]
        steps: u64,
        /// Settings over the preset's, such as run.num_envs=64
        #[arg(value_name = "KEY=VALUE")]
        overrides: Vec<String>,
        #[command(flatten)]
        machine: Machine,
    },
    /// Measure rollouts and updates of an experiment, without writing anything
    Train {
        /// The experiment, such as experiments/quickstart.toml
        file: PathBuf,
        /// Settings over the file's
        #[arg(value_name = "KEY=VALUE")]
        overrides: Vec<String>,
        /// Environment steps to measure, after one iteration to warm up
        #[arg(long, value_name = "N", default_value_t = 20_480, allow_negative_numbers = true, value_parser = whole(1, u64::MAX))]
        steps: u64,
        #[command(flatten)]
        machine: Machine,
    },
    /// Print a table of this machine: training and stepping, under a minute
    All {
        /// Seconds for each row
        #[arg(long, value_name = "N", default_value_t = 3, allow_negative_numbers = true, value_parser = whole(1, 600))]
        seconds: u64,
        #[command(flatten)]
        machine: Machine,
    },
    /// Measure how cost grows with environments, hidden size, experts, nodes and edges, and plot it
    ///
    /// Steps per second of training and of rollouts alone, on one core of the processor, while one quantity
    /// grows and all else stays: 1 to 4096 environments, 16 to 512 hidden units, 2 to 256 experts, 128 to
    /// 4096 nodes and 600 to 16000 edges of a knowledge graph. Takes some minutes. Writes growth.csv and one plot
    /// (SVG, both axes logarithmic) for each quantity.
    Growth {
        /// Folder of the table and the plots; files of the same names are written over
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Seconds for each point, after one iteration to warm up
        #[arg(long, value_name = "N", default_value_t = 3, allow_negative_numbers = true, value_parser = whole(1, 600))]
        seconds: u64,
    },
}

/// Where a command computes.
#[derive(Debug, Args)]
pub(super) struct Machine {
    /// Where tensors live
    #[arg(long, default_value = "cpu")]
    device: DeviceName,
    /// Worker threads; results do not depend on it [default: all cores]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole(1, 1024))]
    threads: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DeviceName {
    /// The processor
    Cpu,
    /// An NVIDIA GPU; needs a build with --features cuda
    Cuda,
    /// To train: whichever is faster, found by a moment of the experiment on each; else the processor
    Auto,
}

/// Reads a rung by its name.
fn rung(text: &str) -> Result<Rung, String> {
    let names = Rung::ALL.map(|rung| rung.to_string());
    let found = Rung::ALL.into_iter().zip(&names).find(|(_, name)| *name == text);
    found.map(|(rung, _)| rung).ok_or_else(|| format!("need one of {}", names.join(", ")))
}

/// Reads a whole number, and tells of anything else what the configuration tells of its own.
fn whole(least: u64, most: u64) -> impl Fn(&str) -> Result<u64, String> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| format!("need a whole number from {least} to {most}"))
    }
}

impl Machine {
    /// For training by `config`.
    pub(super) fn options_for(
        &self,
        config: &ExperimentConfig,
        entries: &[EnvEntry],
        terminal: &mut Terminal,
    ) -> Result<RunOptions, RunError> {
        let mut options = self.options();
        if self.device == DeviceName::Auto {
            let found = faster_device(config, &options, entries, &mut |device| {
                terminal.note(&format!("device: trying {} for a moment", device.name()));
            })?;
            terminal.note(&format!("device: {} ({})", found.device.name(), found.why));
            options.device = found.device;
        }
        Ok(options)
    }

    /// For what does not train.
    pub(super) fn options(&self) -> RunOptions {
        let defaults = RunOptions::default();
        RunOptions {
            device: match self.device {
                DeviceName::Cpu | DeviceName::Auto => Device::Cpu,
                DeviceName::Cuda => Device::Cuda,
            },
            threads: self.threads.map_or(defaults.threads, |threads| threads as usize),
            revision: env!("GATEFOLD_REVISION").to_string(),
            ..defaults
        }
    }
}
