//! A rollout's arrays as a safetensors file: every bit of every number, NaNs included.

use std::borrow::Cow;

use gatefold_env::{EnvSpec, EpisodeEnd};
use gatefold_ppo::{Batch, Rollout};
use safetensors::tensor::{Dtype, SafeTensors, View};

use crate::checkpoint::format::little_endian;

// T steps, N environments

/// One array on its way to the file.
struct Array {
    dtype: Dtype,
    shape: [usize; 2],
    bytes: Vec<u8>,
}

impl View for Array {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// All arrays of a batch by name. Finished episodes, which no update reads, are not among them.
pub(super) fn encode(batch: &Batch) -> Vec<u8> {
    let rollout = &batch.rollout;
    let grid = [rollout.num_steps(), rollout.num_envs()];
    let (steps, seen) = (grid[0] * grid[1], &rollout.observations);
    let floats = |values: Vec<f32>, rows: usize| Array {
        dtype: Dtype::F32,
        shape: [rows, values.len() / rows],
        bytes: little_endian(&values),
    };
    let actions = rollout.actions.iter().flat_map(|action| action.to_le_bytes()).collect();
    let ends = rollout.ends.iter().map(|end| match end {
        None => 0,
        Some(EpisodeEnd::Terminated) => 1,
        Some(EpisodeEnd::Truncated) => 2,
    });
    let mask: Vec<u8> = seen.mask.iter().map(|&allowed| u8::from(allowed)).collect();
    let mut arrays = vec![
        ("features", floats(seen.features.clone(), seen.rows())),
        ("activations", floats(seen.activations.clone(), seen.rows())),
        ("node_features", floats(seen.node_features.clone(), seen.rows())),
        ("mask", Array { dtype: Dtype::U8, shape: [seen.rows(), mask.len() / seen.rows()], bytes: mask }),
        ("actions", Array { dtype: Dtype::I32, shape: grid, bytes: actions }),
        ("ends", Array { dtype: Dtype::U8, shape: grid, bytes: ends.collect() }),
        ("gates", floats(rollout.gates.clone(), steps)),
        ("drawn", floats(rollout.drawn.clone(), steps)),
    ];
    let over_time = [
        ("log_probs", &rollout.log_probs),
        ("values", &rollout.values),
        ("next_values", &rollout.next_values),
        ("rewards", &rollout.rewards),
        ("advantages", &batch.advantages),
        ("returns", &batch.returns),
    ];
    for (name, array) in over_time {
        arrays.push((name, floats(array.iter().copied().collect(), grid[0])));
    }
    safetensors::serialize(arrays, None).expect("arrays of distinct names can be serialised")
}

/// The batch of an [`encode`]; `spec` is the environment's. Fails with the first array that does not fit.
pub(super) fn decode(bytes: &[u8], spec: &EnvSpec) -> Result<Batch, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let array = |name: &str, dtype: Dtype| {
        let view = file.tensor(name).map_err(|e| format!("`{name}`: {e}"))?;
        if view.dtype() != dtype {
            return Err(format!("`{name}` is {:?}, not {dtype:?}", view.dtype()));
        }
        Ok(view)
    };
    let floats = |name: &str| -> Result<Vec<f32>, String> {
        let words = array(name, Dtype::F32)?.data().as_chunks().0;
        Ok(words.iter().map(|&word| f32::from_le_bytes(word)).collect())
    };
    let actions = array("actions", Dtype::I32)?;
    let &[steps, envs] = actions.shape() else {
        return Err(format!("`actions` has shape {:?}, not steps and environments", actions.shape()));
    };
    let actions: Vec<i32> =
        actions.data().as_chunks().0.iter().map(|&word| i32::from_le_bytes(word)).collect();
    let mut rollout = Rollout::new(spec, steps, envs);
    let (mut advantages, mut returns) = (rollout.values.clone(), rollout.values.clone());
    let seen = &mut rollout.observations;
    fill("features", &mut seen.features, floats("features")?)?;
    fill("activations", &mut seen.activations, floats("activations")?)?;
    fill("node_features", &mut seen.node_features, floats("node_features")?)?;
    let mask = array("mask", Dtype::U8)?.data().iter().map(|&byte| byte != 0).collect();
    fill("mask", &mut seen.mask, mask)?;
    let ends = array("ends", Dtype::U8)?.data().iter().map(|byte| match byte {
        0 => Ok(None),
        1 => Ok(Some(EpisodeEnd::Terminated)),
        2 => Ok(Some(EpisodeEnd::Truncated)),
        other => Err(format!("`ends` holds {other}")),
    });
    let grid = "a new array is in standard layout";
    fill("ends", rollout.ends.as_slice_mut().expect(grid), ends.collect::<Result<_, _>>()?)?;
    fill("actions", rollout.actions.as_slice_mut().expect(grid), actions)?;
    let over_time = [
        ("log_probs", &mut rollout.log_probs),
        ("values", &mut rollout.values),
        ("next_values", &mut rollout.next_values),
        ("rewards", &mut rollout.rewards),
        ("advantages", &mut advantages),
        ("returns", &mut returns),
    ];
    for (name, array) in over_time {
        fill(name, array.as_slice_mut().expect(grid), floats(name)?)?;
    }
    rollout.gates = floats("gates")?;
    rollout.drawn = floats("drawn")?;
    Ok(Batch { rollout, advantages, returns })
}

