//! The state of an agent, read from its Lease.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use keyplane_crds::keys;

use crate::agent_report::NodeReport;

/// The time without a report after which an agent counts as silent. Agents report every minute.
const SILENT_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// The tolerated clock difference: certificates are valid from five minutes before they are issued.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

/// The observed state of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentFacts {
    /// The report; `None` before the first report, or if the report can't be read.
    pub report: Option<NodeReport>,
    /// The time of the report by the node's clock.
    pub reported: Option<Timestamp>,
    /// The time of the report by the clock of the management cluster's API server.
    pub received: Option<Timestamp>,
}

impl AgentFacts {
    /// Reads a Lease.
    #[must_use]
    pub fn of(lease: &Lease) -> Self {
        let metadata = &lease.metadata;
        let report =
            metadata.annotations.as_ref().and_then(|annotations| annotations.get(keys::AGENT_REPORT_ANNOTATION));
        let report = report.and_then(|text| serde_json::from_str(text).ok());
        let reported = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0);
        // The API server records the time of the last write. Without that time, a silent agent looks like a wrong
        // clock.
        let written = metadata.managed_fields.iter().flatten().filter_map(|entry| entry.time.as_ref());
        let received = written.map(|time| time.0).max().or(reported);
        Self { report, reported, received }
    }

    /// Returns whether the last report is too old.
    #[must_use]
    pub fn is_silent(&self, now: Timestamp) -> bool {
        self.received.is_none_or(|received| now.duration_since(received) > SILENT_AFTER)
    }

    /// Returns the difference of the node's clock if it exceeds the tolerance.
    #[must_use]
    pub fn clock_difference(&self) -> Option<SignedDuration> {
        let off = self.reported?.duration_since(self.received?);
        (off.abs() > CLOCK_TOLERANCE).then_some(off)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lease(renewed: &str, written: Option<&str>) -> Lease {
        let managed = written.map(|time| json!([{"manager": "keyplane-node", "time": time}]));
        serde_json::from_value(json!({
            "metadata": {"annotations": {"keyplane.io/agent-report": "{\"version\":\"1\"}"}, "managedFields": managed},
            "spec": {"renewTime": renewed},
        }))
        .unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn wrong_clock_is_not_silence() {
        let facts = AgentFacts::of(&lease("2026-11-23T11:00:00.000000Z", Some("2026-11-23T12:00:00Z")));
        assert_eq!(facts.clock_difference(), Some(SignedDuration::from_hours(-1)));
        assert!(!facts.is_silent(at("2026-11-23T12:05:00Z")) && facts.is_silent(at("2026-11-23T12:05:01Z")));
        assert_eq!(facts.report.unwrap().version, "1");
        let ahead = AgentFacts::of(&lease("2026-11-23T12:05:01.000000Z", Some("2026-11-23T12:00:00Z")));
        assert_eq!(ahead.clock_difference(), Some(SignedDuration::from_secs(301)));
    }

    #[test]
    fn without_managed_fields_the_nodes_clock_counts() {
        let facts = AgentFacts::of(&lease("2026-11-23T12:00:00.000000Z", None));
        assert_eq!((facts.received, facts.clock_difference()), (facts.reported, None));
        assert!(AgentFacts::default().is_silent(at("2026-11-23T12:00:00Z")));
    }
}
