//! Waiting for a fact, with a message that says what was last wrong.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::interrupt;
use crate::process::Ended;

/// The shortest pause between two tries. A person sees no delay.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The timeout of a wait for something that takes seconds on an idle computer: a busy one gets this long.
pub const PATIENCE: Duration = Duration::from_mins(3);

/// Tries `attempt` until it succeeds, and returns what it returned.
///
/// # Errors
/// When it has not succeeded after `timeout` (the message holds its last error), at once when a process that it needs
/// has [`Ended`], or when this process was interrupted.
pub fn eventually<T>(what: &str, timeout: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let mut tries = 0_u32;
    loop {
        interrupt::check()?;
        tries += 1;
        let began = Instant::now();
        let error = match attempt() {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if error.is::<Ended>() {
            return Err(error).with_context(|| format!("no {what}"));
        }
        if start.elapsed() >= timeout {
            bail!("no {what} after {} s and {tries} tries; the last one: {error:#}", timeout.as_secs());
        }
        // A try that starts processes must not take the computer from what is waited for.
        sleep((began.elapsed() * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
    }
}

/// Lets time pass, unless somebody presses Ctrl-C.
///
/// # Errors
/// When somebody did.
pub fn pass(time: Duration) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < time {
        interrupt::check()?;
        sleep(Duration::from_millis(200));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_success_is_returned() {
        let mut left = 2;
        let value = eventually("answer", Duration::from_secs(5), || {
            left -= 1;
            if left == 0 { Ok(42) } else { bail!("not yet") }
        });
        assert_eq!(value.unwrap(), 42);
    }

    #[test]
    fn a_process_that_ended_is_not_awaited_any_longer() {
        let ended = || Ended { name: "kubelet".to_owned(), log_tail: "bad flag".to_owned() };
        let result = eventually("node Ready", Duration::from_mins(1), || -> Result<()> { Err(ended().into()) });
        let text = format!("{:#}", result.unwrap_err());
        assert_eq!(text, "no node Ready: kubelet has ended; its log ends with:\nbad flag");
    }

    #[test]
    fn a_timeout_tells_what_was_awaited_and_the_last_error() {
        let error = eventually("node Ready", Duration::ZERO, || -> Result<()> { bail!("KubeletNotReady") });
        let text = error.unwrap_err().to_string();
        assert!(text.contains("no node Ready after 0 s") && text.contains("KubeletNotReady"), "{text}");
    }
}
