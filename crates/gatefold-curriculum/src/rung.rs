//! The rungs of the fallback ladder, and which of them change a given policy.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much of the method is still in play. Ordered downwards: a later rung keeps the effects of the
/// earlier ones and overrides only routing where they differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rung {
    /// Everything as configured.
    Full,
    /// The graph encoder no longer learns.
    FreezeGat,
    /// Softmax routing whatever the curriculum says.
    SoftmaxOnly,
    /// Two experts are left, with their weights.
    FewerExperts,
    /// A fresh router that picks one expert by Gumbel noise.
    V2Routing,
}

impl Rung {
    /// All rungs from the top down.
    pub const ALL: [Self; 5] =
        [Self::Full, Self::FreezeGat, Self::SoftmaxOnly, Self::FewerExperts, Self::V2Routing];

    /// 0 at the top to 4 at the bottom: the value of the metric `ladder/rung`.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The rung below, if any.
    pub fn next(self) -> Option<Self> {
        Self::ALL.get(self.index() + 1).copied()
    }

    /// The rung above, if any.
    pub fn previous(self) -> Option<Self> {
        self.index().checked_sub(1).map(|index| Self::ALL[index])
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Full => "full",
            Self::FreezeGat => "freeze-gat",
            Self::SoftmaxOnly => "softmax-only",
            Self::FewerExperts => "fewer-experts",
            Self::V2Routing => "v2-routing",
        })
    }
}

/// What a policy has at rung `full`, as far as rungs can take it away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applicable {
    /// Whether it encodes a graph.
    pub graph: bool,
    /// Whether it has a router whose logits decide ([`Routing::learns`](crate::Routing::learns)).
    pub router: bool,
    /// How many experts it has.
    pub num_experts: usize,
}

impl Applicable {
    /// Whether `rung` adds an effect to those above it. `full` always counts.
    ///
    /// Without a router no other rung does, not even freezing the graph encoder: such policies are the
    /// baselines and controls of studies, and a control stays what it is.
    pub fn has(&self, rung: Rung) -> bool {
        match rung {
            Rung::Full => true,
            Rung::FreezeGat => self.router && self.graph,
            Rung::SoftmaxOnly | Rung::V2Routing => self.router && self.num_experts >= 2,
            Rung::FewerExperts => self.router && self.num_experts >= 3,
        }
    }

    /// The nearest rung below `rung` that adds an effect.
    pub fn below(&self, rung: Rung) -> Option<Rung> {
        std::iter::successors(rung.next(), |rung| rung.next()).find(|&rung| self.has(rung))
    }

    /// The nearest rung above `rung` that this policy can be at.
    pub fn above(&self, rung: Rung) -> Option<Rung> {
        std::iter::successors(rung.previous(), |rung| rung.previous()).find(|&rung| self.has(rung))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rungs_are_ordered_downwards_and_print_their_names() {
        assert!(Rung::ALL.is_sorted());
        for (index, rung) in Rung::ALL.into_iter().enumerate() {
            assert_eq!(rung.index(), index);
            assert_eq!(rung.next(), Rung::ALL.get(index + 1).copied());
            assert_eq!(rung.next().and_then(Rung::previous), rung.next().map(|_| rung));
            assert_eq!(serde_json::to_value(rung).unwrap(), rung.to_string(), "serde differs");
        }
        assert_eq!((Rung::Full.previous(), Rung::V2Routing.next()), (None, None));
    }

    #[test]
    fn rungs_that_change_nothing_are_passed_over() {
        use Rung::{FewerExperts, FreezeGat, Full, SoftmaxOnly, V2Routing};
        let cases: [(bool, bool, usize, &[Rung]); 6] = [
            (true, true, 4, &[Full, FreezeGat, SoftmaxOnly, FewerExperts, V2Routing]),
            (false, true, 4, &[Full, SoftmaxOnly, FewerExperts, V2Routing]),
            (true, true, 2, &[Full, FreezeGat, SoftmaxOnly, V2Routing]),
            (true, true, 1, &[Full, FreezeGat]),
            (true, false, 4, &[Full]),
            (false, false, 1, &[Full]),
        ];
        for (graph, router, num_experts, expected) in cases {
            let applicable = Applicable { graph, router, num_experts };
            let down: Vec<_> = std::iter::successors(Some(Full), |&rung| applicable.below(rung)).collect();
            assert_eq!(down, expected, "{applicable:?}");
            let last = *expected.last().unwrap();
            let mut up: Vec<_> = std::iter::successors(Some(last), |&rung| applicable.above(rung)).collect();
            up.reverse();
            assert_eq!(up, expected, "{applicable:?}");
        }
    }
}
