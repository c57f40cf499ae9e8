//! Each command as a few lines.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use gatefold_env::{EnvEntry, conformance};
use gatefold_runner::events::{EpisodeMeans, Evaluation, ExpertUse};
use gatefold_runner::run_dir::read_config;
use gatefold_runner::{
    RunError, RunOptions, StepFrom, apply_rung, check_simd_request, checkpoint, evaluate, explain, layers,
    replay_update, resume, train,
};
use miette::Diagnostic;

use super::arguments::{CheckpointCommand, Command, ConfigCommand, EnvCommand};
use super::progress::LiveReporter;
use super::terminal::Terminal;
use super::{bench, chaos, compare, study};

/// Exit code of a question that was answered with no.
const NO: u8 = 1;

/// What ends a command with exit code 2.
type Failure = Box<dyn Diagnostic>;

/// A failure that is not the runner's.
#[derive(Debug)]
pub(super) struct Refused(pub(super) String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}
impl Diagnostic for Refused {}

pub(super) fn carry_out(
    command: Command,
    entries: &[EnvEntry],
    terminal: &mut Terminal,
) -> Result<ExitCode, Box<dyn Diagnostic>> {
    check_simd_request()?;
    match command {
        Command::Train { file, mut overrides, seed, run_dir, rung, machine } => {
            overrides.extend(seed.map(|seed| format!("run.seed={seed}")));
            overrides.extend(rung.map(|rung| format!("ladder.start={rung}")));
            let config = layers::load(&file, &overrides, entries)?;
            let options = RunOptions { run_dir, ..machine.options_for(&config, entries, terminal)? };
            train(&config, &options, entries, &mut LiveReporter::new(terminal))?;
        }
        Command::Resume { run, overrides, rung, machine } => {
            let config = read_config(&run, &overrides, entries)?; // refused before anything is changed
            let options = machine.options_for(&config, entries, terminal)?;
            if let Some(rung) = rung {
                let reporter = &mut LiveReporter::new(terminal);
                apply_rung(&run, rung, StepFrom::Present, None, &options, entries, reporter)?;
            }
            let mut reporter = LiveReporter::new(terminal);
            resume(&run, &overrides, &options, entries, &mut reporter)?;
        }
        Command::Eval { path, best, episodes, deterministic, machine } => {
            let path = chosen_checkpoint(&path, best, terminal)?;
            let options = machine.options();
            let mut reporter = LiveReporter::new(terminal);
            let evaluation =
                evaluate(&path, episodes as usize, deterministic, &options, entries, &mut reporter)?;
            drop(reporter);
            terminal.say(&evaluation_table(&evaluation));
        }
        Command::Ladder { run, rung, from_healthy, out, machine } => {
            let from = if from_healthy { StepFrom::LastHealthy } else { StepFrom::Present };
            let options = machine.options();
            let mut reporter = LiveReporter::new(terminal);
            let change = apply_rung(&run, rung, from, out.as_deref(), &options, entries, &mut reporter)?;
            drop(reporter);
            terminal.say(&change.to_string());
        }
        Command::Explain { run } => terminal.say(&explain(&run, entries)?),
        Command::ReplayUpdate { dump, machine } => {
            let replay = replay_update(&dump, &machine.options(), entries)?;
            terminal.say(&replay.to_string());
            if !replay.reproduced() {
                return Ok(ExitCode::from(NO));
            }
        }
        Command::Study(args) => study::carry_out(args, entries, terminal)?,
        Command::Compare(args) => compare::carry_out(args, terminal)?,
        #[cfg(feature = "chaos")]
        Command::Chaos(args) => return chaos::carry_out(args, entries, terminal),
        #[cfg(not(feature = "chaos"))]
        Command::Chaos(args) => return chaos::carry_out(&args),
        Command::Env(EnvCommand::List) => terminal.say(&environment_list(entries)),
        Command::Env(EnvCommand::Check { name, options }) => {
            terminal.say(&check_environment(&name, &options, entries)?);
        }
        Command::Config(ConfigCommand::Check { file, overrides }) => {
            terminal.say(&layers::to_toml(&layers::load(&file, &overrides, entries)?));
        }
        Command::Config(ConfigCommand::Defaults) => terminal.say(&layers::defaults(entries)),
        Command::Checkpoint(CheckpointCommand::Verify { path }) => verify(&path, terminal)?,
        Command::Checkpoint(CheckpointCommand::Hash { path }) => {
            let found = checkpoint::open(&path)?;
            found.warnings.iter().for_each(|warning| terminal.note(&format!("warning: {warning}")));
            terminal.say(&found.snapshot.hash());
        }
        Command::Bench(command) => bench::carry_out(command, entries, terminal)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The checkpoint to evaluate, after saying which one it is.
fn chosen_checkpoint(path: &Path, best: bool, terminal: &mut Terminal) -> Result<PathBuf, Failure> {
    let found = if best { checkpoint::open_best(path)? } else { checkpoint::open(path)? };
    found.warnings.iter().for_each(|warning| terminal.note(&format!("warning: {warning}")));
    let which = match (best, found.path == path) {
        (true, _) => "the best by evaluation",
        (false, true) => "as named",
        (false, false) => "the newest",
    };
    let (path, step) = (found.path, found.snapshot.header.env_steps);
    terminal.note(&format!("checkpoint {}: step {step}, {which}", path.display()));
    Ok(path)
}

fn environment_list(entries: &[EnvEntry]) -> String {
    let width = entries.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_by_key(|entry| entry.name);
    sorted.iter().map(|entry| format!("{:width$}  {}\n", entry.name, entry.about)).collect()
}

/// Checks an environment as one that draws, and if it breaks that as one that draws nothing.
fn check_environment(name: &str, options: &[String], entries: &[EnvEntry]) -> Result<String, Failure> {
    let entry = layers::find_environment(name, entries)?;
    // The options go through the same checks as those of an experiment file.
    let mut overrides = vec![format!("env.name={name}")];
    overrides.extend(options.iter().map(|option| format!("env.{option}")));
    let config = layers::resolve("command line", "about = \"a check\"", &overrides, entries)?;
    let drawing = conformance::Settings { options: config.env.options, ..Default::default() };
    let fixed = conformance::Settings { deterministic: true, ..drawing.clone() };
    match conformance::check(entry, &drawing) {
        Ok(report) => Ok(report.to_string()),
        Err(violations) => match conformance::check(entry, &fixed) {
            Ok(report) => Ok(format!("{report}\n`{name}` draws nothing: every seed gives the same episodes")),
            Err(_) => Err(Box::new(Refused(violations.to_string()))),
        },
    }
}

/// Prints a line for every checkpoint; fails with the newest damaged one.
fn verify(path: &Path, terminal: &mut Terminal) -> Result<(), Failure> {
    let mut first_damage: Option<RunError> = None;
    for verdict in checkpoint::verify(path)? {
        match verdict.hash {
            Ok(hash) => terminal.say(&format!("whole    {}  {hash}", verdict.path.display())),
            Err(error) => {
                terminal.say(&format!("damaged  {}", verdict.path.display()));
                first_damage.get_or_insert(error);
            }
        }
    }
    first_damage.map_or(Ok(()), |error| Err(error.into()))
}

/// The policy's means beside those that need no learning.
pub(super) fn evaluation_table(evaluation: &Evaluation) -> String {
    let mut table = format!(
        "{:10} {:>12} {:>12} {:>12}   over {} episodes on held-out seeds\n",
        "", "return", "score", "length", evaluation.episodes
    );
    let rows: [(&str, Option<EpisodeMeans>); 3] = [
        ("policy", Some(evaluation.policy)),
        ("random", evaluation.random),
        ("scripted", evaluation.scripted),
    ];
    for (name, means) in rows {
        let Some(EpisodeMeans { return_mean, score_mean, length_mean }) = means else { continue };
        table += &format!("{name:10} {return_mean:>12.2} {score_mean:>12.2} {length_mean:>12.1}\n");
    }
    if let Some(experts) = &evaluation.experts {
        table += "\n";
        table += &experts_table(experts);
    }
    table
}

/// Mean gate of each expert by kind of situation.
fn experts_table(experts: &ExpertUse) -> String {
    let width = experts.regimes.iter().map(String::len).max().unwrap_or(0).max(10);
    let mut table = format!("{:width$} {:>9}", "gates in", "steps");
    experts.experts.iter().for_each(|name| table += &format!(" {name:>12}"));
    for ((regime, steps), gates) in experts.regimes.iter().zip(&experts.steps).zip(&experts.gates) {
        table += &format!("\n{regime:width$} {steps:>9}");
        match steps {
            0 => gates.iter().for_each(|_| table += &format!(" {:>12}", "-")),
            _ => gates.iter().for_each(|gate| table += &format!(" {gate:>12.3}")),
        }
    }
    table + &format!("\nI(expert; situation) = {:.3} nats\n", experts.information)
}
