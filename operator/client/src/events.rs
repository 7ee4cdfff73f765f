//! Kubernetes Events.

use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use k8s_openapi::api::core::v1::ObjectReference;

/// The longest note in bytes: the API server rejects longer ones (`events.k8s.io`, 1 KiB).
const MAX_NOTE_LENGTH: usize = 1000;

/// Records Events. A failure to record an Event is logged and never returned.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
}

impl Events {
    /// Creates a recorder for Events of this replica.
    #[must_use]
    pub fn new(client: Client, identity: &str) -> Self {
        let reporter = Reporter { controller: "keyplane".to_owned(), instance: Some(identity.to_owned()) };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// Records a Normal Event.
    pub async fn normal(&self, about: &ObjectReference, reason: &str, action: &str, note: &str) {
        self.publish(about, None, EventType::Normal, reason, action, note).await;
    }

    /// Records a Normal Event with a related object. Events that differ only in their note are aggregated into one; a
    /// different related object keeps them apart.
    pub async fn normal_about(
        &self,
        about: &ObjectReference,
        other: Option<ObjectReference>,
        reason: &str,
        action: &str,
        note: &str,
    ) {
        self.publish(about, other, EventType::Normal, reason, action, note).await;
    }

    /// Records a Warning Event with a related object.
    pub async fn warning_about(
        &self,
        about: &ObjectReference,
        other: Option<ObjectReference>,
        reason: &str,
        action: &str,
        note: &str,
    ) {
        self.publish(about, other, EventType::Warning, reason, action, note).await;
    }

    /// Records a Warning Event.
    pub async fn warning(&self, about: &ObjectReference, reason: &str, action: &str, note: &str) {
        self.publish(about, None, EventType::Warning, reason, action, note).await;
    }

    async fn publish(
        &self,
        about: &ObjectReference,
        secondary: Option<ObjectReference>,
        type_: EventType,
        reason: &str,
        action: &str,
        note: &str,
    ) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(truncated(note)),
            action: action.to_owned(),
            secondary,
        };
        if let Err(error) = self.recorder.publish(&event, about).await {
            tracing::warn!(reason, %error, "recording an Event failed");
        }
    }
}

fn truncated(note: &str) -> String {
    if note.len() <= MAX_NOTE_LENGTH {
        return note.to_owned();
    }
    let end = (0..=MAX_NOTE_LENGTH - 3).rev().find(|end| note.is_char_boundary(*end)).unwrap_or_default();
    format!("{}...", &note[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncates_long_note_at_character_boundary() {
        let note = truncated(&"ä".repeat(MAX_NOTE_LENGTH));
        assert!(note.len() <= MAX_NOTE_LENGTH && note.ends_with("..."));
    }
}
