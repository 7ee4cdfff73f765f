//! The time of the week for work that can wait.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A time of the week.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MaintenanceWindow {
    /// The days on which a window starts. Empty means every day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7))]
    pub days: Vec<Weekday>,

    /// When a window starts, in the time zone: hours and minutes on a 24-hour clock, for example `02:30`.
    #[schemars(length(max = 8))]
    #[x_kube(validation = Rule::new("self.matches('^([01][0-9]|2[0-3]):[0-5][0-9]$')")
        .message("spec.maintenanceWindow.start must be hours and minutes from 00:00 to 23:59, for example 02:30"))]
    pub start: String,

    /// The length of a window.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') && duration(self) >= duration('15m') && duration(self) <= duration('24h')")
        .message("spec.maintenanceWindow.duration must be from 15m to 24h, for example 4h"))]
    pub duration: String,

    /// The time zone, by its name in the IANA time zone database, for example `Europe/Berlin`.
    #[serde(default = "MaintenanceWindow::default_time_zone")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: String,
}

impl MaintenanceWindow {
    /// The time zone of most servers' clocks.
    fn default_time_zone() -> String {
        "UTC".to_owned()
    }
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Weekday {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}
