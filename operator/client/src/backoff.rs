//! Exponential backoff per object. kube's controller has none of its own.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Delay after the first failure.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// Longest delay: a retry finds within minutes that an old problem is fixed.
const MAX_DELAY: Duration = Duration::from_mins(5);

/// Returns the delay after this number of consecutive failures. The delay doubles with each failure, and is shortened
/// by up to a quarter, so that objects that failed together are not retried together.
#[must_use]
pub fn delay(failures: u32) -> Duration {
    let full = FIRST_DELAY.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(16))).min(MAX_DELAY);
    // The standard library seeds each new RandomState, which is random enough for jitter.
    let jitter = RandomState::new().hash_one(failures) % 256;
    full.mul_f64(1.0 - f64::from(u8::try_from(jitter).unwrap_or_default()) / 1024.0)
}

/// Consecutive failures, by object.
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
    /// Counts a failure, and returns the delay.
    pub fn failed(&self, object: K) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(object).or_default();
        *count += 1;
        delay(*count)
    }

    /// Resets an object that has succeeded or is deleted.
    pub fn forget(&self, object: &K) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(object);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_grows_to_a_limit_and_resets_after_success() {
        let backoff = Backoff::default();
        let waits: Vec<_> = (0..12).map(|_| backoff.failed("a")).collect();
        assert!(waits[0] <= FIRST_DELAY && waits[0] >= FIRST_DELAY.mul_f64(0.75));
        assert!(waits[4] >= waits[2], "{waits:?}");
        assert!(waits[11] <= MAX_DELAY && waits[11] >= MAX_DELAY.mul_f64(0.75));
        backoff.forget(&"a");
        assert!(backoff.failed("a") <= FIRST_DELAY);
    }
}
