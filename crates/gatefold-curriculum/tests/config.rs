//! The configuration: every key works, every mistake is named, the schema says what is checked.

use gatefold_curriculum::{
    Curriculum, CurriculumConfig, Health, LadderConfig, Plan, Progress, RoutingChoice, Schedule, Unit,
};
use serde_json::{Value, json};

fn from_json(value: &Value) -> CurriculumConfig {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}"))
}

/// Plans over an unhealthy run with large minibatches, and the rate of a step within the first warmup
/// steps.
fn plans(config: &CurriculumConfig) -> Vec<(Plan, f64)> {
    let mut curriculum = Curriculum::new(config.clone(), 1024, 4).unwrap();
    (0..=100)
        .map(|step| {
            curriculum.observe(&Health::unhealthy("an alarm"));
            let (env_steps, episodes) = (step * 10_000, step * 40);
            let plan = curriculum.plan(Progress { env_steps, total_steps: 1_000_000, episodes });
            (plan, plan.learning_rate.at(300))
        })
        .collect()
}

/// Pointers to every leaf, such as `/warmup/lr`.
fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| leaves(value, &format!("{path}/{key}"), found));
        }
        _ => found.push(path.to_owned()),
    }
}

/// Another valid value of the same key.
fn changed(path: &str, value: &Value) -> Value {
    match value {
        Value::Bool(value) => json!(!value),
        Value::Number(value) if path.ends_with("_steps") => json!(value.as_u64().unwrap() / 2),
        Value::Number(value) if path == "/top_k" => json!(value.as_u64().unwrap() + 1),
        Value::Number(value) => json!(value.as_f64().unwrap() * 0.5 + 0.04),
        Value::String(value) => json!(match value.as_str() {
            "phases" => "constant",
            "constant" if path.ends_with("pet_schedule") => "stepped",
            "constant" => "phases",
            "fraction" => "episodes",
            "curriculum" | "softmax" | "sparsemax" => "uniform",
            "cosine" => "linear",
            "maximise" => "minimise",
            "minimise" => "maximise",
            other => panic!("{path} = {other}: give this test another value"),
        }),
        other => panic!("{path} = {other}: not a number, a switch or a choice"),
    }
}

#[test]
fn every_key_changes_a_plan() {
    let phases = CurriculumConfig::default();
    let mut constant = CurriculumConfig { schedule: Schedule::Constant, ..phases.clone() };
    constant.constant.gate_entropy = 0.1; // its sign says nothing about zero
    let mut pet = phases.clone();
    pet.optional.pet = 0.01;
    let gated = CurriculumConfig { advance_when_healthy: true, ..phases.clone() };
    let top_k = CurriculumConfig { routing: RoutingChoice::TopK, ..phases.clone() };
    let mut paths = Vec::new();
    leaves(&serde_json::to_value(&phases).unwrap(), "", &mut paths);
    assert!(paths.len() > 40, "{paths:?}");
    for path in paths {
        let base = match path.as_str() {
            "/top_k" => &top_k,
            "/max_hold" => &gated,
            "/optional/pet_schedule" => &pet,
            path if path.starts_with("/constant") => &constant,
            _ => &phases,
        };
        let mut value = serde_json::to_value(base).unwrap();
        let leaf = value.pointer_mut(&path).unwrap();
        *leaf = changed(&path, leaf);
        if path == "/unit" {
            value["warmup_until"] = json!(1000.0); // another unit needs other boundaries
            value["transition_until"] = json!(3000.0);
        }
        assert!(plans(&from_json(&value)) != plans(base), "{path} is a dead knob");
    }
}

#[test]
fn omitted_keys_keep_the_defaults_of_their_own_phase() {
    let config = from_json(&json!({ "fine_tune": { "lr": 3e-5 }, "lr_scale": 2.0 }));
    let mut expected = CurriculumConfig { lr_scale: 2.0, ..CurriculumConfig::default() };
    expected.fine_tune.lr = 3e-5;
    assert_eq!(config, expected);
    assert_eq!(from_json(&json!({})), CurriculumConfig::default());
}

