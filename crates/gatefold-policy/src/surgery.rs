//! What the fallback ladder does to a policy: freeze the graph encoder, keep two experts, route anew.
//!
//! Surgery works on named tensors, so that it is the same on every device, for parameters and for the
//! optimizer's moments, and for a checkpoint that nobody trains.

use std::ops::Range;

use gatefold_optim::NamedTensor;
use serde::{Deserialize, Serialize};

use crate::{Architecture, PolicyConfig};

/// What has been taken from a policy. The default is the policy as configured.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Whether the graph encoder is held fixed.
    pub graph_frozen: bool,
    /// The configured experts that are left, by index, ascending; `None` for all.
    pub kept: Option<Vec<usize>>,
    /// Whether a fresh router reads the observation itself and `h_graph`.
    pub routes_anew: bool,
}

impl Shape {
    /// The settings of a policy of this shape.
    pub fn apply(&self, config: &PolicyConfig) -> PolicyConfig {
        let mut config = config.clone();
        if let Some(kept) = &self.kept {
            config.experts = kept.iter().map(|&k| config.experts[k].clone()).collect();
        }
        if self.routes_anew {
            config.architecture = Architecture::V2;
        }
        config
    }

    /// Whether it has the same experts and the same kind of router.
    pub fn has_parts_of(&self, other: &Self) -> bool {
        (&self.kept, self.routes_anew) == (&other.kept, other.routes_anew)
    }
}

/// A change of shape, as data: parameters or moments in, parameters or moments out.
///
/// Everything that both shapes have keeps its values. Experts that stay keep their weights and moments.
/// The router keeps what it learned about them: its last layer loses the columns of the others, so
/// that its gates sum to 1 over those left. Its moments start anew, and so does all of it when it is to
/// read something else.
#[derive(Debug, Clone, Copy)]
pub struct Transplant<'a> {
    /// The shape that `current` has.
    pub from: &'a Shape,
    /// The shape that `fresh` has.
    pub to: &'a Shape,
    /// Parameters or moments as they are.
    pub current: &'a [NamedTensor],
    /// Those of a newly made policy of the new shape.
    pub fresh: &'a [NamedTensor],
    /// Parameters that earlier changes removed: [`Transplant::parked`].
    pub parked: &'a [NamedTensor],
}

impl Transplant<'_> {
    /// What this change removes and a later one may want back: experts and router as they are. Nothing on
    /// the way back.
    pub fn parked(&self) -> Vec<NamedTensor> {
        let fewer = self.to.kept.is_some() && self.from.kept.is_none();
        let removes = fewer || self.to.routes_anew && !self.from.routes_anew;
        let part = |t: &&NamedTensor| is_expert(&t.path) || is_router(&t.path);
        if removes { self.current.iter().filter(part).cloned().collect() } else { Vec::new() }
    }

    /// The tensors of the new shape, in the order of `fresh`.
    ///
    /// Panics if the tensors do not have the shapes they are said to have.
    pub fn perform(&self) -> Vec<NamedTensor> {
        self.fresh.iter().map(|fresh| self.one(fresh)).collect()
    }

    fn one(&self, fresh: &NamedTensor) -> NamedTensor {
        let find = |all: &[NamedTensor]| all.iter().find(|t| t.path == fresh.path).cloned();
        let rerouted = self.to.routes_anew != self.from.routes_anew;
        let regrouped = self.to.kept != self.from.kept;
        let is_moment = fresh.path.contains('/');
        if is_router(&fresh.path) && (rerouted || regrouped) && (is_moment || rerouted) {
            let back = (rerouted && !self.to.routes_anew && !is_moment).then(|| find(self.parked)).flatten();
            let back = back.map(|t| match &self.to.kept {
                Some(kept) if t.shape != fresh.shape => narrowed(&t, t.shape.len() - 1, kept),
                _ => t,
            });
            return back.filter(|t| t.shape == fresh.shape).unwrap_or_else(|| fresh.clone());
        }
        if is_expert(&fresh.path) && is_moment && self.from.kept.is_some() && self.to.kept.is_none() {
            // The experts that come back have no moments, and one count of steps serves them all.
            return fresh.clone();
        }
        let Some(current) = find(self.current) else { return fresh.clone() };
        if current.shape == fresh.shape {
            return current;
        }
        let axis = if is_expert(&fresh.path) { 0 } else { fresh.shape.len() - 1 };
        match (&self.from.kept, &self.to.kept) {
            (None, Some(kept)) => narrowed(&current, axis, kept),
            (Some(kept), None) => {
                let mut whole = find(self.parked).filter(|t| t.shape == fresh.shape);
                let whole = whole.get_or_insert_with(|| fresh.clone());
                scatter(&current, axis, kept, whole);
                whole.clone()
            }
            _ => panic!("{}: {:?} does not become {:?}", fresh.path, current.shape, fresh.shape),
        }
    }
}

fn is_expert(path: &str) -> bool {
    path.starts_with("head.")
}

fn is_router(path: &str) -> bool {
    path.starts_with("router.")
}

/// Where entry `index` of `axis` lies in the `outer`th block of a row-major tensor.
fn places(shape: &[usize], axis: usize, index: usize) -> impl Iterator<Item = Range<usize>> {
    let inner: usize = shape[axis + 1..].iter().product();
    let (outer, step) = (shape[..axis].iter().product::<usize>(), shape[axis] * inner);
    (0..outer).map(move |o| o * step + index * inner..o * step + (index + 1) * inner)
}

