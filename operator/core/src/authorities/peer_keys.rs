//! The names under which the Secret of a CA or key holds the peer of the one that signs, while a rotation is in progress.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use keyplane_crds::keys::ROTATION_STATE_ANNOTATION;

use crate::objects;
use crate::rotation::{Stage, State};

/// The keys in a Secret's data for the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerKeys {
    /// The keys for the certificate and the private key.
    pub pair: (&'static str, &'static str),
    /// The keys for the CAs above it and for the root, if it is not a root itself.
    pub above: (&'static str, &'static str),
}

/// The keys for the successor, which does not sign yet.
const NEXT: PeerKeys = PeerKeys { pair: ("next.crt", "next.key"), above: ("next-chain.crt", "next-root.crt") };
/// The keys for the predecessor, which does not sign any more.
const PREVIOUS: PeerKeys =
    PeerKeys { pair: ("previous.crt", "previous.key"), above: ("previous-chain.crt", "previous-root.crt") };

impl PeerKeys {
    /// The keys that fit a stage.
    pub fn of(stage: Option<Stage>) -> Self {
        if stage.is_some_and(|stage| stage < Stage::Signing) { NEXT } else { PREVIOUS }
    }

    /// The keys that a Secret has; nothing if no rotation is in progress.
    ///
    /// # Errors
    /// When the keys don't fit the state of the rotation.
    pub fn find(secret: &Secret, state: Option<&State>) -> Result<Option<Self>, String> {
        let has = |keys: Self| [keys.pair.0, keys.pair.1].into_iter().find(|key| objects::text(secret, key).is_some());
        let stage = state.and_then(|state| state.stage);
        let expected = Self::of(stage);
        match (has(NEXT), has(PREVIOUS), stage) {
            (None, None, None) => Ok(None),
            (None, None, Some(_)) => {
                Err(format!("it is being rotated, and lacks {} or {}", expected.pair.0, expected.pair.1))
            }
            (Some(next), Some(previous), _) => {
                Err(format!("it has {next} and {previous}, and a rotation has only one of them"))
            }
            // Without its stage nobody knows which of the two is trusted where.
            (Some(key), None, None) | (None, Some(key), None) => {
                Err(format!("it has {key}, and its annotation {ROTATION_STATE_ANNOTATION} names no stage"))
            }
            (Some(key), None, Some(stage)) if expected != NEXT => Err(unfit(key, stage, expected)),
            (None, Some(key), Some(stage)) if expected != PREVIOUS => Err(unfit(key, stage, expected)),
            (_, _, Some(_)) => Ok(Some(expected)),
        }
    }

    /// Puts the peer under these keys, whichever it has in the data now.
    pub fn take_over(self, data: &mut BTreeMap<String, String>) {
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
        [self.pair.0, self.pair.1, self.above.0, self.above.1]
    }
}

fn unfit(key: &str, stage: Stage, expected: PeerKeys) -> String {
    format!("it has {key}, and the stage {} of its rotation has {}", stage.name(), expected.pair.1)
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
    fn the_peer_is_next_until_it_signs_and_previous_from_then_on() {
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
    fn refuses_peer_keys_that_do_not_fit_the_stage() {
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
    fn the_peer_moves_with_all_that_belongs_to_it() {
        let of = |keys: PeerKeys| keys.all().map(|key| (key.to_owned(), key.replace("previous", "next")));
        let mut data = BTreeMap::from(of(NEXT));
        PREVIOUS.take_over(&mut data);
        assert_eq!(data, BTreeMap::from(of(PREVIOUS)));
        PREVIOUS.take_over(&mut data);
        assert_eq!(data, BTreeMap::from(of(PREVIOUS)));
        NEXT.take_over(&mut data);
        assert_eq!(data, BTreeMap::from(of(NEXT)));
        PeerKeys::clear(&mut data);
        assert!(data.is_empty());
    }
}
