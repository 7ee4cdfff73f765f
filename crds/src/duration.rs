//! Durations as kubeadm and Go write them: `8760h`, `90m`, `1h30m`.

use std::fmt;
use std::time::Duration;

/// The reason why a duration could not be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is no duration: write hours, minutes and seconds, for example 8760h or 1h30m")]
pub struct DurationError {
    value: String,
}

/// Parses a duration of whole hours, minutes and seconds, in this order (`87600h`, `1h30m`, `90s`).
///
/// # Errors
/// If the text is empty, has another unit, or is too large for 64-bit seconds.
pub fn parse_duration(value: &str) -> Result<Duration, DurationError> {
    let error = || DurationError { value: value.to_owned() };
    let mut rest = value;
    let mut seconds: u64 = 0;
    for (unit, factor) in [('h', 3600), ('m', 60), ('s', 1)] {
        if let Some((number, after)) = rest.split_once(unit) {
            // u64's own parser accepts a leading plus sign; Go's parser and the schema don't.
            if !number.bytes().all(|b| b.is_ascii_digit()) {
                return Err(error());
            }
            let number: u64 = number.parse().map_err(|_| error())?;
            seconds = number.checked_mul(factor).and_then(|n| seconds.checked_add(n)).ok_or_else(error)?;
            rest = after;
        }
    }
    if value.is_empty() || !rest.is_empty() {
        return Err(error());
    }
    Ok(Duration::from_secs(seconds))
}

/// How long before its expiry a certificate is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenewBefore {
    /// A fixed time before the expiry.
    Duration(Duration),
    /// A share of the certificate's lifetime, 1 to 99.
    Percentage(u8),
}

impl Default for RenewBefore {
    /// A kubelet renews its own certificates at 70 % to 90 % of their lifetime (client-go, `certificate_manager.go`).
    /// The earlier value leaves 110 days for trouble with a certificate that is valid for a year.
    fn default() -> Self {
        Self::Percentage(30)
    }
}

impl fmt::Display for RenewBefore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duration(duration) => write!(f, "{}s", duration.as_secs()),
            Self::Percentage(percentage) => write!(f, "{percentage}%"),
        }
    }
}

impl RenewBefore {
    /// Parses `720h` or `30%`.
    ///
    /// # Errors
    /// If the text is neither a duration nor a percentage from 1 to 99.
    pub fn parse(value: &str) -> Result<Self, DurationError> {
        match value.strip_suffix('%') {
            Some(number) => match number.parse::<u8>() {
                Ok(percentage @ 1..=99) => Ok(Self::Percentage(percentage)),
                _ => Err(DurationError { value: value.to_owned() }),
            },
            None => parse_duration(value).map(Self::Duration),
        }
    }

    /// The time before expiry, for a certificate with the given `lifetime`.
    #[must_use]
    pub fn of(self, lifetime: Duration) -> Duration {
        match self {
            Self::Duration(duration) => duration.min(lifetime),
            Self::Percentage(percentage) => lifetime.mul_f64(f64::from(percentage) / 100.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_durations_of_kubeadm() {
        assert_eq!(parse_duration("87600h").unwrap(), Duration::from_hours(87600));
        assert_eq!(parse_duration("87600h0m0s").unwrap(), Duration::from_hours(87600));
        assert_eq!(parse_duration("1h30m").unwrap(), Duration::from_mins(90));
        assert_eq!(parse_duration("90s").unwrap(), Duration::from_secs(90));
    }

    #[test]
    fn rejects_invalid_durations() {
        for bad in ["", "h", "12", "1d", "1.5h", "-1h", "+1h", "30m1h", "1h ", "99999999999999999999h"] {
            assert!(parse_duration(bad).is_err(), "{bad:?} was let through");
        }
    }

    #[test]
    fn percentage_is_relative_to_the_lifetime() {
        let day = Duration::from_hours(24);
        assert_eq!(RenewBefore::parse("25%").unwrap().of(day), day / 4);
        assert_eq!(RenewBefore::parse("2h").unwrap().of(day), Duration::from_hours(2));
        for bad in ["0%", "100%", "-5%", "x%", ""] {
            assert!(RenewBefore::parse(bad).is_err(), "{bad:?} was let through");
        }
    }
}
