//! Events on the objects that a person looks at.

use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use k8s_openapi::api::core::v1::ObjectReference;

/// The API server refuses a longer note (`events.k8s.io`, 1 KiB).
const LONGEST_NOTE: usize = 1000;

/// Writes Events. A failure to write one is logged and never fails the work that it is about.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
}

impl Events {
    /// Events of this replica.
    #[must_use]
    pub fn new(client: Client, identity: &str) -> Self {
        let reporter = Reporter { controller: "keyplane".to_owned(), instance: Some(identity.to_owned()) };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// Something was done.
    pub async fn normal(&self, about: &ObjectReference, reason: &str, action: &str, note: &str) {
        self.publish(about, None, EventType::Normal, reason, action, note).await;
    }

    /// Something was done; there may be another object that it was done with. Events that differ in their note only are
    /// taken for repetitions of one; the other object tells them apart.
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

    /// Something needs a person; there may be another object.
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

    /// Something needs a person.
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
            note: Some(shortened(note)),
            action: action.to_owned(),
            secondary,
        };
        if let Err(error) = self.recorder.publish(&event, about).await {
            tracing::warn!(reason, %error, "an Event could not be written");
        }
    }
}

fn shortened(note: &str) -> String {
    if note.len() <= LONGEST_NOTE {
        return note.to_owned();
    }
    let end = (0..=LONGEST_NOTE - 3).rev().find(|end| note.is_char_boundary(*end)).unwrap_or_default();
    format!("{}...", &note[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let note = shortened(&"ä".repeat(LONGEST_NOTE));
        assert!(note.len() <= LONGEST_NOTE && note.ends_with("..."));
    }
}
