//! What autodiff will find a gradient of, put together beforehand.

use burn::tensor::ops::FloatTensor;

use crate::OpsAutodiffBackend;

/// Puts tensors, such as the parameters of a policy, into one of autodiff's graphs; no number changes.
///
/// To Burn every leaf is a graph of its own at first. The operations that use leaves merge their graphs one by one,
/// in an order of random hash keys, and it may be the large one that is copied into the small one. Leaves that were
/// put together leave nothing to merge. Does nothing where the backend keeps its graphs in another way.
pub fn in_one_graph<B: OpsAutodiffBackend>(tensors: &[FloatTensor<B>]) {
    B::in_one_graph(tensors);
}
