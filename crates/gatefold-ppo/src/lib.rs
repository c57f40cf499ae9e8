//! Proximal policy optimisation: rollout, buffer, GAE, losses, update.
