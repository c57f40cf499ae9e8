//! Auxiliary losses against PyTorch: through the routing that they act on, on graphs and over time.

use std::collections::HashMap;

use burn::tensor::{Bool, Tensor, TensorData};
use gatefold_curriculum::Routing;
use gatefold_ppo::losses::{self, ExpertCosines, ExpertOperators, SegmentRow};
use gatefold_router::{Gates, route};
use gatefold_tests::fixture::{Matrix, cases, flat, matrix};
use gatefold_tests::tolerance::{assert_near, assert_norm, relative_error, values};
use gatefold_tests::trainee::Train;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Case {
    Router(RouterCase),
    Graph(GraphCase),
}

#[derive(Deserialize)]
struct RouterCase {
    name: String,
    routing: Routing,
    temperature: f32,
    z: Matrix,
    gates: Matrix,
    expert_logits: Vec<Matrix>,
    mask: Vec<Vec<bool>>,
    target: Matrix,
    rows: Vec<(usize, bool)>,
    losses: HashMap<String, Expected>,
}

#[derive(Deserialize)]
struct GraphCase {
    name: String,
    temperature: f32,
    z: Matrix,
    scores: Matrix,
    experts: Vec<i32>,
    target_temperature: f32,
    target: Matrix,
    h: Matrix,
    operator_logits: Matrix,
    activations: Matrix,
    offsets: Vec<u32>,
    attention: Vec<Matrix>,
    rows: Vec<(usize, bool)>,
    huber: f32,
    losses: HashMap<String, Expected>,
}

#[derive(Deserialize)]
struct Expected {
    value: f64,
    /// `grad_INPUT`, nested as deep as the input.
    #[serde(flatten)]
    gradients: HashMap<String, Value>,
}

struct RouterInputs {
    gates: Gates<Train>,
    temperature: f32,
    expert_logits: Tensor<Train, 3>,
    mask: Tensor<Train, 2, Bool>,
    target: Tensor<Train, 2>,
    rows: Vec<SegmentRow>,
}

impl RouterInputs {
    fn cosines(self) -> (ExpertCosines<Train>, Gates<Train>) {
        (ExpertCosines::new(self.expert_logits, Some(self.mask)), self.gates)
    }
}

type RouterLoss = fn(RouterInputs) -> Tensor<Train, 1>;

const ROUTER_LOSSES: [(&str, RouterLoss); 11] = [
    ("balance_mse", |x| losses::load_balance_mse(x.gates.probabilities)),
    ("balance_switch", |x| losses::load_balance_switch(x.gates.probabilities, x.gates.alpha)),
    ("importance", |x| losses::importance(x.gates.probabilities)),
    ("diversity", |x| losses::diversity(x.expert_logits, Some(x.mask))),
    ("semantic", |x| x.cosines().0.semantic_orthogonality()),
    ("overlap", |x| {
        let (cosines, gates) = x.cosines();
        cosines.overlap(gates.alpha)
    }),
    ("alpha_entropy", |x| losses::gate_entropy(x.gates.alpha)),
    ("alignment", |x| losses::alignment(x.target, x.gates.logits, x.temperature)),
    ("router_z", |x| losses::router_z(x.gates.logits)),
    ("temporal", |x| losses::temporal(x.gates.alpha, &losses::adjacent_pairs(&x.rows))),
    ("pet_gates", |x| losses::pet(x.gates.alpha, &losses::adjacent_triples(&x.rows), None)),
];

#[test]
fn losses_on_routers_and_experts_equal_pytorch_in_value_and_gradient() {
    let mut checked = 0;
    for case in cases("losses") {
        let Case::Router(case) = case else { continue };
        assert_eq!(case.losses.len(), ROUTER_LOSSES.len(), "{}: losses of the fixture", case.name);
        for (name, loss) in ROUTER_LOSSES {
            let what = format!("{}, {name}", case.name);
            let z = matrix::<Train>(&case.z).require_grad();
            let expert_logits = cube(&case.expert_logits).require_grad();
            let gates = route(z.clone(), case.routing, case.temperature, None);
            assert_norm(&format!("{what}, gates"), &values(gates.alpha.clone()), &flat(&case.gates), 1e-6);

            let shape = [case.mask.len(), case.mask[0].len()];
            let loss = loss(RouterInputs {
                gates,
                temperature: case.temperature,
                expert_logits: expert_logits.clone(),
                mask: Tensor::from_data(TensorData::new(case.mask.concat(), shape), &Default::default()),
                target: matrix(&case.target),
                rows: segment_rows(&case.rows),
            });
            let check = Check::new(&what, &case.losses[name], loss, [z.clone(), flatten(&expert_logits)]);
            check.gradient("z", z);
            check.gradient("expert_logits", expert_logits);
            checked += 1;
        }
    }
    assert!(checked >= 10 * ROUTER_LOSSES.len(), "{checked} losses were compared");
}

