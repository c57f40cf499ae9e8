//! The GPU path: every operation is its composition.

#![allow(unsafe_code)]

use burn::backend::{Autodiff, autodiff::checkpoint::strategy::CheckpointStrategy};
use burn_cuda::Cuda;

use crate::{OpsAutodiffBackend, OpsBackend};

impl OpsBackend for Cuda {}
impl<C: CheckpointStrategy> OpsBackend for Autodiff<Cuda, C> {}
impl<C: CheckpointStrategy> OpsAutodiffBackend for Autodiff<Cuda, C> {}

/// Whether a CUDA driver and a device can be found; the error says in one sentence what is missing.
///
/// Opens the driver library at run time; nothing is linked.
pub fn available() -> Result<(), String> {
    const NAMES: [&str; 2] = ["libcuda.so.1", "libcuda.so"];
    // SAFETY: loading the driver runs its initialisers, which it is made for; the symbols below
    // have the signatures of the CUDA driver API.
    unsafe {
        let library = NAMES
            .iter()
            .find_map(|name| libloading::Library::new(*name).ok())
            .ok_or("no CUDA driver: libcuda.so.1 was not found")?;
        let init: libloading::Symbol<'_, unsafe extern "C" fn(u32) -> i32> =
            library.get(b"cuInit\0").map_err(|e| format!("no usable CUDA driver: {e}"))?;
        let status = init(0);
        const NO_DEVICE: i32 = 100;
        if status == NO_DEVICE {
            return Err("the CUDA driver found no device".to_string());
        }
        if status != 0 {
            return Err(format!("the CUDA driver did not start: cuInit returned {status}"));
        }
        let count_devices: libloading::Symbol<'_, unsafe extern "C" fn(*mut i32) -> i32> =
            library.get(b"cuDeviceGetCount\0").map_err(|e| format!("no usable CUDA driver: {e}"))?;
        let mut count = 0;
        let status = count_devices(&mut count);
        // The backend opens the driver again; closing it here could unload a running one.
        std::mem::forget(library);
        match (status, count) {
            (0, 1..) => Ok(()),
            (0, _) => Err("the CUDA driver found no device".to_string()),
            (status, _) => Err(format!("the CUDA driver cannot count its devices: error {status}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_driver_is_told_so_in_one_sentence() {
        let has_device = std::path::Path::new("/dev/nvidiactl").exists();
        match available() {
            Ok(()) => assert!(has_device),
            Err(why) => assert!(why.contains("CUDA driver") && !why.contains('\n'), "{why}"),
        }
    }
}