#[test]
fn unknown_keys_are_errors_in_every_table() {
    let cases = [
        json!({ "warm_up": 1 }),
        json!({ "warmup": { "temprature": 1.0 } }),
        json!({ "transition": { "temperature": 1.0 } }),
        json!({ "fine_tune": { "router_z": 0.1 } }),
        json!({ "optional": { "alignment": 0.1 } }),
        json!({ "constant": { "lr_decay": "none" } }),
    ];
    for case in cases {
        let error = serde_json::from_value::<CurriculumConfig>(case.clone()).unwrap_err();
        assert!(error.to_string().contains("unknown field"), "{case}: {error}");
    }
}

#[test]
fn mistakes_name_the_key_the_value_and_what_would_be_accepted() {
    let cases = [
        (
            json!({ "warmup_until": 0.8 }),
            "[curriculum] warmup_until = 0.8: must not exceed transition_until = 0.6",
        ),
        (
            json!({ "transition_until": 3000 }),
            "[curriculum] transition_until = 3000: need 0 to 1, a fraction of total_steps; to count \
             episodes set unit = \"episodes\"",
        ),
        (
            json!({ "unit": "episodes" }),
            "[curriculum] warmup_until = 0.2: need a whole number of finished episodes, such as 1000, \
             with unit = \"episodes\"",
        ),
        (
            json!({ "unit": "episodes", "warmup_until": 1000 }),
            "[curriculum] transition_until = 0.6: need a whole number of finished episodes, such as \
             3000, with unit = \"episodes\"",
        ),
        (
            json!({ "unit": "episodes", "warmup_until": -1, "transition_until": 5 }),
            "[curriculum] warmup_until = -1: need a whole number of finished episodes, such as 1000, \
             with unit = \"episodes\"",
        ),
        (
            json!({ "max_hold": 2 }),
            "[curriculum] max_hold = 2: need 0 to 1, a fraction of total_steps; to count episodes set unit \
             = \"episodes\"",
        ),
        (
            json!({ "unit": "episodes", "warmup_until": 10, "transition_until": 20,
                "advance_when_healthy": true }),
            "[curriculum] max_hold = 0.1: need a whole number of finished episodes, such as 500, with unit \
             = \"episodes\"",
        ),
        (json!({ "warmup": { "temperature": 0 } }), "[curriculum.warmup] temperature = 0: need 0.01 to 100"),
        (
            json!({ "transition": { "blend_end": 1.5 } }),
            "[curriculum.transition] blend_end = 1.5: need 0 to 1",
        ),
        (json!({ "lr_scale": -1 }), "[curriculum] lr_scale = -1: need 0 to 1000"),
        (json!({ "top_k": 0 }), "[curriculum] top_k = 0: need 1 to the number of experts"),
    ];
    for (case, expected) in cases {
        let error = Curriculum::new(from_json(&case), 256, 4).unwrap_err();
        assert_eq!(error.to_string(), expected, "{case}");
    }
}

#[test]
fn nan_and_infinity_are_rejected() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for unit in [Unit::Fraction, Unit::Episodes] {
            let config = CurriculumConfig {
                unit,
                warmup_until: value,
                transition_until: f64::INFINITY,
                ..CurriculumConfig::default()
            };
            assert!(config.validate().is_err(), "warmup_until = {value} in {unit:?}");
        }
        let mut config = CurriculumConfig::default();
        config.fine_tune.lr = value;
        assert!(config.validate().is_err(), "lr = {value}");
    }
}

#[test]
fn a_constant_schedule_does_not_ask_for_boundaries() {
    let config = json!({ "schedule": "constant", "unit": "episodes" });
    assert_eq!(from_json(&config).validate(), Ok(()));
}

