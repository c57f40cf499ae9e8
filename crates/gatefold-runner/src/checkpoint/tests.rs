//! Transactions, damage and what is kept.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::*;
use crate::error::RunError;

fn snapshot(step: u64) -> Snapshot {
    let header = Header {
        env_steps: step,
        iteration: step / 10,
        config_hash: "c0ffee".into(),
        simd_level: "portable".into(),
        revision: "unknown".into(),
        wall_s: 0.1,
        seconds_to_target: None,
        eval_return_mean: None,
    };
    let tensor = |path: &str, data: &[f32]| NamedTensor {
        path: path.into(),
        shape: vec![data.len(), 1],
        data: data.to_vec(),
    };
    let policy = vec![tensor("b.weight", &[step as f32, -0.0]), tensor("a.weight", &[f32::MIN_POSITIVE])];
    let optimizer = vec![tensor("a.weight.m", &[1.5])];
    let state = BTreeMap::from([("episodes", step), ("optimizer_steps", 2 * step)]);
    Snapshot::new(header, "about = \"a test\"\n".into(), policy, optimizer, &state)
}

fn saved(folder: &Path, steps: impl IntoIterator<Item = u64>) -> CheckpointStore {
    let mut store = CheckpointStore::open(folder, 3).unwrap();
    for step in steps {
        store.save(&snapshot(step)).unwrap();
    }
    store
}

fn steps(folder: &Path) -> Vec<u64> {
    list(folder).unwrap().into_iter().map(|(step, _)| step).collect()
}

#[test]
fn a_saved_snapshot_is_read_back_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = CheckpointStore::open(folder.path(), 3).unwrap();
    let path = store.save(&snapshot(123)).unwrap();
    assert_eq!(path.file_name().unwrap(), "step-000000000123");
    let loaded = load(&path).unwrap();
    assert_eq!(loaded, snapshot(123));
    assert!(loaded.policy[1].data[1].is_sign_negative(), "negative zero survives");
    assert_eq!(loaded.policy[0].path, "a.weight", "tensors come in path order");
    let state: BTreeMap<String, u64> = loaded.state().unwrap();
    assert_eq!(state["optimizer_steps"], 246);
    assert!(loaded.state::<Vec<bool>>().is_err(), "another form is an error");
}

#[test]
fn the_hash_covers_tensors_and_state_but_not_the_header() {
    let original = snapshot(1);
    let mut clock = original.clone();
    clock.header.wall_s = 99.0;
    clock.header.revision = "other".into();
    assert_eq!(original.hash(), clock.hash());

    let mut changes: Vec<Snapshot> = vec![original.clone(); 5];
    changes[0].policy[0].data[0] = 2.0;
    changes[1].policy[0].shape = vec![1, 1, 1];
    changes[2].policy[0].path = "a.weighs".into();
    changes[3].state[5] ^= 1;
    let moved = changes[4].optimizer.remove(0);
    changes[4].policy.push(moved);
    for changed in changes {
        assert_ne!(original.hash(), changed.hash());
    }
}

#[test]
fn damage_to_any_file_is_detected_and_the_previous_checkpoint_is_used() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 3] = [
        ("a flipped bit", |path| {
            let mut bytes = fs::read(path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(path, bytes).unwrap();
        }),
        ("a cut", |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
        }),
        ("a loss", |path| fs::remove_file(path).unwrap()),
    ];
    let files = [
        "config.toml",
        "policy.safetensors",
        "optimizer.safetensors",
        "state.msgpack",
        "manifest.json",
        "manifest.sha256",
    ];
    for file in files {
        for (name, damage) in damages {
            let folder = tempfile::tempdir().unwrap();
            let store = saved(folder.path(), [10, 20]);
            damage(&folder.path().join("step-000000000020").join(file));
            let found = store.latest().unwrap();
            assert_eq!(found.snapshot, snapshot(10), "{name} of {file}");
            let [warning] = &found.warnings[..] else { panic!("{name} of {file}: {:?}", found.warnings) };
            assert!(warning.contains("step-000000000020"), "{warning}");
            assert!(warning.contains(file.split('.').next().unwrap()), "{warning}");
        }
    }
}

#[test]
fn without_a_whole_checkpoint_there_is_one_error_that_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let store = saved(folder.path(), []);
    let error = store.latest().unwrap_err();
    assert!(matches!(error, RunError::NoCheckpoint { .. }) && error.to_string().contains("there are none"));
    let store = saved(folder.path(), [10]);
    fs::remove_file(folder.path().join("step-000000000010/state.msgpack")).unwrap();
    let error = store.latest().unwrap_err().to_string();
    assert!(error.contains("all are damaged") && error.contains("state.msgpack is missing"), "{error}");
}

#[test]
fn another_format_is_an_error_and_not_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = saved(folder.path(), [10, 20]);
    let path = folder.path().join("step-000000000020");
    let manifest = fs::read_to_string(path.join("manifest.json")).unwrap();
    let manifest = manifest.replace("\"format\": 2", "\"format\": 7");
    fs::write(path.join("manifest.sha256"), format!("{}\n", digest(manifest.as_bytes()))).unwrap();
    fs::write(path.join("manifest.json"), manifest).unwrap();
    let error = store.latest().unwrap_err();
    assert!(matches!(error, RunError::Version { found: 7, supported: 2, .. }), "{error}");
}

