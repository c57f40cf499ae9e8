//! AdamW for a module whose parameters are kept in a few tensors while they learn.

use std::collections::HashMap;

use burn::module::{AutodiffModule, ModuleVisitor, Param, ParamId};
use burn::tensor::{Tensor, backend::Backend, ops::FloatTensor};
use gatefold_ops::{FlatGradient, OpsAutodiffBackend, OpsBackend, adamw_in_place, map_tasks};

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
    ///
    /// The parts of a gradient are the parameters of its group. Panics if there are not as many of all.
    pub fn step_flat<'a>(
        &self,
        moments: &mut FlatMoments<B>,
        parameters: impl IntoIterator<Item = &'a mut FloatTensor<B>>,
        grads: impl IntoIterator<Item = FlatGradient<B>>,
        flops: usize,
        lr: f64,
        max_norm: f32,
    ) -> Step
    where
        FloatTensor<B>: 'a,
    {
        let tasks = parameters.into_iter().zip(&mut moments.groups).zip(grads);
        let tasks: Vec<_> = tasks.map(|((parameters, group), grad)| (parameters, group, grad)).collect();
        let mut squares = vec![0.0; self.moments.len()];
        let mut given = 0;
        for (_, group, grad) in &tasks {
            assert_eq!(
                grad.squares.len(),
                group.members.len(),
                "parts of a gradient and parameters of its group"
            );
            given += group.members.len();
            for (&at, &square) in group.members.iter().zip(&grad.squares) {
                squares[at] = square;
            }
        }
        assert_eq!(given, squares.len(), "parameters and gradients of each group");
        let (done, numbers) = self.begin(&squares, |at| at, lr, max_norm);
        let Some(numbers) = numbers else { return done };
        // A short step, but where its gradient was found and its parameters will be read again, if the gradients were
        // shared out: between two cores they would take longer to pass. This thread begins with the last task. A
        // device sees one thread.
        let flops = if B::ON_HOST { flops } else { 0 };
        map_tasks(tasks.into_iter().rev().collect(), flops, |(parameters, group, grad)| {
            group.steps += 1;
            let mut numbers = numbers;
            bias_corrections(&mut numbers, group.steps);
            adamw_in_place::<B>(parameters, grad.values, [&mut group.first, &mut group.second], &numbers);
        });
        done
    }
}
