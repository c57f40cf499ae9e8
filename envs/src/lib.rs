//! Environments that ship with Gatefold: one file each, one row each in [`TABLE`].
//!
//! To add one, write its file, name it here, and run `conformance::check` in its test.

pub mod bandit;
pub mod cartpole;
pub mod corridor;
pub mod delve;
pub mod identity;
pub mod lore;
mod number;
mod small_angle;

#[cfg(test)]
mod mean_return;

use gatefold_env::EnvEntry;

/// Every environment of this package, in alphabetical order.
pub const TABLE: &[EnvEntry] =
    &[bandit::ENTRY, cartpole::ENTRY, corridor::ENTRY, delve::ENTRY, identity::ENTRY, lore::ENTRY];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_names_every_environment_once() {
        let names: Vec<_> = TABLE.iter().map(|entry| entry.name).collect();
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
    }
}