#[test]
fn the_presets_are_valid() {
    use gatefold_curriculum::Decay;
    for preset in [
        CurriculumConfig::default(),
        CurriculumConfig::seed(),
        CurriculumConfig::dense(2.5e-4, 0.01, Decay::Linear),
        CurriculumConfig::dense(3e-4, 0.0, Decay::None),
    ] {
        assert_eq!(preset.validate(), Ok(()));
        let written = serde_json::to_value(&preset).unwrap();
        assert_eq!(from_json(&written), preset);
    }
}

/// The properties of `table`: that of `[curriculum]` itself, or of one of its phases.
fn schema_properties(schema: &Value, table: &str) -> Value {
    let root = schema["properties"].clone();
    if table.is_empty() {
        return root;
    }
    let target = root[table]["$ref"].as_str().expect("a table refers to its definition");
    schema.pointer(target.trim_start_matches('#')).unwrap()["properties"].clone()
}

#[test]
fn the_schema_documents_every_key_and_states_the_ranges_that_are_checked() {
    let schema = serde_json::to_value(schemars::schema_for!(CurriculumConfig)).unwrap();
    for table in ["", "warmup", "transition", "fine_tune", "constant", "optional"] {
        for (key, property) in schema_properties(&schema, table).as_object().unwrap() {
            let about = property["description"].as_str().unwrap_or_default();
            assert!(about.len() > 20, "{table}.{key} has no description");
            assert!(!property["default"].is_null(), "{table}.{key} has no default");
            let numeric = property["type"] == "number" || property["type"] == "integer";
            assert_eq!(numeric, property["minimum"].is_number(), "{table}.{key} has no range");
            assert_eq!(numeric, about.contains("Range"), "{table}.{key} states no range");
            check_stated_default(&format!("{table}.{key}"), about, &property["default"]);
            if property["type"] == "number" {
                let mut outside = vec![property["minimum"].as_f64().unwrap() - 0.001];
                outside.extend(property["maximum"].as_f64().map(|max| max + 0.001));
                for value in outside {
                    check_rejected(table, key, value);
                }
            }
        }
    }
}

#[test]
fn the_ladder_documents_every_key_its_range_and_its_default() {
    let schema = serde_json::to_value(schemars::schema_for!(LadderConfig)).unwrap();
    let properties = schema["properties"].as_object().unwrap();
    assert_eq!(properties.len(), 7);
    for (key, property) in properties {
        let about = property["description"].as_str().unwrap_or_default();
        let numeric = property["type"] == "integer";
        assert_eq!(numeric, property["minimum"].is_number(), "ladder.{key} has no range");
        assert!(!numeric || about.contains("Range"), "ladder.{key} states no range");
        check_stated_default(&format!("ladder.{key}"), about, &property["default"]);
    }
}

fn check_rejected(table: &str, key: &str, value: f64) {
    let mut config = serde_json::to_value(CurriculumConfig::default()).unwrap();
    let slot = if table.is_empty() { &mut config } else { &mut config[table] };
    slot[key] = json!(value);
    let error = from_json(&config).validate().expect_err(key).to_string();
    assert!(error.contains(&format!("{key} = {value}")), "{error}");
}

/// A default in words must be the default: `Default 0.05`, `Default "softmax"`, `Default false`.
fn check_stated_default(key: &str, about: &str, default: &Value) {
    if default.is_object() {
        return; // a table: its keys state theirs
    }
    let words = about.split_once("Default").unwrap_or_else(|| panic!("{key} states no default")).1;
    let word = words.split_whitespace().next().unwrap().trim_end_matches(['.', ',', ';', ':']);
    let stated: Value = serde_json::from_str(word).unwrap_or_else(|error| panic!("{key}: {word}: {error}"));
    match (stated.as_f64(), default.as_f64()) {
        (Some(stated), Some(default)) => assert_eq!(stated, default, "{key}"),
        _ => assert_eq!(&stated, default, "{key}"),
    }
}
