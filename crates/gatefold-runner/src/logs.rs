//! The files that a run appends to.

use gatefold_curriculum::Moment;

use crate::run_dir::RunDir;
use crate::{EventLog, MetricsLog, RunError};

/// Metrics and events of a run.
pub(crate) struct Logs {
    pub(crate) metrics: MetricsLog,
    pub(crate) events: EventLog,
}

impl Logs {
    /// Opens both for a run that stands at `at`; what is later is cut off.
    pub(crate) fn open(run: &RunDir, at: Moment) -> Result<Self, RunError> {
        Ok(Self {
            metrics: MetricsLog::open(&run.metrics(), at)?,
            events: EventLog::open(&run.events(), at)?,
        })
    }

    /// What puts both on the disk, before a checkpoint of their step can be seen.
    pub(crate) fn sync(&self) -> Result<impl FnOnce() -> Result<(), RunError> + Send + use<>, RunError> {
        let (metrics, events) = (self.metrics.sync()?, self.events.sync()?);
        Ok(move || metrics().and_then(|()| events()))
    }
}
