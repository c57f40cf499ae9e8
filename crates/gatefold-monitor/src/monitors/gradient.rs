//! Are gradients of a size that updates can bear.

use super::view::{View, above, number, verdict};
use crate::{Severity, Verdict, names};

pub(crate) fn judge(view: &View, out: &mut Vec<Verdict>) {
    out.extend(norm(view));
    out.extend(single_tensor(view));
    out.extend(clipped(view));
}

/// `; without reward scaling it is measured in units of the return scale, 98`
fn unit_note(unit: f64) -> String {
    if unit == 1.0 {
        return String::new();
    }
    format!("; without reward scaling the bounds are in units of the return scale, {}", number(unit))
}

fn norm(view: &View) -> Option<Verdict> {
    let (config, unit) = (view.config, view.gradient_unit());
    let value = view.median(names::TRAIN_GRAD_NORM, config.short_window)?;
    let severity = above(value, config.grad_norm_warning * unit, config.grad_norm_alarm * unit)?;
    Some(verdict(
        "gradient-norm",
        severity,
        (names::TRAIN_GRAD_NORM, value),
        format!(
            "below {}; above {} training is unstable",
            number(config.grad_norm_warning * unit),
            number(config.grad_norm_alarm * unit)
        ),
        format!(
            "gradient norm before clipping {} (median over {} iterations{})",
            number(value),
            config.short_window,
            unit_note(unit)
        ),
        "lower curriculum.lr_scale, lengthen curriculum.lr_warmup_steps, or scale rewards (reward.scaling = \"returns\")",
    ))
}

fn single_tensor(view: &View) -> Option<Verdict> {
    let (config, unit) = (view.config, view.gradient_unit());
    let window = config.short_window;
    let value = view.median(names::TRAIN_GRAD_NORM_MAX_TENSOR, window)?;
    let name = view.at.largest_tensor.unwrap_or("a tensor that the run did not name");
    (value > config.tensor_norm_alarm * unit).then(|| {
        verdict(
            "tensor-gradient",
            Severity::Alarm,
            (names::TRAIN_GRAD_NORM_MAX_TENSOR, value),
            format!("below {} for every tensor", number(config.tensor_norm_alarm * unit)),
            format!(
                "the gradient of `{name}` has a norm of {} (median over {window} iterations{})",
                number(value),
                unit_note(unit)
            ),
            "lower curriculum.lr_scale or ppo.max_grad_norm; if it is the critic's, lower ppo.value_coef or scale rewards \
             (reward.scaling = \"returns\")",
        )
    })
}

fn clipped(view: &View) -> Option<Verdict> {
    let config = view.config;
    let value = view.median(names::TRAIN_GRAD_CLIPPED_FRACTION, config.window)?;
    // Gradients of raw returns are large by their unit, and clipping them is how such presets work.
    (value > config.clipped_fraction && view.gradient_unit() == 1.0).then(|| {
        verdict(
            "clipped-gradients",
            Severity::Info,
            (names::TRAIN_GRAD_CLIPPED_FRACTION, value),
            format!("below {}", config.clipped_fraction),
            format!(
                "{:.0}% of the optimizer steps were clipped (median over {} iterations): the bound sets their size",
                100.0 * value,
                config.window
            ),
            "nothing by itself; raise ppo.max_grad_norm or scale rewards if the gradient norm is meant to count",
        )
    })
}
