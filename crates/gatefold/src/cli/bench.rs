//! `gatefold bench`: how fast this machine is.

use gatefold_env::EnvEntry;
use gatefold_runner::{
    BenchResult, ExperimentConfig, RunError, RunOptions, Until, bench_stepping, bench_training, layers,
    preset_on_cartpole,
};

use super::arguments::BenchCommand;
use super::growth;
use super::terminal::Terminal;

/// What `bench all` trains: a name, a preset on cartpole and what is set over it.
const CARTPOLE: [(&str, &str, &[&str]); 4] = [
    ("cartpole, sb3-fast, 8 x 256, minibatch 64", "sb3-fast", &[]),
    ("cartpole, cleanrl, 4 x 128, minibatch 128", "cleanrl", &[]),
    ("cartpole, cleanrl, 64 x 128, minibatch 2048", "cleanrl", &["run.num_envs=64", "ppo.minibatch=2048"]),
    (
        "cartpole, cleanrl, 1024 x 32, minibatch 8192",
        "cleanrl",
        &["run.num_envs=1024", "ppo.num_steps=32", "ppo.minibatch=8192"],
    ),
];

/// The whole method, in its warmup, in which every expert acts.
const DELVE: &str = "about = \"benchmark\"\n[env]\nname = \"delve\"\n";

/// Copies of an environment that are stepped.
const COPIES: [usize; 2] = [64, 1024];

pub(super) fn carry_out(
    command: BenchCommand,
    entries: &[EnvEntry],
    terminal: &mut Terminal,
) -> Result<(), RunError> {
    match command {
        BenchCommand::Ppo { preset, steps, overrides, machine } => {
            let config = preset_on_cartpole(&preset, &overrides, entries)?;
            let options = machine.options_for(&config, entries, terminal)?;
            let result = bench_training(&config, Until::Steps(steps), &options, entries)?;
            terminal.say(&result_line(result));
        }
        BenchCommand::Train { file, overrides, steps, machine } => {
            let config = layers::load(&file, &overrides, entries)?;
            let options = machine.options_for(&config, entries, terminal)?;
            let result = bench_training(&config, Until::Steps(steps), &options, entries)?;
            terminal.say(&result_line(result));
        }
        BenchCommand::Growth { out, seconds } => growth::carry_out(&out, seconds as f64, entries, terminal)?,
        BenchCommand::All { seconds, machine } => all(seconds as f64, &machine.options(), entries, terminal)?,
    }
    Ok(())
}

fn result_line(result: BenchResult) -> String {
    let result = serde_json::json!({
        "tps": result.tps,
        "transitions": result.transitions,
        "seconds": result.seconds,
        "rollout_s": result.rollout_s,
    });
    format!("RESULT {result}")
}

/// Every row as soon as it is measured.
fn all(
    seconds: f64,
    options: &RunOptions,
    entries: &[EnvEntry],
    terminal: &mut Terminal,
) -> Result<(), RunError> {
    terminal.say(&format!(
        "training on {} threads: environment steps per second, and the share of rollouts",
        options.threads
    ));
    let mut row = |what: &str, config: ExperimentConfig| {
        let result = bench_training(&config, Until::Seconds(seconds), options, entries)?;
        let share = 100.0 * result.rollout_s / result.seconds;
        terminal.say(&format!("  {what:46} {:>11}   {share:3.0} %", grouped(result.tps)));
        Ok::<_, RunError>(())
    };
    for (what, preset, overrides) in CARTPOLE {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        row(what, preset_on_cartpole(preset, &overrides, entries)?)?;
    }
    row("delve, the full method", layers::resolve("bench", DELVE, &[], entries)?)?;

    terminal.say("stepping on one thread, observations included: environment steps per second");
    for entry in entries {
        for copies in COPIES {
            let rate = bench_stepping(entry, copies, seconds / 3.0)?;
            let what = format!("{}, {copies} copies", entry.name);
            terminal.say(&format!("  {what:46} {:>11}", grouped(rate)));
        }
    }
    Ok(())
}

/// A whole number with a comma between thousands.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_told_apart() {
        let told = [0.4, 999.0, 1000.0, 12_345.6, 41_000_000.0].map(grouped);
        assert_eq!(told, ["0", "999", "1,000", "12,346", "41,000,000"]);
    }

    #[test]
    fn every_row_of_the_table_is_a_valid_experiment() {
        let entries = gatefold_envs::TABLE;
        for (what, preset, overrides) in CARTPOLE {
            let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
            preset_on_cartpole(preset, &overrides, entries).unwrap_or_else(|e| panic!("{what}: {e}"));
        }
        layers::resolve("bench", DELVE, &[], entries).expect("a valid experiment");
    }
}
