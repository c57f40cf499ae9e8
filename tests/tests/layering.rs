//! The layers of the house, and which crates may hold what: read from manifests and sources.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Every package of the workspace with its layer: a crate may use any lower layer, and inside its
/// layer only what [`INSIDE`] lists.
const LAYERS: [(&str, u8); 18] = [
    ("gatefold-tests", 6),
    ("gatefold", 5),
    ("gatefold-study", 4),
    ("gatefold-runner", 4),
    ("gatefold-ppo", 3),
    ("gatefold-imitation", 3),
    ("gatefold-policy", 2),
    ("gatefold-gat", 1),
    ("gatefold-router", 1),
    ("gatefold-optim", 1),
    ("gatefold-gym", 1),
    ("gatefold-envs", 1),
    ("gatefold-graph", 0),
    ("gatefold-env", 0),
    ("gatefold-curriculum", 0),
    ("gatefold-monitor", 0),
    ("gatefold-ops", 0),
    ("burn", 0),
];

/// The edges inside one layer.
const INSIDE: [(&str, &str); 3] = [
    ("gatefold-env", "gatefold-graph"),
    ("gatefold-monitor", "gatefold-curriculum"),
    ("gatefold-study", "gatefold-runner"),
];

/// Crates that may use only some of what lies below them.
const ONLY: [(&str, &[&str]); 2] =
    [("gatefold-gym", &["gatefold-env"]), ("gatefold-envs", &["gatefold-env", "gatefold-graph"])];

/// Environments are passed to these as values.
const WITHOUT_ENVS: [&str; 5] =
    ["gatefold-study", "gatefold-runner", "gatefold-ppo", "gatefold-imitation", "gatefold-policy"];

/// Crates without tensors.
const WITHOUT_BURN: [&str; 6] = [
    "gatefold-graph",
    "gatefold-env",
    "gatefold-curriculum",
    "gatefold-monitor",
    "gatefold-gym",
    "gatefold-envs",
];

fn layer(package: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == package).map(|(_, layer)| *layer)
}

/// Why `package` must not depend on `on`, if it must not. Crates from outside are free, but Burn.
fn objection(package: &str, on: &str) -> Option<String> {
    let known = |name: &str| layer(name).ok_or_else(|| format!("`{name}` has no row in LAYERS; give it one"));
    let (own, theirs) = match (known(package), known(on)) {
        (Err(unknown), _) => return Some(unknown),
        (_, Err(unknown)) if on.starts_with("gatefold") => return Some(unknown),
        (_, Err(_)) => return None,
        (Ok(own), Ok(theirs)) => (own, theirs),
    };
    if on == "burn" {
        return WITHOUT_BURN.contains(&package).then(|| "it is a crate without tensors".to_string());
    }
    if INSIDE.contains(&(package, on)) {
        return None;
    }
    if own <= theirs {
        let relation = if own == theirs { "a stranger of the same" } else { "a higher" };
        return Some(format!("that is {relation} layer: {own} may not use {theirs}"));
    }
    if let Some((_, allowed)) = ONLY.iter().find(|(name, _)| *name == package)
        && !allowed.contains(&on)
    {
        return Some(format!("it may use only {}", allowed.join(" and ")));
    }
    if on == "gatefold-envs" && WITHOUT_ENVS.contains(&package) {
        return Some("environments are passed to it as values".to_string());
    }
    None
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace").to_path_buf()
}

/// The directories of all packages of the workspace.
fn packages() -> Vec<PathBuf> {
    let crates = fs::read_dir(root().join("crates")).expect("crates/ can be read");
    let mut found: Vec<PathBuf> = crates
        .map(|entry| entry.expect("crates/ can be read").path())
        .chain([root().join("envs"), root().join("tests")])
        .filter(|path| path.join("Cargo.toml").is_file())
        .collect();
    found.sort();
    found
}

/// Package name and everything it is built from: dependencies and build dependencies, of every
/// target, by the name of the package; development dependencies do not count.
fn manifest(text: &str) -> (String, Vec<String>) {
    let manifest: toml::Table = text.parse().expect("a manifest is TOML");
    let name = manifest["package"]["name"].as_str().expect("packages have a name").to_string();
    let targets = manifest.get("target").and_then(|t| t.as_table()).cloned().unwrap_or_default();
    let places = targets.iter().filter_map(|(_, target)| target.as_table()).chain([&manifest]);
    let sections = places.flat_map(|place| ["dependencies", "build-dependencies"].map(|key| place.get(key)));
    let tables = sections.flatten().filter_map(|section| section.as_table());
    let named = |(key, value): (&String, &toml::Value)| {
        let renamed = value.get("package").and_then(|package| package.as_str());
        renamed.unwrap_or(key).to_string()
    };
    (name, tables.flat_map(|table| table.iter().map(named)).collect())
}

#[test]
fn every_crate_uses_only_lower_layers() {
    let mut violations = Vec::new();
    let mut edges = BTreeMap::new();
    for package in packages() {
        let path = package.join("Cargo.toml");
        let (name, dependencies) = manifest(&fs::read_to_string(&path).expect("a manifest can be read"));
        let house = dependencies.iter().filter(|on| on.starts_with("gatefold")).count();
        for on in dependencies {
            if let Some(why) = objection(&name, &on) {
                violations.push(format!("`{name}` depends on `{on}`: {why}"));
            }
        }
        edges.insert(name, house);
    }
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
    assert!(edges.len() >= 12 && edges["gatefold-runner"] > 4, "manifests were not read: {edges:?}");
}

