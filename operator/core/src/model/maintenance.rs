//! Maintenance windows: the times for work that can be deferred.

use std::collections::BTreeSet;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};
use keyplane_crds::{MaintenanceWindow, Weekday, parse_duration};

use super::FieldError;

const FIELD: &str = "spec.maintenanceWindow";
const MIN_DURATION: SignedDuration = SignedDuration::from_mins(15);
/// A longer window would overlap the window of the next day.
const MAX_DURATION: SignedDuration = SignedDuration::from_hours(24);

/// A parsed `MaintenanceWindow`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The days on which the window opens. Empty means every day.
    days: BTreeSet<Weekday>,
    start: Time,
    duration: SignedDuration,
    time_zone: TimeZone,
}

impl Window {
    /// Parses a window.
    ///
    /// # Errors
    /// Returns the first invalid field.
    pub fn parse(written: &MaintenanceWindow) -> Result<Self, FieldError> {
        let error = |field: &str, message: String| FieldError::new(format!("{FIELD}.{field}"), message);
        let duration = parse_duration(&written.duration).map_err(|cause| error("duration", cause.to_string()))?;
        let duration = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
        if !(MIN_DURATION..=MAX_DURATION).contains(&duration) {
            return Err(error("duration", "must be from 15m to 24h, for example 4h".to_owned()));
        }
        let start = Time::strptime("%H:%M", &written.start).map_err(|_| {
            error("start", "must be hours and minutes from 00:00 to 23:59, for example 02:30".to_owned())
        })?;
        let time_zone = TimeZone::get(&written.time_zone).map_err(|_| {
            let zone = &written.time_zone;
            error(
                "timeZone",
                format!("{zone:?} is not in the IANA time zone database: write for example Europe/Berlin"),
            )
        })?;
        Ok(Self { days: written.days.iter().copied().collect(), start, duration, time_zone })
    }

    /// Returns whether the window is open at `now`.
    #[must_use]
    pub fn is_open(&self, now: Timestamp) -> bool {
        // The window of yesterday may last past midnight.
        (-1..=0).filter_map(|day| self.opening(now, day)).any(|from| from <= now && now < from + self.duration)
    }

    /// Returns the time at which the window opens next. `None` only at the end of the calendar.
    #[must_use]
    pub fn next_opening(&self, now: Timestamp) -> Option<Timestamp> {
        (0..=7).filter_map(|day| self.opening(now, day)).find(|from| *from > now)
    }

    /// Returns the opening time `days_later` days after today, if the window opens on that day. A local time that
    /// daylight saving time skips becomes the time after the gap.
    fn opening(&self, now: Timestamp, days_later: i64) -> Option<Timestamp> {
        let today = now.to_zoned(self.time_zone.clone()).date();
        let date = today.checked_add(Span::new().days(days_later)).ok()?;
        let begins = self.days.is_empty() || self.days.contains(&weekday(date.weekday()));
        let zoned = date.to_datetime(self.start).to_zoned(self.time_zone.clone()).ok()?;
        begins.then(|| zoned.timestamp())
    }
}

const fn weekday(day: jiff::civil::Weekday) -> Weekday {
    match day {
        jiff::civil::Weekday::Monday => Weekday::Mon,
        jiff::civil::Weekday::Tuesday => Weekday::Tue,
        jiff::civil::Weekday::Wednesday => Weekday::Wed,
        jiff::civil::Weekday::Thursday => Weekday::Thu,
        jiff::civil::Weekday::Friday => Weekday::Fri,
        jiff::civil::Weekday::Saturday => Weekday::Sat,
        jiff::civil::Weekday::Sunday => Weekday::Sun,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(yaml: &str) -> Result<Window, FieldError> {
        Window::parse(&serde_saphyr::from_str(yaml).unwrap())
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn opens_on_its_days_and_stays_open_past_midnight() {
        // The 21st of November 2026 is a Saturday.
        let window = window("{days: [Sat], start: '22:00', duration: 4h}").unwrap();
        assert!(!window.is_open(at("2026-11-21T21:59:59Z")));
        assert!(window.is_open(at("2026-11-21T22:00:00Z")));
        assert!(window.is_open(at("2026-11-22T01:59:59Z")));
        assert!(!window.is_open(at("2026-11-22T02:00:00Z")));
        assert!(!window.is_open(at("2026-11-22T22:30:00Z")));
        assert_eq!(window.next_opening(at("2026-11-21T21:00:00Z")), Some(at("2026-11-21T22:00:00Z")));
        assert_eq!(window.next_opening(at("2026-11-21T22:00:00Z")), Some(at("2026-11-28T22:00:00Z")));
    }

    #[test]
    fn follows_daylight_saving_time() {
        let window = window("{start: '02:30', duration: 1h, timeZone: Europe/Berlin}").unwrap();
        assert!(window.is_open(at("2026-07-01T00:30:00Z")), "summer");
        assert!(window.is_open(at("2026-12-01T01:30:00Z")), "winter");
        assert!(!window.is_open(at("2026-12-01T00:30:00Z")));
        // On the 29th of March 2026 there is no half past two: half past three it is.
        assert!(window.is_open(at("2026-03-29T01:30:00Z")));
    }

    #[test]
    fn window_of_24h_on_every_day_is_always_open() {
        let window = window("{start: '00:00', duration: 24h}").unwrap();
        for hour in 0..24 {
            assert!(window.is_open(at(&format!("2026-11-23T{hour:02}:59:59Z"))));
        }
    }

    #[test]
    fn refuses_invalid_window_with_field() {
        for (yaml, field) in [
            ("{start: '24:00', duration: 1h}", "start"),
            ("{start: '2', duration: 1h}", "start"),
            ("{start: '02:00', duration: 10m}", "duration"),
            ("{start: '02:00', duration: 25h}", "duration"),
            ("{start: '02:00', duration: soon}", "duration"),
            ("{start: '02:00', duration: 1h, timeZone: Mars/Olympus}", "timeZone"),
        ] {
            assert_eq!(window(yaml).unwrap_err().field, format!("{FIELD}.{field}"), "{yaml}");
        }
    }
}
