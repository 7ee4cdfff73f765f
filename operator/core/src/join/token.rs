//! Bootstrap tokens: their lifecycle and their Secrets.
//!
//! The ID of a token is derived from the pool, so that RBAC can limit Keyplane to these names; only the secret part is
//! random. A pool alternates between two IDs, so a new token does not invalidate the token that a node has just read.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_lc_rs::digest;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as SecretObject;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::keys;

use crate::approval::POOL_GROUP_PREFIX;
use crate::names::{MANAGED_BY, MANAGED_BY_LABEL};
use crate::objects::text;
use crate::pki::SecretText;

/// The namespace of bootstrap tokens.
pub const NAMESPACE: &str = "kube-system";
/// The type of the Secret of a bootstrap token.
pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
/// The group that kubeadm's RBAC rules allow to join.
const KUBEADM_GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";
/// The length of a token ID and of a token secret (`k8s.io/cluster-bootstrap`).
const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;
/// The characters of token IDs and secrets.
const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
/// The allowed difference between the clocks of two hosts.
const CLOCK_SKEW: Duration = Duration::from_mins(1);

/// A bootstrap token: ID and secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token(SecretText);

impl Token {
    /// Creates a token from its parts.
    #[must_use]
    pub fn new(id: &str, secret: &str) -> Self {
        Self(SecretText(format!("{id}.{secret}")))
    }

    /// Creates a token with this ID and a secret from random bytes. `None` if there are too few usable bytes.
    #[must_use]
    pub fn from_random(id: &str, random: &[u8]) -> Option<Self> {
        // Bytes above the last whole multiple would make some characters more frequent.
        let limit = 256 - 256 % ALPHABET.len();
        let good = random.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < limit);
        let secret: String = good.take(SECRET_LENGTH).map(|byte| char::from(ALPHABET[byte % ALPHABET.len()])).collect();
        (secret.len() == SECRET_LENGTH).then(|| Self::new(id, &secret))
    }

    /// The token in the form that a client sends.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0.0
    }
}

/// The additional group of the tokens of one pool.
#[must_use]
pub fn group(pool: &str) -> String {
    format!("{POOL_GROUP_PREFIX}{pool}")
}

/// The two token IDs of a pool.
#[must_use]
pub fn ids(namespace: &str, pool: &str) -> [String; 2] {
    ["0", "1"].map(|slot| {
        let hash = digest::digest(&digest::SHA256, format!("keyplane/{namespace}/{pool}/{slot}").as_bytes());
        hash.as_ref()
            .iter()
            .take(ID_LENGTH)
            .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
            .collect()
    })
}

/// The name of a token's Secret.
#[must_use]
pub fn secret_name(id: &str) -> String {
    format!("bootstrap-token-{id}")
}

/// The parameters of the tokens of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenParameters {
    /// The pool's namespace in the management cluster.
    pub namespace: String,
    /// The name of the pool.
    pub pool: String,
    /// The lifetime of a token.
    pub ttl: Duration,
}

impl TokenParameters {
    /// Builds the Secret of a new token.
    #[must_use]
    pub fn secret(&self, id: &str, token: &Token, now: Timestamp) -> SecretObject {
        let secret = token.text().split_once('.').map_or("", |(_, secret)| secret);
        let mut data = self.data(id);
        data.insert("token-secret", secret.to_owned());
        data.insert("expiration", self.expires(now).to_string());
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        SecretObject {
            metadata: ObjectMeta {
                name: Some(secret_name(id)),
                namespace: Some(NAMESPACE.to_owned()),
                labels: Some([label(MANAGED_BY_LABEL, MANAGED_BY), label(keys::NODE_POOL_LABEL, &self.pool)].into()),
                ..ObjectMeta::default()
            },
            type_: Some(SECRET_TYPE.to_owned()),
            data: Some(data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes()))).collect()),
            ..SecretObject::default()
        }
    }

    /// Returns the expiry of a token that is created now, in whole seconds as in kubeadm.
    #[must_use]
    pub fn expires(&self, now: Timestamp) -> Timestamp {
        let expires = now.checked_add(self.ttl).unwrap_or(Timestamp::MAX).as_second();
        Timestamp::from_second(expires).unwrap_or(Timestamp::MAX)
    }

    /// The data that all tokens of the pool have in common.
    fn data(&self, id: &str) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("token-id", id.to_owned()),
            (
                "description",
                format!("Machines of NodePool {}/{} join with this token of Keyplane.", self.namespace, self.pool),
            ),
            ("auth-extra-groups", format!("{KUBEADM_GROUP},{}", group(&self.pool))),
            ("usage-bootstrap-authentication", "true".to_owned()),
            // So that `kubeadm join` can verify cluster-info with it.
            ("usage-bootstrap-signing", "true".to_owned()),
        ])
    }

    /// Returns the expiry of the Secret if it is a valid token of this pool.
    fn valid_until(&self, id: &str, found: &SecretObject, now: Timestamp) -> Option<Timestamp> {
        let good = found.type_.as_deref() == Some(SECRET_TYPE)
            && self.data(id).iter().all(|(key, value)| text(found, key) == Some(value))
            && text(found, "token-secret").is_some_and(|secret| secret.len() == SECRET_LENGTH);
        let expires: Timestamp = text(found, "expiration")?.parse().ok()?;
        // A token that expires later than a new one was created with a longer tokenTTL.
        let last = now.checked_add(self.ttl + CLOCK_SKEW).ok()?;
        (good && now < expires && expires <= last).then_some(expires)
    }
}

