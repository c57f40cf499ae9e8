//! Whether `GATEFOLD_SIMD` asks for something that there is.

use crate::error::RunError;

const VARIABLE: &str = "GATEFOLD_SIMD";
const LEVELS: [&str; 3] = ["avx512", "avx2", "portable"];

/// Fails if the environment variable `GATEFOLD_SIMD` names no SIMD level, or one above this machine's.
///
/// The kernels pass over such a value; a run that is to be repeated bit for bit should not.
pub fn check_simd_request() -> Result<(), RunError> {
    let asked = std::env::var_os(VARIABLE).unwrap_or_default();
    refuse(&asked.to_string_lossy(), gatefold_ops::simd_level())
}

fn refuse(asked: &str, level: &str) -> Result<(), RunError> {
    let accepted = LEVELS.map(|level| format!("\"{level}\"")).join(", ");
    let reason = match asked {
        "" => return Ok(()),
        _ if asked == level => return Ok(()),
        _ if LEVELS.contains(&asked) => {
            format!("this machine has {level} at most; name that or a lower level")
        }
        _ => format!("need one of {accepted}, or leave it unset"),
    };
    Err(RunError::Stopped(format!("{VARIABLE} = {asked:?}: {reason}")))
}

#[cfg(test)]
mod tests {
    use super::refuse;

    #[test]
    fn a_level_that_there_is_not_is_refused_with_what_would_do() {
        for (asked, level) in [("", "avx2"), ("avx2", "avx2"), ("portable", "portable")] {
            assert!(refuse(asked, level).is_ok(), "{asked} on {level}");
        }
        let cases = [
            ("sse", "avx2", "GATEFOLD_SIMD = \"sse\": need one of \"avx512\", \"avx2\", \"portable\""),
            ("AVX2", "avx2", "need one of"),
            ("avx512", "avx2", "this machine has avx2 at most"),
        ];
        for (asked, level, expected) in cases {
            let error = refuse(asked, level).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
