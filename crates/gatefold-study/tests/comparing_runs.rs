//! Finding runs on disk and comparing them.

use std::fs;
use std::path::Path;

use gatefold_runner::Summary;
use gatefold_study::{Comparison, Question, StudyError, compare, find_arms};

fn question(metric: &str) -> Question {
    Question { metric: metric.into(), target: None, thresholds: Vec::new() }
}

fn summary(seed: u64, score: f64) -> Summary {
    let text = format!(
        r#"{{"env": "corridor", "seed": {seed}, "total_steps": 1000, "wall_s": 1.5, "steps_per_second": 9.0,
            "train_return_mean": null, "eval_return_mean": 2.0, "eval_score_mean": {score}, "eval_episodes": 20,
            "steps_to_target": null, "seconds_to_target": null, "params": 77, "device": "cpu", "threads": 1}}"#
    );
    serde_json::from_str(&text).unwrap()
}

fn write_run(path: &Path, name: &str, summary: &Summary) {
    fs::create_dir_all(path).unwrap();
    fs::write(path.join("config.toml"), format!("about = \"a test\"\n[run]\nname = \"{name}\"\n")).unwrap();
    fs::write(path.join("summary.json"), serde_json::to_string(summary).unwrap()).unwrap();
}

/// `study/ARM/sSEED` with scores that grow with the seed, beside a log as a study writes it.
fn study(folder: &Path) {
    for (arm, shift) in [("ant", 0.0), ("zebra", 10.0)] {
        for seed in [1, 2, 10] {
            let run = folder.join(format!("study/{arm}/s{seed}"));
            write_run(&run, arm, &summary(seed, shift + seed as f64));
            fs::write(run.with_extension("log"), "training\n").unwrap();
        }
    }
}

fn compared(folder: &Path, arguments: &[&str], question: &Question) -> Result<Comparison, StudyError> {
    let place = |argument: &&str| argument.replace('@', &format!("{}/", folder.display()));
    compare(&find_arms(&arguments.iter().map(place).collect::<Vec<_>>())?, question)
}

#[test]
fn a_folder_of_runs_is_grouped_by_their_names_and_ordered_by_seed() {
    let folder = tempfile::tempdir().unwrap();
    study(folder.path());
    let found = compared(folder.path(), &["@study"], &question("eval_score_mean")).unwrap();
    let names: Vec<_> = found.arms.iter().map(|arm| arm.name.as_str()).collect();
    assert_eq!(names, ["ant", "zebra"]);
    let scores: Vec<_> = found.arms[1].runs.iter().map(|run| (run.seed, run.score)).collect();
    assert_eq!(scores, [(1, 11.0), (2, 12.0), (10, 20.0)]);
    assert_eq!(found.arms[1].params, Some(77));
    assert_eq!(found.arms[0].improvement, None);
    let improvement = found.arms[1].improvement.unwrap();
    assert_eq!(improvement.value, 1.0);
    assert_eq!((found.arms[0].mean.value, found.arms[0].median.value), (13.0 / 3.0, 2.0));
    assert!(found.warnings.is_empty(), "{:?}", found.warnings);
}

#[test]
fn a_study_folder_keeps_the_order_of_its_file() {
    let folder = tempfile::tempdir().unwrap();
    study(folder.path());
    let text = "about = \"a\"\nbase = \"x.toml\"\n[study]\nseeds = [1]\n[arms.zebra]\n[arms.ant]\n";
    fs::write(folder.path().join("study/study.toml"), text).unwrap();
    let found = compared(folder.path(), &["@study"], &question("eval_score_mean")).unwrap();
    assert_eq!(found.arms[0].name, "zebra");
    assert_eq!(found.arms[1].improvement.unwrap().value, 0.0);
}

#[test]
fn runs_can_be_given_to_named_arms() {
    let folder = tempfile::tempdir().unwrap();
    study(folder.path());
    let arguments = ["old=@study/zebra/s1,@study/zebra/s2", "new=@study/ant", "@study/ant/s1"];
    let (places, asked) = (folder.path(), question("seed"));
    let absolute = arguments.map(|argument| argument.replace(",@", &format!(",{}/", places.display())));
    let absolute: Vec<&str> = absolute.iter().map(String::as_str).collect();
    let found = compared(places, &absolute, &asked).unwrap();
    let arms: Vec<_> = found.arms.iter().map(|arm| (arm.name.as_str(), arm.runs.len())).collect();
    assert_eq!(arms, [("old", 2), ("new", 3), ("ant", 1)]);
    assert_eq!(found.arms[0].mean.value, 1.5);
}