fn fill<T: Copy>(name: &str, place: &mut [T], values: Vec<T>) -> Result<(), String> {
    if place.len() != values.len() {
        return Err(format!(
            "`{name}` has {} numbers, the environment asks for {}",
            values.len(),
            place.len()
        ));
    }
    place.copy_from_slice(&values);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_of_a_batch_survives_even_that_of_a_nan() {
        let spec = EnvSpec { masked: true, ..EnvSpec::new(2, 3) };
        let mut rollout = Rollout::new(&spec, 4, 2);
        let nan = f32::from_bits(0x7fa0_1234);
        rollout.observations.features[3] = nan;
        rollout.observations.mask[5] = false;
        rollout.rewards[(3, 1)] = f32::NEG_INFINITY;
        rollout.values[(0, 1)] = -0.0;
        rollout.actions[(2, 0)] = -7;
        rollout.ends[(1, 1)] = Some(EpisodeEnd::Truncated);
        rollout.ends[(2, 1)] = Some(EpisodeEnd::Terminated);
        rollout.gates = vec![0.25; 8];
        let mut advantages = rollout.values.clone();
        advantages[(1, 0)] = f32::NAN;
        let batch = Batch { returns: rollout.rewards.clone(), rollout, advantages };

        let bytes = encode(&batch);
        let back = decode(&bytes, &spec).unwrap();
        assert_eq!(encode(&back), bytes);
        assert_eq!(back.rollout.observations.features[3].to_bits(), nan.to_bits());
        assert_eq!(back.rollout.observations.mask, batch.rollout.observations.mask);
        assert_eq!((back.rollout.ends, back.rollout.actions), (batch.rollout.ends, batch.rollout.actions));
        assert_eq!(back.returns[(3, 1)], f32::NEG_INFINITY);
        assert!(back.advantages[(1, 0)].is_nan() && back.rollout.drawn.is_empty());
    }

    #[test]
    fn a_batch_of_another_environment_is_told_apart() {
        let spec = EnvSpec::new(2, 3);
        let rollout = Rollout::new(&spec, 4, 2);
        let zeros = rollout.values.clone();
        let bytes = encode(&Batch { rollout, advantages: zeros.clone(), returns: zeros });
        let error = decode(&bytes, &EnvSpec::new(5, 3)).unwrap_err();
        assert_eq!(error, "`features` has 20 numbers, the environment asks for 50");
    }
}