#[test]
fn a_dependency_that_breaks_the_layers_is_found_with_its_reason() {
    let cases = [
        ("gatefold-ops", "gatefold-gat", "higher layer"),
        ("gatefold-env", "gatefold-policy", "higher layer"),
        ("gatefold-gat", "gatefold-router", "stranger"),
        ("gatefold-ppo", "gatefold-imitation", "stranger"),
        ("gatefold-runner", "gatefold-study", "stranger"),
        ("gatefold-graph", "gatefold-env", "stranger"),
        ("gatefold-gym", "gatefold-ops", "only gatefold-env"),
        ("gatefold-envs", "gatefold-ops", "only gatefold-env and gatefold-graph"),
        ("gatefold-runner", "gatefold-envs", "as values"),
        ("gatefold-study", "gatefold-envs", "as values"),
        ("gatefold-env", "burn", "without tensors"),
        ("gatefold-new", "gatefold-env", "no row"),
        ("gatefold-ppo", "gatefold-new", "no row"),
    ];
    for (package, on, why) in cases {
        let found = objection(package, on).unwrap_or_default();
        assert!(found.contains(why), "{package} -> {on}: `{found}`");
    }
    for (package, on) in [
        ("gatefold-env", "gatefold-graph"),
        ("gatefold-study", "gatefold-runner"),
        ("gatefold-ppo", "gatefold-curriculum"),
        ("gatefold", "gatefold-envs"),
        ("gatefold-ops", "burn"),
        ("gatefold-env", "rayon"),
    ] {
        assert_eq!(objection(package, on), None, "{package} -> {on}");
    }
}

#[test]
fn manifests_are_read_in_every_form_of_a_dependency() {
    let text = r#"
        [package]
        name = "house"
        [dependencies]
        plain.workspace = true
        renamed = { package = "real", version = "1" }
        [dev-dependencies]
        only_in_tests = "1"
        [target.'cfg(unix)'.dependencies]
        on_unix = "1"
        [build-dependencies]
        built_with = "1"
    "#;
    let (name, mut dependencies) = manifest(text);
    dependencies.sort();
    assert_eq!(
        (name.as_str(), dependencies.join(" ")),
        ("house", "built_with on_unix plain real".to_string())
    );
}

/// What is left of a line without its comment and its string literals. Literals over several lines
/// and raw ones are not understood; no source has needed that yet.
fn code(line: &str) -> String {
    let mut code = String::new();
    let (mut quoted, mut escaped, mut previous) = (false, false, ' ');
    for c in line.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' if previous != '\'' => quoted = !quoted,
            '/' if previous == '/' && !quoted => return code,
            _ if !quoted => code.push(c),
            _ => {}
        }
        previous = c;
    }
    code
}

/// Whether `word` stands in `code` on its own.
fn has_word(code: &str, word: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .any(|(at, _)| !code[..at].ends_with(inside) && !code[at + word.len()..].starts_with(inside))
}

/// `file:line` of every use of a word in the sources, but for examples, which are programs of their own.
fn uses(words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut files = 0;
    let mut pending: Vec<PathBuf> = packages()
        .iter()
        .flat_map(|package| ["src", "tests", "benches", "build.rs"].map(|part| package.join(part)))
        .filter(|path| path.exists())
        .collect();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a directory can be read");
            pending.extend(entries.map(|entry| entry.expect("an entry can be read").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files += 1;
            let text = fs::read_to_string(&path).expect("a source can be read");
            let name = path.strip_prefix(root()).expect("below the root").display().to_string();
            for (number, line) in text.lines().enumerate() {
                let code = code(line);
                if words.iter().any(|word| has_word(&code, word)) {
                    found.push(format!("{name}:{}: {}", number + 1, line.trim()));
                }
            }
        }
    }
    assert!(files > 100, "only {files} sources were read");
    found.sort();
    found
}

#[track_caller]
fn only_in(words: &[&str], places: &[&str], why: &str) {
    let (inside, outside): (Vec<_>, Vec<_>) =
        uses(words).into_iter().partition(|at| places.iter().any(|place| at.starts_with(place)));
    assert!(outside.is_empty(), "{why}:\n{}\n", outside.join("\n"));
    assert!(!inside.is_empty(), "`{}` was found nowhere, so nothing was searched", words.join("`, `"));
}

#[test]
fn unsafe_code_lives_in_ops_only() {
    only_in(&["unsafe"], &["crates/gatefold-ops/"], "unsafe code outside gatefold-ops");
}

#[test]
fn only_the_command_line_prints() {
    let macros = ["println", "eprintln", "print", "eprint", "dbg"].map(|name| format!("{name}!"));
    let macros: Vec<&str> = macros.iter().map(String::as_str).collect();
    // A bench that counts is a command of its own.
    let commands = ["crates/gatefold/", "crates/gatefold-ops/benches/instructions.rs"];
    only_in(&macros, &commands, "printing outside the command line; report an event or a metric");
}

#[test]
fn words_are_found_in_code_and_not_in_comments_strings_or_other_words() {
    let cases = [
        ("    unsafe { f() }", true),
        ("f(); unsafe { g() } // why", true),
        ("let x = '\"'; unsafe { g() }", true),
        ("// unsafe", false),
        ("f(); // unsafe", false),
        ("let x = \"unsafe\";", false),
        ("let x = \"\\\"unsafe\";", false),
        ("#![forbid(unsafe_code)]", false),
        ("very_unsafe();", false),
    ];
    for (line, expected) in cases {
        assert_eq!(has_word(&code(line), "unsafe"), expected, "{line}");
    }
    assert!(has_word(&code("std::println!(\"{x}\");"), "println!"));
    assert!(!has_word(&code("eprintln!(\"{x}\");"), "println!"));
}
