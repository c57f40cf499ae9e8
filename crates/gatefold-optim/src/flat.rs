//! AdamW for a module whose parameters are kept in a few tensors while they learn.

use std::collections::HashMap;

use burn::module::{AutodiffModule, ModuleVisitor, Param, ParamId};
use burn::tensor::{Tensor, backend::Backend, ops::FloatTensor};
use gatefold_ops::{AdamwStep, FlatGradient, OpsAutodiffBackend, OpsBackend, PendingStep};

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
    /// The gradient and the numbers of the last step, if the parameters are still to take it.
    due: Option<(FloatTensor<B>, AdamwStep)>,
}

/// An optimizer's moments in the order of a few tensors.
///
/// Steps have the bits of [`AdamW::step`], and reports name the same parameters.
#[derive(Debug, Clone)]
pub struct FlatMoments<B: Backend> {
    groups: Vec<Group<B>>,
}

impl<B: OpsBackend> FlatMoments<B> {
    /// The step that each group's parameters are still to take, if one is due.
    pub fn take_due(&mut self) -> impl Iterator<Item = Option<PendingStep<'_, B>>> {
        self.groups.iter_mut().map(|group| {
            let (gradient, numbers) = group.due.take()?;
            Some(PendingStep { gradient, moments: [&mut group.first, &mut group.second], numbers })
        })
    }
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
                due: None,
            })
        };
        let groups: Vec<_> = groups.into_iter().map(group).collect::<Option<_>>()?;
        let covered: usize = groups.iter().map(|group| group.members.len()).sum();
        assert_eq!(covered, self.moments.len(), "groups of all parameters");
        Some(FlatMoments { groups })
    }

    /// Takes moments back that [`flat`](Self::flat) gave. Panics if a step is due.
    pub fn set_flat(&mut self, moments: FlatMoments<B>) {
        for group in moments.groups {
            assert!(group.due.is_none(), "parameters have taken all steps");
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

    /// Begins a [`step`](Self::step) down a gradient of each group, whose parts are the group's parameters. It is due
    /// then: a short step, but between two cores parameters take long to pass, so they take it where they are
    /// read again. Panics if there are not as many of all, or a step is due.
    pub fn step_flat(
        &self,
        moments: &mut FlatMoments<B>,
        grads: impl IntoIterator<Item = FlatGradient<B>>,
        lr: f64,
        max_norm: f32,
    ) -> Step {
        let mut squares = vec![0.0; self.moments.len()];
        let mut given = 0;
        let grads: Vec<_> = grads.into_iter().zip(&mut moments.groups).collect();
        for (grad, group) in &grads {
            assert!(group.due.is_none(), "parameters have taken the last step");
            let (parts, members) = (grad.squares.len(), group.members.len());
            assert_eq!(parts, members, "parts of a gradient and parameters of its group");
            given += members;
            for (&at, &square) in group.members.iter().zip(&grad.squares) {
                squares[at] = square;
            }
        }
        assert_eq!(given, squares.len(), "parameters and gradients of each group");
        let (done, numbers) = self.begin(&squares, |at| at, lr, max_norm);
        let Some(numbers) = numbers else { return done };
        for (grad, group) in grads {
            group.steps += 1;
            let mut numbers = numbers;
            bias_corrections(&mut numbers, group.steps);
            group.due = Some((grad.values, numbers));
        }
        done
    }
}
