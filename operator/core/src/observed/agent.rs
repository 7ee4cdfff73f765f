//! What an agent's Lease says.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use keyplane_crds::keys;

use crate::agent_report::NodeReport;

/// An agent that reports every minute and was not heard of for so long is silent.
const SILENT_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// A clock may differ by so much: certificates begin five minutes before they are made.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

/// What is known of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentFacts {
    /// What it reports; nothing before its first report, or if the report can't be read.
    pub report: Option<NodeReport>,
    /// When it reported, by the machine's clock.
    pub reported: Option<Timestamp>,
    /// When that reached the management cluster, by the clock of its API server.
    pub heard: Option<Timestamp>,
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
        // The API server notes when it was written last: without that a silent agent could not be told from a clock
        // that is wrong.
        let written = metadata.managed_fields.iter().flatten().filter_map(|entry| entry.time.as_ref());
        let heard = written.map(|time| time.0).max().or(reported);
        Self { report, reported, heard }
    }

    /// Whether it was heard of within the last minutes.
    #[must_use]
    pub fn is_silent(&self, now: Timestamp) -> bool {
        self.heard.is_none_or(|heard| now.duration_since(heard) > SILENT_AFTER)
    }

    /// How far the machine's clock is off, if that is too much.
    #[must_use]
    pub fn clock_is_off(&self) -> Option<SignedDuration> {
        let off = self.reported?.duration_since(self.heard?);
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
    fn a_wrong_clock_is_no_silence() {
        let facts = AgentFacts::of(&lease("2026-11-23T11:00:00.000000Z", Some("2026-11-23T12:00:00Z")));
        assert_eq!(facts.clock_is_off(), Some(SignedDuration::from_hours(-1)));
        assert!(!facts.is_silent(at("2026-11-23T12:05:00Z")) && facts.is_silent(at("2026-11-23T12:05:01Z")));
        assert_eq!(facts.report.unwrap().version, "1");
        let ahead = AgentFacts::of(&lease("2026-11-23T12:05:01.000000Z", Some("2026-11-23T12:00:00Z")));
        assert_eq!(ahead.clock_is_off(), Some(SignedDuration::from_secs(301)));
    }

    #[test]
    fn without_the_api_servers_note_the_machines_clock_is_believed() {
        let facts = AgentFacts::of(&lease("2026-11-23T12:00:00.000000Z", None));
        assert_eq!((facts.heard, facts.clock_is_off()), (facts.reported, None));
        assert!(AgentFacts::default().is_silent(at("2026-11-23T12:00:00Z")));
    }
}
