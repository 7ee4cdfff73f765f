//! The Secret keys of the peer CA or key during a rotation. The peer is the one that does not sign: the next or
//! previous one.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use keyplane_crds::keys::ROTATION_STATE_ANNOTATION;

use crate::objects;
use crate::rotation::{Stage, State};

/// The keys of the peer in the data of a Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerKeys {
    /// The keys of the certificate and the private key.
    pub pair: (&'static str, &'static str),
    /// The keys of the intermediate CAs and of the root, used only if the peer is not a root CA.
    pub chain: (&'static str, &'static str),
}

/// The keys of the new CA, which does not sign yet.
const NEXT: PeerKeys = PeerKeys { pair: ("next.crt", "next.key"), chain: ("next-chain.crt", "next-root.crt") };
/// The keys of the old CA, which no longer signs.
const PREVIOUS: PeerKeys =
    PeerKeys { pair: ("previous.crt", "previous.key"), chain: ("previous-chain.crt", "previous-root.crt") };

impl PeerKeys {
    /// Returns the keys for a stage.
    #[must_use]
    pub fn of(stage: Option<Stage>) -> Self {
        if stage.is_some_and(|stage| stage < Stage::Signing) { NEXT } else { PREVIOUS }
    }

    /// Returns the keys that a Secret has, or `None` if no rotation is in progress.
    ///
    /// # Errors
    /// If the keys don't match the rotation state.
    pub fn find(secret: &Secret, state: Option<&State>) -> Result<Option<Self>, String> {
        let has = |keys: Self| [keys.pair.0, keys.pair.1].into_iter().find(|key| objects::text(secret, key).is_some());
        let stage = state.and_then(|state| state.stage);
        let expected = Self::of(stage);
        match (has(NEXT), has(PREVIOUS), stage) {
            (None, None, None) => Ok(None),
            (None, None, Some(_)) => {
                Err(format!("rotation is in progress, but the Secret lacks {} or {}", expected.pair.0, expected.pair.1))
            }
            (Some(next), Some(previous), _) => {
                Err(format!("the Secret has both {next} and {previous}, but a rotation needs only one of them"))
            }
            // Without the stage it is unknown which components trust which of the two.
            (Some(key), None, None) | (None, Some(key), None) => {
                Err(format!("the Secret has {key}, but its annotation {ROTATION_STATE_ANNOTATION} has no stage"))
            }
            (Some(key), None, Some(stage)) if expected != NEXT => Err(unfit(key, stage, expected)),
            (None, Some(key), Some(stage)) if expected != PREVIOUS => Err(unfit(key, stage, expected)),
            (_, _, Some(_)) => Ok(Some(expected)),
        }
    }

    /// Moves the peer to these keys from the other ones.
    pub fn move_peer(self, data: &mut BTreeMap<String, String>) {
        let other = if self == NEXT { PREVIOUS } else { NEXT };
        for (from, to) in other.all().into_iter().zip(self.all()) {
            let content = data.remove(from);
            data.extend(content.map(|content| (to.to_owned(), content)));
        }
    }

    /// Removes the peer from the data.
    pub fn clear(data: &mut BTreeMap<String, String>) {
        for key in NEXT.all().into_iter().chain(PREVIOUS.all()) {
            data.remove(key);
        }
    }

    const fn all(self) -> [&'static str; 4] {
        [self.pair.0, self.pair.1, self.chain.0, self.chain.1]
    }
}

fn unfit(key: &str, stage: Stage, expected: PeerKeys) -> String {
    format!("the Secret has {key}, but the rotation stage {} needs {}", stage.name(), expected.pair.1)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn secret(keys: &[&str]) -> Secret {
        let data = keys.iter().map(|key| ((*key).to_owned(), ByteString(b"x".to_vec()))).collect();
        Secret { data: Some(data), ..Secret::default() }
    }

    fn state(stage: Option<Stage>) -> State {
        let now = "2026-11-23T12:00:00Z".parse().unwrap();
        State::begin(Some("2026".to_owned()), now).in_stage(stage, now)
    }

    fn find(keys: &[&str], stage: Option<Stage>) -> Result<Option<PeerKeys>, String> {
        PeerKeys::find(&secret(keys), Some(&state(stage)))
    }

    #[test]
    fn peer_is_next_before_the_swap_and_previous_after_it() {
        for stage in [Stage::Trust, Stage::Clients] {
            assert_eq!(find(&["tls.key", "next.crt", "next.key"], Some(stage)), Ok(Some(NEXT)), "{stage:?}");
        }
        for stage in [Stage::Signing, Stage::Kubelets, Stage::Servers, Stage::Gate, Stage::Drop, Stage::Revoke] {
            assert_eq!(find(&["tls.key", "previous.key"], Some(stage)), Ok(Some(PREVIOUS)), "{stage:?}");
        }
        assert_eq!(find(&["tls.key"], None), Ok(None));
        assert_eq!(PeerKeys::find(&secret(&["tls.key"]), None), Ok(None));
    }

    #[test]
    fn rejects_peer_keys_that_do_not_match_the_stage() {
        for (keys, stage, words) in [
            (&["next.key", "previous.key"][..], Some(Stage::Trust), &["next.key", "previous.key"][..]),
            (&["next.crt", "previous.crt"], Some(Stage::Gate), &["next.crt", "previous.crt"]),
            (&["next.crt", "previous.key"], None, &["next.crt", "previous.key"]),
            (&["previous.crt"], Some(Stage::Clients), &["previous.crt", "Clients", "next.key"]),
            (&["next.key"], Some(Stage::Signing), &["next.key", "Signing", "previous.key"]),
            (&["next.key"], Some(Stage::Revoke), &["next.key", "Revoke", "previous.key"]),
            (&["next.key"], None, &["next.key", ROTATION_STATE_ANNOTATION]),
            (&[], Some(Stage::Trust), &["lacks next.crt or next.key"]),
            (&[], Some(Stage::Drop), &["lacks previous.crt or previous.key"]),
        ] {
            let error = find(keys, stage).unwrap_err();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }

    #[test]
    fn moves_all_keys_of_the_peer() {
        let of = |keys: PeerKeys| keys.all().map(|key| (key.to_owned(), key.replace("previous", "next")));
        let mut data = BTreeMap::from(of(NEXT));
        PREVIOUS.move_peer(&mut data);
        assert_eq!(data, BTreeMap::from(of(PREVIOUS)));
        PREVIOUS.move_peer(&mut data);
        assert_eq!(data, BTreeMap::from(of(PREVIOUS)));
        NEXT.move_peer(&mut data);
        assert_eq!(data, BTreeMap::from(of(NEXT)));
        PeerKeys::clear(&mut data);
        assert!(data.is_empty());
    }
}