/// The changes to the tokens of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// The IDs of the tokens to delete.
    pub delete: Vec<String>,
    /// The ID of the token to create.
    pub create: Option<String>,
    /// The token to keep, with its expiry.
    pub keep: Option<(Token, Timestamp)>,
    /// The names of Secrets that Keyplane does not manage and that block a token ID.
    pub foreign: Vec<String>,
}

/// Decides about the tokens of a pool. `found` are the Secrets of the pool's two IDs, `needed` is whether a node is
/// missing.
#[must_use]
pub fn decide(
    parameters: &TokenParameters,
    found: &[Option<SecretObject>; 2],
    needed: bool,
    now: Timestamp,
) -> Decision {
    let mut decision = Decision::default();
    let ids = ids(&parameters.namespace, &parameters.pool);
    let mut free = vec![];
    let mut good = vec![];
    for (id, secret) in ids.iter().zip(found) {
        match secret {
            None => free.push(id),
            Some(secret) if !is_ours(secret, &parameters.pool) => decision.foreign.push(secret_name(id)),
            Some(secret) => match parameters.valid_until(id, secret, now) {
                Some(expires) if needed => good.push((expires, id, secret)),
                _ => {
                    decision.delete.push(id.clone());
                    free.push(id);
                }
            },
        }
    }
    if !needed {
        return decision;
    }
    good.sort_by_key(|(expires, ..)| *expires);
    let Some((expires, id, secret)) = good.pop() else {
        decision.create = free.first().map(|id| (*id).clone());
        return decision;
    };
    let half = now.checked_add(parameters.ttl / 2).unwrap_or(Timestamp::MAX);
    if half < expires {
        decision.keep = text(secret, "token-secret").map(|secret| (Token::new(id, secret), expires));
        return decision;
    }
    // Half of the lifetime is over: create a new token, and delete the older one if both IDs are in use.
    if let Some((_, older, _)) = good.pop() {
        decision.delete.push(older.clone());
        free.push(older);
    }
    decision.create = free.first().map(|id| (*id).clone());
    if decision.create.is_none() {
        decision.keep = text(secret, "token-secret").map(|secret| (Token::new(id, secret), expires));
    }
    decision
}