#[test]
fn losses_on_graphs_and_over_time_equal_pytorch_in_value_and_gradient() {
    let mut checked = 0;
    for case in cases("losses") {
        let Case::Graph(case) = case else { continue };
        let leaf = |rows: &Matrix| matrix::<Train>(rows).require_grad();
        let (z, h, operator_logits) = (leaf(&case.z), leaf(&case.h), leaf(&case.operator_logits));
        let attention = cube(&case.attention).require_grad();
        let scores = leaf(&case.scores);
        let rows = segment_rows(&case.rows);
        let (pairs, triples) = (losses::adjacent_pairs(&rows), losses::adjacent_triples(&rows));

        let experts: Vec<_> = case.experts.iter().map(|&k| usize::try_from(k).ok()).collect();
        let operators = ExpertOperators::new(&experts, case.z[0].len(), &Default::default());
        let target = operators.expect("some have operators").target(scores.clone(), case.target_temperature);
        assert_norm(&case.name, &values(target.clone()), &flat(&case.target), 1e-6);
        let gini = || losses::attention_gini(attention.clone(), &case.offsets).expect("degrees above 1");

        for (name, loss) in [
            ("alignment", losses::alignment(target, z.clone(), case.temperature)),
            ("pet", losses::pet(h.clone(), &triples, None)),
            ("pet_huber", losses::pet(h.clone(), &triples, Some(case.huber))),
            (
                "next_operator",
                losses::next_operator(operator_logits.clone(), matrix(&case.activations), &pairs),
            ),
            ("gini", gini()),
            ("gini_loss", losses::attention_gini_loss(gini())),
        ] {
            let what = format!("{}, {name}", case.name);
            let leaves = [z.clone(), h.clone(), operator_logits.clone(), flatten(&attention), scores.clone()];
            let check = Check::new(&what, &case.losses[name], loss, leaves);
            check.gradient("z", z.clone());
            check.gradient("h", h.clone());
            check.gradient("operator_logits", operator_logits.clone());
            check.gradient("attention", attention.clone());
            check.gradient("scores", scores.clone());
            checked += 1;
        }
        assert_eq!(case.losses.len(), 6, "{}: losses of the fixture", case.name);
    }
    assert!(checked >= 3 * 6, "{checked} losses were compared");
}

/// A loss that has the right value, and its gradients.
struct Check<'a> {
    what: &'a str,
    expected: &'a Expected,
    gradients: <Train as burn::tensor::backend::AutodiffBackend>::Gradients,
}

impl<'a> Check<'a> {
    /// Of a loss of some of `leaves`; one that reads none of them has gradients of 0.
    fn new<const N: usize>(
        what: &'a str,
        expected: &'a Expected,
        loss: Tensor<Train, 1>,
        leaves: [Tensor<Train, 2>; N],
    ) -> Self {
        assert_near(&format!("{what}, value"), f64::from(values(loss.clone())[0]), expected.value, 2e-6);
        let gradients = leaves.into_iter().fold(loss, |sum, leaf| sum + leaf.sum() * 0.0).backward();
        Self { what, expected, gradients }
    }

    /// Relative to the norm, but where differences cancel no closer than the rounding of their terms.
    fn gradient<const D: usize>(&self, input: &str, leaf: Tensor<Train, D>) {
        let got = values(leaf.grad(&self.gradients).expect("every leaf is in the graph"));
        let mut expected = Vec::new();
        match self.expected.gradients.get(&format!("grad_{input}")) {
            Some(nested) => collect_numbers(nested, &mut expected),
            None => expected.resize(got.len(), 0.0),
        }
        let norm = expected.iter().map(|x| x * x).sum::<f64>().sqrt();
        let difference = relative_error(&got, &expected) * if norm > 0.0 { norm } else { 1.0 };
        let allowed = 1e-5 * norm + 2e-7;
        assert!(difference <= allowed, "{}, {input}: off by {difference:.2e} of {norm:.2e}", self.what);
    }
}

fn collect_numbers(nested: &Value, into: &mut Vec<f64>) {
    match nested {
        Value::Array(values) => values.iter().for_each(|value| collect_numbers(value, into)),
        value => into.push(value.as_f64().expect("gradients are numbers")),
    }
}

fn cube(values: &[Matrix]) -> Tensor<Train, 3> {
    let shape = [values.len(), values[0].len(), values[0][0].len()];
    let values: Vec<f32> = values.iter().flatten().flatten().map(|&x| x as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), &Default::default())
}

fn flatten(tensor: &Tensor<Train, 3>) -> Tensor<Train, 2> {
    tensor.clone().flatten(1, 2)
}

fn segment_rows(rows: &[(usize, bool)]) -> Vec<SegmentRow> {
    rows.iter().map(|&(segment, ends_episode)| SegmentRow { segment, ends_episode }).collect()
}
