//! How long to wait after the n-th failure of one object. kube's controller has no such thing of its own.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The first wait.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait: what is broken for long is still tried often enough to be found mended within minutes.
const LONGEST: Duration = Duration::from_mins(5);

/// The wait after the given number of failures in a row: doubled each time, and shortened by up to a quarter, so that
/// what failed together does not come back together.
#[must_use]
pub fn delay(failures: u32) -> Duration {
    let full = FIRST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(16))).min(LONGEST);
    // A fresh RandomState is seeded by the standard library: enough of a dice for jitter.
    let dice = RandomState::new().hash_one(failures) % 256;
    full.mul_f64(1.0 - f64::from(u8::try_from(dice).unwrap_or_default()) / 1024.0)
}

/// Failures in a row, by object.
#[derive(Debug)]
pub struct Backoff<K> {
    failures: Mutex<HashMap<K, u32>>,
}

impl<K> Default for Backoff<K> {
    fn default() -> Self {
        Self { failures: Mutex::default() }
    }
}

impl<K: Eq + Hash> Backoff<K> {
    /// Counts a failure, and says how long to wait.
    pub fn failed(&self, object: K) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(object).or_default();
        *count += 1;
        delay(*count)
    }

    /// Forgets an object that has succeeded or is gone.
    pub fn forget(&self, object: &K) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(object);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_longer_each_time_up_to_a_limit_and_starts_anew_after_success() {
        let backoff = Backoff::default();
        let waits: Vec<_> = (0..12).map(|_| backoff.failed("a")).collect();
        assert!(waits[0] <= FIRST && waits[0] >= FIRST.mul_f64(0.75));
        assert!(waits[4] >= waits[2], "{waits:?}");
        assert!(waits[11] <= LONGEST && waits[11] >= LONGEST.mul_f64(0.75));
        backoff.forget(&"a");
        assert!(backoff.failed("a") <= FIRST);
    }
}
