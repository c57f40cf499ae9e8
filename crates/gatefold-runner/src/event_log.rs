//! `events.jsonl`: one JSON object for everything that happened beside plain iterations.

use std::path::Path;

use gatefold_curriculum::Moment;
use gatefold_monitor::RunEvent;

use crate::error::RunError;
use crate::json_lines::{JsonLines, Keys};

/// Fields of [`RunEvent`].
const KEYS: Keys = Keys { env_step: "env_step", iteration: "iteration" };

/// The file of a run's events, open for appending.
#[derive(Debug)]
pub struct EventLog(JsonLines);

impl EventLog {
    /// Opens the file for a run that stands at `at`.
    ///
    /// Later events are cut off, and so is a line that was written only in part: the resumed run comes
    /// upon them again. Events of `at` itself belong to what the checkpoint holds, and stay: they have
    /// to be written before it is saved.
    pub fn open(path: &Path, at: Moment) -> Result<Self, RunError> {
        JsonLines::open(path, KEYS, at).map(Self)
    }

    /// Appends one event as a line.
    pub fn write(&mut self, event: &RunEvent) -> Result<(), RunError> {
        self.0.write(&serde_json::to_value(event).expect("an event is JSON"))
    }

    /// What puts the events written so far on the disk, to be carried out before a checkpoint of
    /// their step can be seen.
    pub fn sync(&self) -> Result<impl FnOnce() -> Result<(), RunError> + Send + use<>, RunError> {
        self.0.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatefold_monitor::Happening;

    fn at(env_step: u64) -> Moment {
        Moment { iteration: env_step / 10, env_step }
    }

    fn event(env_step: u64, attempt: u64) -> RunEvent {
        let what = Happening::UpdateDiscarded { evidence: "the loss is NaN".into(), attempt };
        RunEvent { iteration: env_step / 10, env_step, what }
    }

    #[test]
    fn a_resumed_run_keeps_every_event_of_the_resumed_step_and_none_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let written = [(10, 1), (20, 1), (20, 2), (30, 1)];
        let mut log = EventLog::open(&path, at(0)).unwrap();
        written.iter().for_each(|&(step, attempt)| log.write(&event(step, attempt)).unwrap());
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{whole}{{\"iteration\":4,\"env_st")).unwrap();

        let mut log = EventLog::open(&path, at(20)).unwrap();
        let kept = std::fs::read_to_string(&path).unwrap();
        assert_eq!(kept.lines().count(), 3, "both events of step 20 and nothing later: {kept}");
        log.write(&event(30, 1)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole, "none is lost and none is doubled");
        let read: Vec<RunEvent> = whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, written.map(|(step, attempt)| event(step, attempt)));
    }
}