/// Returns whether Keyplane created the token's Secret for the pool.
#[must_use]
pub fn is_ours(secret: &SecretObject, pool: &str) -> bool {
    let is = |label: &str, value: &str| {
        secret.metadata.labels.as_ref().and_then(|labels| labels.get(label)).is_some_and(|found| found == value)
    };
    is(MANAGED_BY_LABEL, MANAGED_BY) && is(keys::NODE_POOL_LABEL, pool)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::SignedDuration;

    fn parameters(hours: u64) -> TokenParameters {
        TokenParameters { namespace: "prod".to_owned(), pool: "workers".to_owned(), ttl: Duration::from_hours(hours) }
    }

    fn noon() -> Timestamp {
        "2026-11-23T12:00:00Z".parse().unwrap()
    }

    fn later(hours: i64) -> Timestamp {
        noon() + SignedDuration::from_hours(hours)
    }

    fn id(slot: usize) -> String {
        ids("prod", "workers")[slot].clone()
    }

    fn created(slot: usize, ttl: u64, at: Timestamp) -> SecretObject {
        parameters(ttl).secret(&id(slot), &Token::new(&id(slot), "0123456789abcdef"), at)
    }

    #[test]
    fn token_ids_are_unique_per_pool_and_valid() {
        let [first, second] = ids("prod", "workers");
        assert_ne!(first, second);
        assert_ne!(ids("prod", "workers"), ids("test", "workers"));
        assert!([first, second].iter().all(|id| id.len() == 6 && id.bytes().all(|b| ALPHABET.contains(&b))));
    }

    #[test]
    fn token_secret_is_uniform_and_not_in_debug_output() {
        assert_eq!(Token::from_random("abcdef", &[255; 64]), None, "bytes above the limit are not used");
        assert_eq!(Token::from_random("abcdef", &[0; 15]), None);
        let token = Token::from_random("abcdef", &[35; 16]).unwrap();
        assert_eq!(token.text(), "abcdef.9999999999999999");
        assert!(!format!("{token:?}").contains("9999"));
    }

    #[test]
    fn token_secret_has_keys_and_groups_of_kubeadm() {
        let secret = created(0, 24, noon());
        let data: Vec<_> = secret.data.iter().flatten().map(|(key, _)| key.as_str()).collect();
        assert_eq!(
            data,
            [
                "auth-extra-groups",
                "description",
                "expiration",
                "token-id",
                "token-secret",
                "usage-bootstrap-authentication",
                "usage-bootstrap-signing"
            ]
        );
        assert_eq!(text(&secret, "expiration"), Some("2026-11-24T12:00:00Z"));
        let groups = "system:bootstrappers:kubeadm:default-node-token,system:bootstrappers:keyplane:workers";
        assert_eq!(text(&secret, "auth-extra-groups"), Some(groups));
    }

    #[test]
    fn creates_token_only_while_a_node_is_missing() {
        assert_eq!(decide(&parameters(24), &[None, None], false, noon()), Decision::default());
        assert_eq!(decide(&parameters(24), &[None, None], true, noon()).create, Some(id(0)));
    }

    #[test]
    fn creates_second_token_after_half_of_the_lifetime() {
        let found = [Some(created(0, 24, noon())), None];
        let kept = decide(&parameters(24), &found, true, later(11));
        assert_eq!((kept.create, kept.keep.unwrap().1), (None, later(24)));
        let renewed = decide(&parameters(24), &found, true, later(12));
        assert_eq!((renewed.create, renewed.delete), (Some(id(1)), vec![]));
        // The newer token is kept, under either ID.
        let both = [Some(created(0, 24, noon())), Some(created(1, 24, later(12)))];
        assert_eq!(decide(&parameters(24), &both, true, later(13)).keep.unwrap().1, later(36));
        // The next renewal deletes the older token, which has expired or is the next to be replaced.
        let renewed = decide(&parameters(24), &both, true, later(24));
        assert_eq!((renewed.create, renewed.delete), (Some(id(0)), vec![id(0)]));
    }

    #[test]
    fn deletes_all_tokens_once_no_node_is_missing() {
        let both = [Some(created(0, 24, noon())), Some(created(1, 24, noon()))];
        let revoked = decide(&parameters(24), &both, false, noon());
        assert_eq!((revoked.delete, revoked.create, revoked.keep), (vec![id(0), id(1)], None, None));
    }

    #[test]
    fn replaces_expired_changed_or_too_long_lived_token() {
        let mut changed = created(0, 24, noon());
        changed
            .data
            .as_mut()
            .unwrap()
            .insert("auth-extra-groups".to_owned(), ByteString(b"system:bootstrappers:x".to_vec()));
        for (what, found, now) in [
            ("ended", created(0, 24, noon()), later(25)),
            ("another group", changed, later(1)),
            ("a shorter tokenTTL", created(0, 48, noon()), later(1)),
        ] {
            let decision = decide(&parameters(24), &[Some(found), None], true, now);
            assert_eq!((decision.delete, decision.create), (vec![id(0)], Some(id(0))), "{what}");
        }
    }

    #[test]
    fn leaves_foreign_secret_unchanged() {
        let mut theirs = created(0, 24, noon());
        theirs.metadata.labels = None;
        for needed in [true, false] {
            let decision = decide(&parameters(24), &[Some(theirs.clone()), None], needed, noon());
            assert_eq!(decision.foreign, [secret_name(&id(0))]);
            assert_eq!((decision.delete, decision.create), (vec![], needed.then(|| id(1))));
        }
        let decision = decide(&parameters(24), &[Some(theirs.clone()), Some(theirs)], true, noon());
        assert_eq!((decision.create, decision.keep, decision.foreign.len()), (None, None, 2));
    }
}
