//! Settings of the graph encoder.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a layer scores its edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Attention {
    /// `LeakyReLU(a_s . W h_j + a_d . W h_i + r_rel)`: every node ranks its neighbours alike
    /// (Velickovic et al. 2018).
    Gat,
    /// `a . LeakyReLU(W_s h_j + W_d h_i) + r_rel`: the ranking depends on who asks (Brody et al. 2022).
    /// Twice the projection of `gat`.
    Gatv2,
}

/// How the heads of one attention layer are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Heads {
    /// Heads of width hidden / heads, side by side.
    Concatenate,
    /// Heads of full width, averaged.
    Average,
}

/// What the attention scores of one layer are divided by before the softmax.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AttentionTemperature {
    /// 1 in every head.
    Fixed,
    /// A learned number above 0 for each layer and head, 1 at first.
    Learned,
}

/// Settings of the graph encoder.
///
/// A dropout acts in updates alone, on draws that are passed in; see [`warnings`](Self::warnings).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GatConfig {
    /// Width of the node vectors, in units. Must be a multiple of `heads` when heads are concatenated.
    #[schemars(range(min = 1, max = 4096))]
    pub hidden: usize,
    /// Depth of the encoder, in attention layers.
    #[schemars(range(min = 1, max = 16))]
    pub layers: usize,
    /// Width of attention in each layer, in heads.
    #[schemars(range(min = 1, max = 64))]
    pub heads: usize,
    /// How edges are scored: `gat`, by a sum over both ends, or `gatv2`, by both ends together, with a
    /// projection of its own for each.
    pub attention: Attention,
    /// How the heads are put together.
    pub combine: Heads,
    /// Probability that an update ignores an attention weight, drawn for each row, edge and head; the
    /// others grow by 1 / (1 - p). Range [0, 0.9], default 0. Takes a slower path than the fused kernel.
    #[schemars(range(min = 0.0, max = 0.9))]
    pub attention_dropout: f32,
    /// Probability that an update zeroes a number of a node vector on its way into a layer's
    /// projection; the others grow by 1 / (1 - p). The residual keeps it. Range [0, 0.9], default 0.
    #[schemars(range(min = 0.0, max = 0.9))]
    pub feature_dropout: f32,
    /// Probability that an update leaves out an edge, drawn for each row and layer; attention is spread
    /// over the edges that are left. Self loops stay. Range [0, 0.9], default 0. Takes the slower path.
    #[schemars(range(min = 0.0, max = 0.9))]
    pub edge_dropout: f32,
    /// What attention scores are divided by before the softmax: 1, or a learned number per layer and head.
    pub attention_temperature: AttentionTemperature,
    /// Longest node vector (L2 norm, dimensionless) that a layer hands on; longer ones are scaled to this
    /// length. At least 0; 0 switches it off, the default.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub node_norm_clip: f32,
}

/// Largest probability of a dropout.
const MOST_DROPPED: f32 = 0.9;

/// Largest limit of the node vectors' norm.
const LONGEST_NODE: f32 = 1e6;

impl Default for GatConfig {
    fn default() -> Self {
        Self {
            hidden: 64,
            layers: 2,
            heads: 4,
            attention: Attention::Gat,
            combine: Heads::Concatenate,
            attention_dropout: 0.0,
            feature_dropout: 0.0,
            edge_dropout: 0.0,
            attention_temperature: AttentionTemperature::Fixed,
            node_norm_clip: 0.0,
        }
    }
}

impl GatConfig {
    /// What is wrong with these settings, as `key = value: what would be accepted`.
    pub fn validate(&self) -> Result<(), String> {
        if self.combine == Heads::Concatenate && !self.hidden.is_multiple_of(self.heads) {
            return Err(format!(
                "hidden = {}: must be a multiple of heads = {} when heads are concatenated",
                self.hidden, self.heads
            ));
        }
        for (key, p) in self.dropouts() {
            if !(0.0..=MOST_DROPPED).contains(&p) {
                return Err(format!("{key} = {p}: must be a probability from 0 to {MOST_DROPPED}"));
            }
        }
        if !(0.0..=LONGEST_NODE).contains(&self.node_norm_clip) {
            return Err(format!(
                "node_norm_clip = {}: must be a length from 0 (off) to {LONGEST_NODE}",
                self.node_norm_clip
            ));
        }
        Ok(())
    }

    /// What is allowed and yet worth knowing before a run, as `key = value: what follows from it`.
    pub fn warnings(&self) -> Vec<String> {
        let on = self.dropouts().into_iter().filter(|&(_, p)| p > 0.0);
        on.map(|(key, p)| {
            format!(
                "{key} = {p}: an update then evaluates another function than the rollout did, so the \
                 probability ratio is not 1 at the first minibatch, and the clip range and target_kl act on \
                 the dropout's noise too"
            )
        })
        .collect()
    }

    /// Whether an update needs draws.
    pub(crate) fn drops(&self) -> bool {
        self.dropouts().iter().any(|&(_, p)| p > 0.0)
    }

    fn dropouts(&self) -> [(&'static str, f32); 3] {
        [
            ("attention_dropout", self.attention_dropout),
            ("feature_dropout", self.feature_dropout),
            ("edge_dropout", self.edge_dropout),
        ]
    }

    /// Width of one head.
    pub(crate) fn head_width(&self) -> usize {
        match self.combine {
            Heads::Concatenate => self.hidden / self.heads,
            Heads::Average => self.hidden,
        }
    }

    /// Width of a projected row.
    pub(crate) fn projected_width(&self) -> usize {
        let width = self.heads * self.head_width();
        match self.attention {
            Attention::Gat => width,
            Attention::Gatv2 => 2 * width,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_drop_nothing_and_warn_of_nothing() {
        let config = GatConfig::default();
        assert_eq!(config.validate(), Ok(()));
        assert!(!config.drops());
        assert_eq!(config.warnings(), Vec::<String>::new());
    }

    #[test]
    fn a_value_out_of_range_is_named_with_what_would_be_accepted() {
        type Case = (fn(&mut GatConfig), &'static str);
        let cases: [Case; 7] = [
            (|c| c.heads = 5, "hidden = 64: must be a multiple of heads = 5"),
            (|c| c.attention_dropout = 0.95, "attention_dropout = 0.95: must be a probability from 0 to 0.9"),
            (|c| c.feature_dropout = -0.1, "feature_dropout = -0.1"),
            (|c| c.edge_dropout = f32::NAN, "edge_dropout = NaN"),
            (|c| c.node_norm_clip = -1.0, "node_norm_clip = -1: must be a length from 0 (off)"),
            (|c| c.node_norm_clip = f32::NAN, "node_norm_clip = NaN"),
            (|c| c.node_norm_clip = f32::INFINITY, "node_norm_clip = inf"),
        ];
        for (spoil, expected) in cases {
            let mut config = GatConfig::default();
            spoil(&mut config);
            let error = config.validate().expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
        let most = GatConfig { attention_dropout: 0.9, edge_dropout: 0.9, ..GatConfig::default() };
        assert_eq!(most.validate(), Ok(()));
    }

    #[test]
    fn every_dropout_warns_that_the_ratio_is_not_one() {
        let config = GatConfig { attention_dropout: 0.1, edge_dropout: 0.25, ..GatConfig::default() };
        let warnings = config.warnings();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].starts_with("attention_dropout = 0.1: "), "{warnings:?}");
        assert!(warnings[1].starts_with("edge_dropout = 0.25: "), "{warnings:?}");
        assert!(warnings.iter().all(|warning| warning.contains("ratio is not 1")), "{warnings:?}");
    }
}
