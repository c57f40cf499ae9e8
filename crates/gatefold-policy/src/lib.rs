//! The composition: encoder, graph attention, router, experts and critic.
