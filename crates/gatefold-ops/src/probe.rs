//! Named places where a test may put a fault into a running experiment.
//!
//! Built without the feature `chaos` these functions give back what they are given and compile to
//! nothing. With it, an installed `Probe` may change values on their way: a NaN in one activation, a
//! gradient ten thousand times too large, an expert that is never chosen. Sites are named like metrics,
//! `group/what`; those of parameters end in the parameter's path.

#[cfg(feature = "chaos")]
pub use installed::{Probe, install, wants};

#[cfg(feature = "chaos")]
mod installed {
    use std::sync::{Arc, PoisonError, RwLock};

    /// Changes values at named sites.
    pub trait Probe: Send + Sync {
        /// Told at the start of every iteration, whose rollout comes first.
        fn begin(&self, iteration: u64);

        /// Told when the iteration's update begins.
        fn begin_update(&self);

        /// Whether this site is to be changed now; asked each time the site is passed.
        fn wants(&self, site: &str) -> bool;

        /// Changes the values, row-major, of a tensor or buffer whose last dimension is `width`.
        fn change(&self, site: &str, values: &mut [f32], width: usize);

        /// What it does, in words.
        fn about(&self) -> String {
            "a probe".to_string()
        }
    }

    static INSTALLED: RwLock<Option<Arc<dyn Probe>>> = RwLock::new(None);

    /// Installs a probe for the whole process, or removes it.
    pub fn install(probe: Option<Arc<dyn Probe>>) {
        *INSTALLED.write().unwrap_or_else(PoisonError::into_inner) = probe;
    }

    pub(super) fn current() -> Option<Arc<dyn Probe>> {
        INSTALLED.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the installed probe wants to change this site now.
    pub fn wants(site: &str) -> bool {
        current().is_some_and(|probe| probe.wants(site))
    }
}

use burn::tensor::{Tensor, backend::Backend};

/// Whether a probe is installed, so that values have to pass their sites one by one.
#[inline(always)]
pub fn is_installed() -> bool {
    #[cfg(feature = "chaos")]
    return installed::current().is_some();
    #[cfg(not(feature = "chaos"))]
    false
}

/// Tells an installed probe which iteration begins.
#[inline(always)]
pub fn begin(iteration: u64) {
    #[cfg(feature = "chaos")]
    if let Some(probe) = installed::current() {
        probe.begin(iteration);
    }
    let _ = iteration;
}

/// Tells an installed probe that the iteration's update begins.
#[inline(always)]
pub fn begin_update() {
    #[cfg(feature = "chaos")]
    if let Some(probe) = installed::current() {
        probe.begin_update();
    }
}

/// What an installed probe does, in words.
#[inline(always)]
pub fn about() -> Option<String> {
    #[cfg(feature = "chaos")]
    return installed::current().map(|probe| probe.about());
    #[cfg(not(feature = "chaos"))]
    None
}

/// A tensor as it passes the site.
///
/// A change is added without a gradient of its own, so the graph behind the tensor stays whole.
#[inline(always)]
pub fn tensor<B: Backend, const D: usize>(site: &str, x: Tensor<B, D>) -> Tensor<B, D> {
    #[cfg(feature = "chaos")]
    if let Some(probe) = installed::current().filter(|probe| probe.wants(site)) {
        let shape = x.dims();
        let before = x.to_data().convert::<f32>().to_vec::<f32>().expect("converted to f32");
        let mut after = before.clone();
        probe.change(site, &mut after, shape[D - 1]);
        let change: Vec<f32> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
        let data = burn::tensor::TensorData::new(change, shape);
        return x.clone() + Tensor::from_data(data, &x.device());
    }
    let _ = site;
    x
}

/// A host buffer, whose rows are `width` long, as it passes the site.
#[inline(always)]
pub fn slice(site: &str, values: &mut [f32], width: usize) {
    #[cfg(feature = "chaos")]
    if let Some(probe) = installed::current().filter(|probe| probe.wants(site)) {
        probe.change(site, values, width);
    }
    let _ = (site, values, width);
}
