//! Which device trains an experiment faster, found by training on each for a moment.

use gatefold_env::EnvEntry;

use crate::assembly::cuda_available;
use crate::{Device, ExperimentConfig, RunError, RunOptions, Until, bench_training};

/// Seconds on each device, and one whole iteration, after one that warms up.
const TRIED: f64 = 1.0;

/// The device that trains an experiment faster on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FasterDevice {
    /// The device.
    pub device: Device,
    /// The speeds that say so, or why there was no choice.
    pub why: String,
}

/// Trains the experiment on the processor and on the GPU and says which was faster; nothing of it is kept.
///
/// `trying` hears of each device before. Without a usable GPU it is the processor, at once, and also where
/// training on the GPU fails. Fails where it fails on the processor.
pub fn faster_device(
    config: &ExperimentConfig,
    options: &RunOptions,
    entries: &[EnvEntry],
    trying: &mut dyn FnMut(Device),
) -> Result<FasterDevice, RunError> {
    if let Err(why) = cuda_available() {
        return Ok(FasterDevice { device: Device::Cpu, why });
    }
    let mut speed = |device| {
        trying(device);
        let options = RunOptions { device, ..options.clone() };
        bench_training(config, Until::Seconds(TRIED), &options, entries).map(|result| result.tps)
    };
    let cpu = speed(Device::Cpu)?;
    Ok(faster(cpu, speed(Device::Cuda)))
}

/// The choice between so many steps per second on the processor and on the GPU, where it may fail.
fn faster(cpu: f64, cuda: Result<f64, RunError>) -> FasterDevice {
    match cuda {
        Ok(cuda) => {
            let device = if cuda > cpu { Device::Cuda } else { Device::Cpu };
            FasterDevice { device, why: format!("cpu {cpu:.0} steps/s, cuda {cuda:.0}") }
        }
        Err(error) => FasterDevice { device: Device::Cpu, why: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_faster_device_is_chosen_and_one_that_fails_is_not() {
        let cases = [
            (100.0, Ok(300.0), Device::Cuda, "cpu 100 steps/s, cuda 300"),
            (100.0, Ok(100.0), Device::Cpu, "cpu 100 steps/s, cuda 100"),
            (900.0, Ok(7.6), Device::Cpu, "cpu 900 steps/s, cuda 8"),
            (1.0, Err(RunError::Stopped("out of memory".into())), Device::Cpu, "out of memory"),
        ];
        for (cpu, cuda, device, why) in cases {
            assert_eq!(faster(cpu, cuda), FasterDevice { device, why: why.to_string() });
        }
    }
}
