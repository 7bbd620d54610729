//! Whether a collector follows a policy: its metrics, and the policy's text.

use std::fmt::Write as _;

use run::metrics::Metrics;
use sha2::{Digest as _, Sha256};

/// Bytes of a digest in a revision, as docs/policy.md has it.
const REVISION_BYTES: usize = 6;

/// Whether the policy with this text is in force.
#[must_use]
pub fn is_in_force(metrics: &Metrics, text: &str) -> bool {
    let revision = revision(text);
    let labels = [("revision", &*revision)];
    metrics.sum_where("pilotlight_collector_policy_revision", &labels) == Some(1.0)
}

/// What `sha256sum` begins with.
fn revision(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let bytes = digest.iter().take(REVISION_BYTES);
    bytes.fold(String::new(), |mut digits, byte| {
        // SANITY: writing to a String does not fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_text_is_in_force() {
        // printf 'default: allow\n' | sha256sum
        let metrics =
            Metrics::parse(r#"pilotlight_collector_policy_revision{revision="8aa28ebc4765"} 1"#);
        assert!(is_in_force(&metrics, "default: allow\n"));
        assert!(!is_in_force(&metrics, "default: deny\n"));
        assert!(!is_in_force(&Metrics::default(), "default: allow\n"));
    }
}