#[test]
fn the_newest_three_and_the_best_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = saved(folder.path(), [0, 10]);
    store.mark_best(10, 4.5).unwrap();
    for step in [20, 30, 40, 50] {
        store.save(&snapshot(step)).unwrap();
    }
    assert_eq!(steps(folder.path()), [50, 40, 30, 10]);
    assert_eq!(store.best().unwrap(), Some(Best { step: 10, return_mean: 4.5 }));
    store.mark_best(50, 5.5).unwrap();
    store.save(&snapshot(60)).unwrap();
    assert_eq!(steps(folder.path()), [60, 50, 40]);
}

#[test]
fn a_killed_writer_leaves_nothing_that_is_taken_for_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    saved(folder.path(), [10]);
    let torn = folder.path().join(".tmp-step-000000000020");
    fs::create_dir(&torn).unwrap();
    fs::write(torn.join("policy.safetensors"), b"half").unwrap();
    assert_eq!(latest(folder.path()).unwrap().snapshot, snapshot(10));
    let mut store = CheckpointStore::open(folder.path(), 3).unwrap();
    assert!(!torn.exists(), "the next writer clears it away");
    store.save(&snapshot(20)).unwrap();
    assert_eq!(store.latest().unwrap().snapshot, snapshot(20));
}

#[test]
fn a_resumed_run_saves_again_where_a_damaged_checkpoint_stood() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = saved(folder.path(), [10, 20]);
    store.mark_best(20, 1.0).unwrap();
    fs::write(folder.path().join("step-000000000020/state.msgpack"), b"").unwrap();
    let warnings = store.rewind(10).unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(folder.path().join("damaged-step-000000000020").is_dir(), "it is kept for inspection");
    assert_eq!(store.best().unwrap(), None);
    store.save(&snapshot(20)).unwrap();
    store.save(&snapshot(20)).unwrap();
    assert_eq!(store.latest().unwrap().snapshot, snapshot(20));
    assert!(store.rewind(20).unwrap().is_empty());
}

#[test]
fn an_unwritable_folder_is_one_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("checkpoints");
    fs::write(&place, b"a file where a folder should be").unwrap();
    let error = CheckpointStore::open(&place, 3).unwrap_err().to_string();
    assert!(error.contains("checkpoints: this is a file"), "{error}");
}

#[test]
fn a_run_a_folder_and_a_checkpoint_can_all_be_named() {
    let run = tempfile::tempdir().unwrap();
    let folder = run.path().join("checkpoints");
    saved(&folder, [10, 20]);
    assert_eq!(open(run.path()).unwrap().snapshot, snapshot(20));
    assert_eq!(open(&folder).unwrap().snapshot, snapshot(20));
    assert_eq!(open(&folder.join("step-000000000010")).unwrap().snapshot, snapshot(10));
    assert_eq!(hash(run.path()).unwrap(), snapshot(20).hash());

    fs::write(folder.join("step-000000000020/state.msgpack"), b"").unwrap();
    let verdicts = verify(run.path()).unwrap();
    assert!(verdicts[0].hash.is_err() && verdicts[1].hash.is_ok());
    for nowhere in [run.path().join("nothing"), std::env::temp_dir()] {
        assert!(matches!(open(&nowhere), Err(RunError::NoCheckpoint { .. })));
    }
}

#[test]
fn a_slow_disk_does_not_hold_up_the_one_who_saves() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = CheckpointWriter::new(saved(folder.path(), []));
    let (disk, wait) = std::sync::mpsc::channel::<()>();
    let slow = move || {
        wait.recv().expect("the test lets it go on");
        Ok(())
    };
    assert_eq!(writer.save(snapshot(10), slow).unwrap(), None);
    assert!(steps(folder.path()).is_empty(), "the saver is back before anything is written");
    disk.send(()).unwrap();
    let path = folder.path().join("step-000000000010");
    assert_eq!(writer.flush().unwrap(), Some(Saved { path, step: 10 }));
    assert_eq!(writer.store().latest().unwrap().snapshot, snapshot(10));
    assert_eq!(writer.flush().unwrap(), None, "a save is told once");
}

#[test]
fn one_save_at_a_time_is_in_flight_and_each_is_told_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = CheckpointWriter::new(saved(folder.path(), []));
    for step in [10, 20, 30] {
        let (place, before) = (folder.path().to_path_buf(), step - 10);
        let first = move || {
            assert_eq!(steps(&place).first().copied().unwrap_or(0), before, "all before is on disk");
            Ok(())
        };
        let told = writer.save(snapshot(step), first).unwrap().map(|saved| saved.step);
        assert_eq!(told, (before > 0).then_some(before));
    }
    drop(writer);
    assert_eq!(steps(folder.path()), [30, 20, 10], "the end waits for the save in flight");
}

#[test]
fn an_error_beside_the_loop_is_told_by_the_next_save() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = CheckpointWriter::new(saved(folder.path(), []));
    writer.save(snapshot(10), || Ok(())).unwrap();
    writer.save(snapshot(20), || Err(RunError::Stopped("the disk is full".into()))).unwrap();
    let error = writer.save(snapshot(30), || Ok(())).unwrap_err();
    assert_eq!(error.to_string(), "the disk is full");
    assert_eq!(writer.flush().unwrap(), None, "nothing is begun after an error");
    assert_eq!(steps(folder.path()), [10], "what failed before the write is not seen");
    writer.save(snapshot(40), || Ok(())).unwrap();
    assert_eq!(writer.flush().unwrap().map(|saved| saved.step), Some(40));
}
