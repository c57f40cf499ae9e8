//! Which two experts stay at the rung `fewer-experts`.

/// The indices, ascending, of the two experts to keep: `survival` and `general` where both exist, else
/// the two most used.
///
/// `usage` is each expert's mean gate over a recent window, 0 to 1. Of equally used experts the first
/// stays; a usage that is no number counts as none. Panics if lengths differ or there are fewer than
/// two experts.
pub fn experts_kept<S: AsRef<str>>(names: &[S], usage: &[f64]) -> [usize; 2] {
    assert_eq!(names.len(), usage.len(), "each expert has a name and a usage");
    assert!(names.len() >= 2, "two experts are kept of {}", names.len());
    let named = |name: &str| names.iter().position(|expert| expert.as_ref() == name);
    let mut kept = match (named("survival"), named("general")) {
        (Some(survival), Some(general)) => [survival, general],
        _ => {
            let used = |expert: usize| if usage[expert].is_nan() { 0.0 } else { usage[expert] };
            let mut by_usage: Vec<_> = (0..names.len()).collect();
            by_usage.sort_by(|&a, &b| used(b).total_cmp(&used(a))); // stable: ties keep their order
            [by_usage[0], by_usage[1]]
        }
    };
    kept.sort_unstable();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_pair_stays_or_else_the_most_used_one() {
        let four = ["survival", "combat", "exploration", "general"];
        let cases: [(&[&str], &[f64], [usize; 2]); 6] = [
            (&four, &[0.0, 0.6, 0.4, 0.0], [0, 3]),
            (&["general", "combat", "survival"], &[0.1, 0.8, 0.1], [0, 2]),
            (&["survival", "b", "c", "d"], &[0.1, 0.2, 0.3, 0.4], [2, 3]),
            (&["a", "b", "c", "d"], &[0.4, 0.1, 0.1, 0.4], [0, 3]),
            (&["a", "b", "c", "d"], &[0.25; 4], [0, 1]),
            (&["a", "b", "c"], &[f64::NAN, 0.5, 0.2], [1, 2]),
        ];
        for (names, usage, expected) in cases {
            assert_eq!(experts_kept(names, usage), expected, "{names:?} {usage:?}");
        }
    }
}