#[test]
fn the_table_shows_every_arm_with_interval_profile_and_notes() {
    let folder = tempfile::tempdir().unwrap();
    study(folder.path());
    write_run(&folder.path().join("study/ant/s1b"), "ant", &summary(1, 5.0));
    let asked = Question { target: Some(12.0), thresholds: vec![4.0, 11.5], ..question("eval_score_mean") };
    let table = compared(folder.path(), &["@study"], &asked).unwrap().to_string();
    let row = |name: &str| -> Vec<&str> {
        table.lines().filter(|line| line.starts_with(name)).flat_map(str::split_whitespace).collect()
    };
    // Scores 1, 2, 10, 5 and 11, 12, 20; gaps 11, 10, 2, 7 and 1, 0, 0.
    let ant = row("ant");
    assert_eq!(&ant[..4], ["ant", "4", "77", "3.50"], "{table}");
    assert!(ant.contains(&"7.50") && ant.ends_with(&["-", "ant", "0.50", "0.00"]), "{table}");
    let zebra = row("zebra");
    assert!(zebra.contains(&"0.3333") || zebra.contains(&"0.33"), "{table}");
    assert!(zebra.ends_with(&["zebra", "1.00", "0.67"]), "{table}");
    assert!(table.contains("note: ant: some runs have the same seed"), "{table}");
}

#[test]
fn what_cannot_be_compared_is_an_error_that_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    study(folder.path());
    fs::create_dir_all(at("empty/deeper")).unwrap();
    fs::create_dir_all(at("young")).unwrap();
    fs::write(at("young/config.toml"), "").unwrap();
    write_run(&at("stopped"), "x", &Summary { eval_return_mean: None, ..summary(1, 1.0) });
    write_run(&at("other"), "x", &Summary { env: "delve".into(), ..summary(1, 1.0) });
    fs::create_dir_all(at("odd")).unwrap();
    fs::write(at("odd/config.toml"), "").unwrap();
    fs::write(at("odd/summary.json"), "{\"env\": 3}").unwrap();

    let score = "eval_score_mean";
    let cases: [(&[&str], &str, &str); 9] = [
        (&["@nowhere"], score, "nowhere: cannot read: it does not exist"),
        (&["@empty"], score, "empty: no run in it"),
        (&["@young"], score, "young: no summary.json"),
        (&["@stopped"], score, "stopped: stopped before its final evaluation"),
        (&["@odd"], score, "odd/summary.json: not a summary"),
        (&["@study", "@other"], score, "ran on `delve`"),
        (&["@study"], "eval_score", "there are seed, total_steps"),
        (&["@study"], "steps_to_target", "steps_to_target was not reached"),
        (&["=@study"], score, "an arm without a name"),
    ];
    for (arguments, metric, expected) in cases {
        let error = compared(folder.path(), arguments, &question(metric)).unwrap_err();
        assert!(error.to_string().contains(expected), "{arguments:?}: {error}");
    }
}

#[test]
fn an_estimate_depends_neither_on_what_stands_beside_it_nor_on_the_order_of_runs() {
    let folder = tempfile::tempdir().unwrap();
    study(folder.path());
    let asked = Question { thresholds: vec![3.0], ..question("eval_score_mean") };
    let both = compared(folder.path(), &["@study"], &asked).unwrap();
    let alone = compared(folder.path(), &["@study/zebra"], &asked).unwrap();
    assert_eq!(both.arms[1].iqm, alone.arms[0].iqm);
    assert_eq!(both.arms[1].profile, alone.arms[0].profile);
    let shuffled = ["zebra=@study/zebra/s10,@study/zebra/s1,@study/zebra/s2"];
    let shuffled = shuffled.map(|argument| argument.replace(",@", &format!(",{}/", folder.path().display())));
    let shuffled = compared(folder.path(), &shuffled.each_ref().map(String::as_str), &asked).unwrap();
    assert_eq!(shuffled.arms, alone.arms);
    let json = serde_json::to_value(&both).unwrap();
    assert_eq!(json["arms"][1]["iqm"]["low"].as_f64(), Some(both.arms[1].iqm.interval.low));
}
