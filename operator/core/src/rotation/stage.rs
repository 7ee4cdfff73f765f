//! The stages and the state of a rotation.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use keyplane_crds::RotationPhase;
use keyplane_crds::keys::ROTATION_STATE_ANNOTATION;
use serde::{Deserialize, Serialize};

use crate::pki::CaName;

/// The time after which every Pod has a token signed with the new key. A Pod's token is valid for an hour and seven
/// seconds (`WarnOnlyBoundTokenExpirationSeconds`), and the kubelet renews it at 80 % of that
/// (`pkg/kubelet/token/token_manager.go`).
const POD_TOKEN_RENEWAL_TIME: SignedDuration = SignedDuration::from_mins(65);

/// The CA or key that is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A CA.
    CertificateAuthority(CaName),
    /// The key that signs service-account tokens.
    ServiceAccountKey,
}

impl Subject {
    /// All subjects.
    pub const ALL: [Self; 4] = [
        Self::CertificateAuthority(CaName::Cluster),
        Self::CertificateAuthority(CaName::Etcd),
        Self::CertificateAuthority(CaName::FrontProxy),
        Self::ServiceAccountKey,
    ];

    /// Returns the name in `status.rotations`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CertificateAuthority(ca) => ca.name(),
            Self::ServiceAccountKey => "service-account-key",
        }
    }

    /// Returns the next stage; `None` after the last.
    #[must_use]
    pub const fn after(self, stage: Stage) -> Option<Stage> {
        let is_key = matches!(self, Self::ServiceAccountKey);
        match stage {
            // A key has no certificates to reissue.
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

    /// Returns the time from which a rotation in the stage Gate may complete without approval by the user.
    #[must_use]
    pub fn settles(self, state: &State) -> Timestamp {
        match self {
            Self::CertificateAuthority(_) => state.since,
            Self::ServiceAccountKey => state.since.checked_add(POD_TOKEN_RENEWAL_TIME).unwrap_or(Timestamp::MAX),
        }
    }

    /// Returns the stage in which a rollback from this stage starts; `None` while the old CA or key is being removed.
    ///
    /// A rollback is a rotation from the new CA to the old one, which every server still trusts. The first stage
    /// depends on which of the two signs certificates at that time.
    #[must_use]
    pub const fn back_from(self, stage: Stage) -> Option<Stage> {
        match (self, stage) {
            (Self::ServiceAccountKey, Stage::Trust) => Some(Stage::Drop),
            (Self::ServiceAccountKey, Stage::Signing | Stage::Gate)
            | (Self::CertificateAuthority(_), Stage::Trust | Stage::Clients) => Some(Stage::Signing),
            (Self::CertificateAuthority(_), Stage::Signing | Stage::Kubelets | Stage::Servers | Stage::Gate) => {
                Some(Stage::Clients)
            }
            (_, _) => None,
        }
    }
}

/// The stages of a rotation, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// Every server trusts the new CA or key in addition to the old one.
    Trust,
    /// Client certificates are issued by the new CA.
    Clients,
    /// The controller-manager signs with the new CA; service-account tokens are signed with the new key.
    Signing,
    /// Kubelets get certificates of the new CA.
    Kubelets,
    /// Server certificates are issued by the new CA, and their chain includes the cross-signed certificate of the new
    /// CA.
    Servers,
    /// The approval gate: clients that Keyplane can't observe may still depend on the old CA or key.
    Gate,
    /// The old CA or key is removed.
    Drop,
    /// The old CA or key was revoked: it is removed at once, regardless of dependent clients.
    Revoke,
}

impl Stage {
    /// Returns the name in `status.rotations`.
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

    /// Returns the phase that contains the stage.
    #[must_use]
    pub const fn phase(self) -> RotationPhase {
        match self {
            Self::Trust | Self::Clients | Self::Signing | Self::Kubelets | Self::Servers => RotationPhase::Preparing,
            Self::Gate => RotationPhase::Prepared,
            Self::Drop | Self::Revoke => RotationPhase::Completing,
        }
    }
}

/// The state of a rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The stage; `None` after completion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// Whether the rotation is rolling back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rolling_back: bool,
    /// The value of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<String>,
    /// The start time.
    pub started: Timestamp,
    /// The start time of the stage, or the time of completion.
    pub since: Timestamp,
}

impl State {
    /// Returns the state of a rotation that starts now.
    #[must_use]
    pub fn begin(requested: Option<String>, now: Timestamp) -> Self {
        // Whole seconds, as everywhere in the Kubernetes API.
        let now = whole_seconds(now);
        Self { stage: Some(Stage::Trust), rolling_back: false, requested, started: now, since: now }
    }

    /// Returns the state of a revocation that is executed now.
    #[must_use]
    pub fn revoke(requested: Option<String>, now: Timestamp) -> Self {
        Self { stage: Some(Stage::Revoke), ..Self::begin(requested, now) }
    }

    /// Returns the state after entering another stage now; without a stage the rotation is completed.
    #[must_use]
    pub fn in_stage(&self, stage: Option<Stage>, now: Timestamp) -> Self {
        Self { stage, since: whole_seconds(now), ..self.clone() }
    }

    /// Returns the state after the start of a rollback.
    #[must_use]
    pub fn back(&self, stage: Stage, now: Timestamp) -> Self {
        Self { rolling_back: true, ..self.in_stage(Some(stage), now) }
    }

    /// Parses the annotation.
    ///
    /// # Errors
    /// Returns a message if the text is invalid. Only Keyplane writes the annotation.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text)
            .map_err(|error| format!("its annotation {ROTATION_STATE_ANNOTATION} can't be read: {error}"))
    }

    /// Returns the value of the annotation.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Returns the phase.
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
    fn every_rotation_and_every_rollback_reaches_drop() {
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
    fn state_round_trips_and_rejects_invalid_text() {
        let state = State::begin(Some("2026".to_owned()), "2026-11-23T12:00:00.5Z".parse().unwrap());
        assert_eq!(State::parse(&state.to_text()), Ok(state.clone()));
        let done = state.in_stage(None, "2026-11-23T13:00:00Z".parse().unwrap());
        assert_eq!(State::parse(&done.to_text()).unwrap().phase(), RotationPhase::Completed);
        assert!(State::parse("Trust").unwrap_err().contains(ROTATION_STATE_ANNOTATION));
    }
}
