//! AdamW for a module whose parameters are kept in a few tensors while they learn.

use std::collections::HashMap;

use burn::module::{AutodiffModule, ModuleVisitor, Param, ParamId};
use burn::tensor::{Tensor, backend::Backend, ops::FloatTensor};
use gatefold_ops::{OpsAutodiffBackend, OpsBackend, adamw_in_place, map_tasks, squared_norms_of_parts};

use crate::adamw::{AdamW, Step, bias_corrections, primitive, tensor};

/// The moments of parameters that lie one after the other in one tensor.
#[derive(Debug, Clone)]
struct Group<B: Backend> {
    /// Each parameter's place among the module's, and its size.
    members: Vec<usize>,
    sizes: Vec<usize>,
    first: FloatTensor<B>,
    second: FloatTensor<B>,
    steps: u64,
}

/// An optimizer's moments in the order of a few tensors.
///
/// Steps have the bits of [`AdamW::step`], and reports name the same parameters.
#[derive(Debug, Clone)]
pub struct FlatMoments<B: Backend> {
    groups: Vec<Group<B>>,
}

impl<B: OpsBackend> AdamW<B> {
    /// The moments of `module`'s parameters in `groups`, in the order of the ids in each.
    ///
    /// `None` if parameters of a group have taken different numbers of steps. Panics unless the groups
    /// are all parameters of the module.
    pub fn flat<'a, A, M>(
        &self,
        module: &M,
        groups: impl IntoIterator<Item = &'a [ParamId]>,
    ) -> Option<FlatMoments<B>>
    where
        A: OpsAutodiffBackend<InnerBackend = B>,
        M: AutodiffModule<A>,
    {
        struct Places(HashMap<ParamId, usize>);
        impl<A: OpsAutodiffBackend> ModuleVisitor<A> for Places {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<A, D>>) {
                self.0.insert(param.id, self.0.len());
            }
        }
        let mut places = Places(HashMap::new());
        module.visit(&mut places);
        let group = |ids: &[ParamId]| {
            let members: Vec<usize> = ids.iter().map(|id| places.0[id]).collect();
            let moments = || members.iter().map(|&at| &self.moments[at]);
            let steps = moments().next()?.steps;
            if moments().any(|m| m.steps != steps) {
                return None;
            }
            let cat = |each: Vec<Tensor<B, 1>>| primitive(Tensor::cat(each, 0));
            Some(Group {
                sizes: moments().map(|m| m.shape.iter().product()).collect(),
                first: cat(moments().map(|m| tensor::<B>(m.first.clone())).collect()),
                second: cat(moments().map(|m| tensor::<B>(m.second.clone())).collect()),
                steps,
                members,
            })
        };
        let groups: Vec<_> = groups.into_iter().map(group).collect::<Option<_>>()?;
        let covered: usize = groups.iter().map(|group| group.members.len()).sum();
        assert_eq!(covered, self.moments.len(), "groups of all parameters");
        Some(FlatMoments { groups })
    }

    /// Takes moments back that [`flat`](Self::flat) gave.
    pub fn set_flat(&mut self, moments: FlatMoments<B>) {
        for group in moments.groups {
            let (first, second) = (tensor::<B>(group.first), tensor::<B>(group.second));
            let mut from = 0;
            for (at, size) in group.members.into_iter().zip(group.sizes) {
                let part = |all: &Tensor<B, 1>| primitive(all.clone().narrow(0, from, size));
                let moments = &mut self.moments[at];
                (moments.first, moments.second) = (part(&first), part(&second));
                moments.steps = group.steps;
                from += size;
            }
        }
    }

    /// [`step`](Self::step) on the groups' tensors, down a gradient of each, which together took so many `flops`.
    pub fn step_flat<'a>(
        &self,
        moments: &mut FlatMoments<B>,
        parameters: impl IntoIterator<Item = &'a mut Tensor<B, 1>>,
        grads: impl IntoIterator<Item = FloatTensor<B>>,
        flops: usize,
        lr: f64,
        max_norm: f32,
    ) -> Step {
        let (parameters, grads): (Vec<_>, Vec<_>) =
            (parameters.into_iter().collect(), grads.into_iter().collect());
        let given = [parameters.len(), grads.len()];
        assert_eq!(given, [moments.groups.len(); 2], "parameters and gradients of each group");
        let mut squares = vec![0.0; self.moments.len()];
        for (grad, group) in grads.iter().zip(&moments.groups) {
            for (&at, square) in group.members.iter().zip(squared_norms_of_parts::<B>(grad, &group.sizes)) {
                squares[at] = square;
            }
        }
        let (done, numbers) = self.begin(&squares, |at| at, lr, max_norm);
        let Some(numbers) = numbers else { return done };
        // A short step, but where its gradient was found and its parameters will be read again, if the gradients were
        // shared out: between two cores they would take longer to pass. This thread begins with the last task. A
        // device sees one thread.
        let flops = if B::ON_HOST { flops } else { 0 };
        let tasks = parameters.into_iter().zip(&mut moments.groups).zip(grads).rev().collect();
        map_tasks(tasks, flops, |((parameters, group), grad)| {
            group.steps += 1;
            let mut numbers = numbers;
            bias_corrections(&mut numbers, group.steps);
            // An empty tensor takes its place, so that the step finds the only handle of the values.
            let mut all = primitive(std::mem::replace(parameters, Tensor::empty([0], &parameters.device())));
            adamw_in_place::<B>(&mut all, grad, [&mut group.first, &mut group.second], &numbers);
            *parameters = tensor::<B>(all);
        });
        done
    }
}
