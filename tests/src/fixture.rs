//! The oracles' JSON files, each documented in the script of the same name beside it.

use std::fs;
use std::path::Path;

use burn::tensor::{Tensor, TensorData, backend::Backend};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Rows of numbers.
pub type Matrix = Vec<Vec<f64>>;

#[derive(Deserialize)]
struct File<Case> {
    cases: Vec<Case>,
}

/// All cases of `oracles/NAME.json`. Panics with the path if the file cannot be read.
pub fn cases<Case: DeserializeOwned>(name: &str) -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("oracles").join(format!("{name}.json"));
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file: File<Case> = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(!file.cases.is_empty(), "{}: no cases", path.display());
    file.cases
}

/// Rows of equal length as a tensor of 32-bit numbers.
pub fn matrix<B: Backend>(rows: &[Vec<f64>]) -> Tensor<B, 2> {
    let width = rows[0].len();
    let values: Vec<f32> = flat(rows).into_iter().map(|x| x as f32).collect();
    Tensor::from_data(TensorData::new(values, [rows.len(), width]), &Default::default())
}

/// A list as a tensor of 32-bit numbers.
pub fn vector<B: Backend>(values: &[f64]) -> Tensor<B, 1> {
    let values: Vec<f32> = values.iter().map(|&x| x as f32).collect();
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), &Default::default())
}

/// All numbers, row by row. Panics if rows differ in length.
pub fn flat(rows: &[Vec<f64>]) -> Vec<f64> {
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "rows of one length");
    rows.concat()
}
