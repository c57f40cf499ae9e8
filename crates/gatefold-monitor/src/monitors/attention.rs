//! Has attention smoothed all nodes over.

use super::view::{View, number, verdict};
use crate::{Severity, Verdict, names};

pub(crate) fn judge(view: &View, out: &mut Vec<Verdict>) {
    let layers = (0..).map_while(|layer| {
        let name = names::gat_layer(layer, "attention_variance");
        let smoothness = names::gat_layer(layer, "smoothness");
        (view.metrics.get(&name).is_some() || view.metrics.get(&smoothness).is_some()).then_some(layer)
    });
    out.extend(layers.filter_map(|layer| over_smoothing(view, layer)));
}

fn over_smoothing(view: &View, layer: usize) -> Option<Verdict> {
    let config = view.config;
    let name = names::gat_layer(layer, "smoothness");
    let value = view.median(&name, config.window)?;
    let early = view.history.early(&name)?;
    let fallen = value < config.smoothness_floor && value < config.smoothness_drop * early;
    if !fallen && value >= 0.1 * config.smoothness_floor {
        return None;
    }
    let reported =
        |what: &str| view.metrics.get(&names::gat_layer(layer, what)).map_or("unknown".into(), number);
    Some(verdict(
        "over-smoothing",
        Severity::Alarm,
        (&name, value),
        format!(
            "above {}, or above {} of the run's own start",
            config.smoothness_floor, config.smoothness_drop
        ),
        format!(
            "nodes after layer {layer} have a mean cosine distance of {} (median over {} iterations), {} at the start: they \
             are becoming one vector; attention entropy {}, attention variance {}",
            number(value),
            config.window,
            number(early),
            reported("attention_entropy"),
            reported("attention_variance")
        ),
        "use fewer policy.gat.layers, lower curriculum.lr_scale, or freeze the graph encoder (ladder rung freeze-gat)",
    ))
}
