//! The stages of a rotation, and its state.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use keyplane_crds::{RotationPhase, keys::ROTATION_STATE_ANNOTATION};
use serde::{Deserialize, Serialize};

use crate::pki::AuthorityName;

/// By then every Pod has a token that was signed after the new key began to sign: a Pod's token is asked for an hour and
/// seven seconds (`WarnOnlyBoundTokenExpirationSeconds`), and the kubelet renews it at 80 % of that
/// (`pkg/kubelet/token/token_manager.go`).
const POD_TOKENS: SignedDuration = SignedDuration::from_mins(65);

/// What is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// An authority.
    Authority(AuthorityName),
    /// The key that signs service-account tokens.
    ServiceAccountKey,
}

impl Subject {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Authority(AuthorityName::Cluster),
        Self::Authority(AuthorityName::Etcd),
        Self::Authority(AuthorityName::FrontProxy),
        Self::ServiceAccountKey,
    ];

    /// Its name in `status.rotations`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Authority(authority) => authority.name(),
            Self::ServiceAccountKey => "service-account-key",
        }
    }

    /// The stage after this one; nothing after the last.
    #[must_use]
    pub const fn after(self, stage: Stage) -> Option<Stage> {
        let is_key = matches!(self, Self::ServiceAccountKey);
        match stage {
            // A key has no certificates below it.
            Stage::Trust if is_key => Some(Stage::Signing),
            Stage::Signing if is_key => Some(Stage::Gate),
            Stage::Trust => Some(Stage::Clients),
            Stage::Clients => Some(Stage::Signing),
            Stage::Signing => Some(Stage::Kubelets),
            Stage::Kubelets => Some(Stage::Servers),
            Stage::Servers => Some(Stage::Gate),
            Stage::Gate => Some(Stage::Drop),
            Stage::Drop | Stage::Revoke => None,
        }
    }

    /// From when on a rotation in the stage Gate may go on by itself, without a person who says so.
    #[must_use]
    pub fn settles(self, state: &State) -> Timestamp {
        match self {
            Self::Authority(_) => state.since,
            Self::ServiceAccountKey => state.since.checked_add(POD_TOKENS).unwrap_or(Timestamp::MAX),
        }
    }

    /// The stage from which a rotation in this one goes back; nothing once the old one is being taken away.
    ///
    /// Going back is a rotation the other way round, from the new to the old, which everything trusts by then: it begins
    /// where the signer of certificates is already the one that it leads to, or else is still to be changed.
    #[must_use]
    pub const fn back_from(self, stage: Stage) -> Option<Stage> {
        match (self, stage) {
            (Self::ServiceAccountKey, Stage::Trust) => Some(Stage::Drop),
            (Self::ServiceAccountKey, Stage::Signing | Stage::Gate)
            | (Self::Authority(_), Stage::Trust | Stage::Clients) => Some(Stage::Signing),
            (Self::Authority(_), Stage::Signing | Stage::Kubelets | Stage::Servers | Stage::Gate) => {
                Some(Stage::Clients)
            }
            (_, _) => None,
        }
    }
}

/// A stage of a rotation, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// The new one is trusted beside the old one, everywhere.
    Trust,
    /// Clients' certificates come from the new one.
    Clients,
    /// The controller-manager signs with the new one; service-account tokens are signed with the new one.
    Signing,
    /// Kubelets get certificates from the new one.
    Kubelets,
    /// Servers' certificates come from the new one, and bring along the new authority as the old one has signed it.
    Servers,
    /// What can't be seen may still depend on the old one.
    Gate,
    /// The old one is taken away.
    Drop,
    /// The old one was taken away at once, and is not good any more whoever still depends on it.
    Revoke,
}

impl Stage {
    /// Its name in `status.rotations`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trust => "Trust",
            Self::Clients => "Clients",
            Self::Signing => "Signing",
            Self::Kubelets => "Kubelets",
            Self::Servers => "Servers",
            Self::Gate => "Gate",
            Self::Drop => "Drop",
            Self::Revoke => "Revoke",
        }
    }

    /// The phase that it is part of.
    #[must_use]
    pub const fn phase(self) -> RotationPhase {
        match self {
            Self::Trust | Self::Clients | Self::Signing | Self::Kubelets | Self::Servers => RotationPhase::Preparing,
            Self::Gate => RotationPhase::Prepared,
            Self::Drop | Self::Revoke => RotationPhase::Completing,
        }
    }
}

/// How far a rotation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The stage; nothing once it is completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// Whether it is being taken back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rolling_back: bool,
    /// The value that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<String>,
    /// When it began.
    pub started: Timestamp,
    /// When the stage began, or it was completed.
    pub since: Timestamp,
}

impl State {
    /// A rotation that begins now.
    #[must_use]
    pub fn begin(requested: Option<String>, now: Timestamp) -> Self {
        // Whole seconds, as everywhere in the Kubernetes API.
        let now = whole_seconds(now);
        Self { stage: Some(Stage::Trust), rolling_back: false, requested, started: now, since: now }
    }

    /// A revocation that was carried out now.
    #[must_use]
    pub fn revoke(requested: Option<String>, now: Timestamp) -> Self {
        Self { stage: Some(Stage::Revoke), ..Self::begin(requested, now) }
    }

    /// The same rotation in another stage from now on; without a stage it is completed.
    #[must_use]
    pub fn in_stage(&self, stage: Option<Stage>, now: Timestamp) -> Self {
        Self { stage, since: whole_seconds(now), ..self.clone() }
    }

    /// The same rotation on its way back, from now on.
    #[must_use]
    pub fn back(&self, stage: Stage, now: Timestamp) -> Self {
        Self { rolling_back: true, ..self.in_stage(Some(stage), now) }
    }

    /// Reads it.
    ///
    /// # Errors
    /// If it is none; nobody but Keyplane writes it.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text)
            .map_err(|error| format!("its annotation {ROTATION_STATE_ANNOTATION} can't be read: {error}"))
    }

    /// As text.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The phase.
    #[must_use]
    pub fn phase(&self) -> RotationPhase {
        self.stage.map_or(RotationPhase::Completed, Stage::phase)
    }
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rotation_comes_to_its_end_also_backwards() {
        for subject in Subject::ALL {
            for back in [None, Some(Stage::Trust), Some(Stage::Signing), Some(Stage::Gate)] {
                let begin = back.map_or(Stage::Trust, |stage| subject.back_from(stage).unwrap());
                let mut stages = vec![begin];
                while let Some(next) = subject.after(*stages.last().unwrap()) {
                    stages.push(next);
                }
                assert_eq!(stages.last(), Some(&Stage::Drop), "{subject:?}");
                assert!(stages.is_sorted(), "{stages:?}");
            }
            for last in [Stage::Drop, Stage::Revoke] {
                assert_eq!((subject.back_from(last), subject.after(last)), (None, None));
            }
        }
    }

    #[test]
    fn a_state_is_read_as_it_was_written_and_nothing_else_is() {
        let state = State::begin(Some("2026".to_owned()), "2026-11-23T12:00:00.5Z".parse().unwrap());
        assert_eq!(State::parse(&state.to_text()), Ok(state.clone()));
        let done = state.in_stage(None, "2026-11-23T13:00:00Z".parse().unwrap());
        assert_eq!(State::parse(&done.to_text()).unwrap().phase(), RotationPhase::Completed);
        assert!(State::parse("Trust").unwrap_err().contains(ROTATION_STATE_ANNOTATION));
    }
}