/// The same with the entries `kept` of `axis`, in order.
fn narrowed(from: &NamedTensor, axis: usize, kept: &[usize]) -> NamedTensor {
    let outer: usize = from.shape[..axis].iter().product();
    let mut data = Vec::with_capacity(from.data.len() / from.shape[axis] * kept.len());
    for o in 0..outer {
        for &k in kept {
            let place = places(&from.shape, axis, k).nth(o).expect("one place for each block");
            data.extend_from_slice(&from.data[place]);
        }
    }
    let mut shape = from.shape.clone();
    shape[axis] = kept.len();
    NamedTensor { path: from.path.clone(), shape, data }
}

/// Writes entry i of `from`'s axis to entry `kept[i]` of `whole`'s.
fn scatter(from: &NamedTensor, axis: usize, kept: &[usize], whole: &mut NamedTensor) {
    for (i, &k) in kept.iter().enumerate() {
        let targets: Vec<_> = places(&whole.shape, axis, k).collect();
        for (source, target) in places(&from.shape, axis, i).zip(targets) {
            whole.data[target].copy_from_slice(&from.data[source]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(path: &str, shape: &[usize], start: usize) -> NamedTensor {
        let count: usize = shape.iter().product();
        let data = (start..start + count).map(|x| x as f32).collect();
        NamedTensor { path: path.to_string(), shape: shape.to_vec(), data }
    }

    fn kept(experts: &[usize]) -> Shape {
        Shape { kept: Some(experts.to_vec()), ..Shape::default() }
    }

    /// Three experts of 2 inputs and 1 output, a router of 2 inputs, something else, and moments.
    fn full(start: usize) -> Vec<NamedTensor> {
        vec![
            named("head.weight", &[3, 2, 1], start),
            named("router.last.weight", &[2, 3], start),
            named("router.hidden.0", &[2], start),
            named("value.weight", &[2], start),
            named("head.weight/first", &[3, 2, 1], start),
            named("router.hidden.0/first", &[2], start),
        ]
    }

    fn narrow(start: usize) -> Vec<NamedTensor> {
        let mut all = full(start);
        all[0] = named("head.weight", &[2, 2, 1], start);
        all[1] = named("router.last.weight", &[2, 2], start);
        all[4] = named("head.weight/first", &[2, 2, 1], start);
        all
    }

    #[test]
    fn experts_that_stay_keep_their_weights_and_the_router_its_columns() {
        let (from, to) = (Shape::default(), kept(&[0, 2]));
        let (current, fresh) = (full(0), narrow(100));
        let change = Transplant { from: &from, to: &to, current: &current, fresh: &fresh, parked: &[] };
        let data: Vec<Vec<f32>> = change.perform().into_iter().map(|t| t.data).collect();
        assert_eq!(data[0], [0.0, 1.0, 4.0, 5.0], "experts 0 and 2");
        assert_eq!(data[1], [0.0, 2.0, 3.0, 5.0], "columns 0 and 2 of both rows");
        assert_eq!(data[2], [0.0, 1.0], "the router's hidden layer stays");
        assert_eq!(data[3], [0.0, 1.0], "what is not concerned stays");
        assert_eq!(data[4], [0.0, 1.0, 4.0, 5.0], "so do the moments of the experts that stay");
        assert_eq!(data[5], [100.0, 101.0], "the router's moments start anew");

        let parked = change.parked();
        let narrowed = change.perform();
        let back = Transplant { from: &to, to: &from, current: &narrowed, fresh: &current, parked: &parked };
        let whole = back.perform();
        assert_eq!(whole[0].data, current[0].data, "the removed expert is back");
        assert_eq!(whole[1].data, current[1].data, "with its column of the router");
    }

    #[test]
    fn a_router_taken_with_its_experts_comes_back_for_those_that_are_left() {
        let (from, to) = (Shape { routes_anew: true, ..kept(&[0, 2]) }, kept(&[0, 2]));
        let (parked, mut current, fresh) = (full(0), narrow(200), narrow(100));
        current[2] = named("router.hidden.0", &[5], 200);
        let change = Transplant { from: &from, to: &to, current: &current, fresh: &fresh, parked: &parked };
        let changed = change.perform();
        assert_eq!(changed[1].data, [0.0, 2.0, 3.0, 5.0], "its columns of experts 0 and 2");
        assert_eq!(changed[2].data, parked[2].data);
        assert_eq!(changed[0].data, current[0].data, "the experts stay");
        assert!(change.parked().is_empty(), "nothing is taken on the way back");
    }

    #[test]
    fn a_router_that_is_to_read_something_else_starts_anew_and_comes_back_as_it_was() {
        let (from, to) = (Shape::default(), Shape { routes_anew: true, ..Shape::default() });
        let (current, mut fresh) = (full(0), full(100));
        fresh[2] = named("router.hidden.0", &[5], 100);
        let change = Transplant { from: &from, to: &to, current: &current, fresh: &fresh, parked: &[] };
        let changed = change.perform();
        assert_eq!(changed[0].data, current[0].data, "the experts stay");
        assert_eq!((&changed[1].data, &changed[2].data), (&fresh[1].data, &fresh[2].data));

        let parked = change.parked();
        let back = Transplant { from: &to, to: &from, current: &changed, fresh: &current, parked: &parked };
        assert_eq!(back.perform()[2].data, current[2].data);
    }
}
