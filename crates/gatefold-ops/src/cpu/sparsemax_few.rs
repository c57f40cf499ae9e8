//! Sparsemax of rows of a few entries, without sorting and without branches.

use super::level::multiversion;

/// Most entries of a row that are compared all with all.
pub(super) const FEW: usize = 8;

/// Calls `body::<K>` for a number of entries up to [`FEW`].
macro_rules! by_entries {
    ($k:expr, $body:ident($($arg:expr),*)) => {
        match $k {
            1 => $body::<1>($($arg),*),
            2 => $body::<2>($($arg),*),
            3 => $body::<3>($($arg),*),
            4 => $body::<4>($($arg),*),
            5 => $body::<5>($($arg),*),
            6 => $body::<6>($($arg),*),
            7 => $body::<7>($($arg),*),
            8 => $body::<8>($($arg),*),
            _ => unreachable!("at most {FEW} entries"),
        }
    };
}

multiversion! {
    /// Sparsemax of each row of `k` entries; NaN for a row with a NaN, `+inf`, or nothing but `-inf`.
    pub(super) fn project_rows(k: usize, z: &[f32], temperature: f32, p: &mut [f32]) = project_body
}

#[inline(always)]
fn project_body<const FMA: bool>(k: usize, z: &[f32], temperature: f32, p: &mut [f32]) {
    by_entries!(k, project_of(z, temperature, p));
}

#[inline(always)]
fn project_of<const K: usize>(z: &[f32], temperature: f32, p: &mut [f32]) {
    for (z, p) in z.as_chunks::<K>().0.iter().zip(p.as_chunks_mut::<K>().0) {
        let mut max = f32::NEG_INFINITY;
        let mut nan = false;
        for &z in z {
            nan |= z.is_nan();
            max = if z > max { z } else { max };
        }
        let mut u = [0.0; K];
        for i in 0..K {
            u[i] = (z[i] - max) / temperature;
        }
        // Entry i is in the support if 1 + n u_i > s, with n entries of at least u_i, whose sum is s.
        let (mut count, mut sum) = ([0.0f32; K], [0.0f32; K]);
        for j in 0..K {
            for i in 0..K {
                let above = u[j] >= u[i];
                count[i] += if above { 1.0 } else { 0.0 };
                sum[i] += if above { u[j] } else { 0.0 };
            }
        }
        let (mut size, mut total) = (0.0, 0.0);
        for i in 0..K {
            let inside = 1.0 + count[i] * u[i] > sum[i];
            size += if inside { 1.0 } else { 0.0 };
            total += if inside { u[i] } else { 0.0 };
        }
        let threshold = (total - 1.0) / size;
        let invalid = nan || max.is_infinite();
        for i in 0..K {
            let share = if u[i] > threshold { u[i] - threshold } else { 0.0 };
            p[i] = if invalid { f32::NAN } else { share };
        }
    }
}

multiversion! {
    /// `dz = 1_S (g - mean_S g) / temperature` for each row of `k` entries.
    pub(super) fn back_rows(k: usize, p: &[f32], g: &[f32], temperature: f32, d: &mut [f32]) = back_body
}

#[inline(always)]
fn back_body<const FMA: bool>(k: usize, p: &[f32], g: &[f32], temperature: f32, d: &mut [f32]) {
    by_entries!(k, back_of(p, g, temperature, d));
}

#[inline(always)]
fn back_of<const K: usize>(p: &[f32], g: &[f32], temperature: f32, d: &mut [f32]) {
    let rows = p.as_chunks::<K>().0.iter().zip(g.as_chunks::<K>().0);
    for ((p, g), d) in rows.zip(d.as_chunks_mut::<K>().0) {
        let (mut sum, mut count) = (0.0, 0.0);
        for i in 0..K {
            sum += if p[i] > 0.0 { g[i] } else { 0.0 };
            count += if p[i] > 0.0 { 1.0 } else { 0.0 };
        }
        let mean = sum / count;
        for i in 0..K {
            d[i] = if p[i] > 0.0 { (g[i] - mean) / temperature } else { 0.0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_with_no_projection_are_nan_and_masked_entries_are_zero() {
        const INF: f32 = f32::INFINITY;
        let z = [1.0, -INF, 0.5, -INF, -INF, -INF, f32::NAN, 0.0, 0.0, INF, 0.0, 1.0];
        let mut p = [0.0; 12];
        project_rows(3, &z, 1.0, &mut p);
        assert_eq!(p[..3], [0.75, 0.0, 0.25]);
        assert!(p[3..].iter().all(|p| p.is_nan()), "{p:?}");
    }

    #[test]
    fn huge_and_tied_entries_are_projected() {
        let z = [1e38, -1e38, 1e38, 1e38, 2.0, 2.0, 2.0, 2.0];
        let mut p = [0.0; 8];
        project_rows(4, &z, 0.5, &mut p);
        let third = 1.0 / 3.0;
        for (p, expected) in p.iter().zip([third, 0.0, third, third, 0.25, 0.25, 0.25, 0.25]) {
            assert!((p - expected).abs() < 1e-6, "{p}, {expected}");
        }
    }
}
