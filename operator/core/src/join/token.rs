//! Bootstrap tokens: when there is one, and what it says.
//!
//! A token's id is derived from the pool, so that Keyplane's rights in the target can be limited to these names; only
//! its secret is random. A pool has two ids in turn: a new token does not take the old one away from a machine that has
//! just read it.

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

/// Where tokens are.
pub const NAMESPACE: &str = "kube-system";
/// The type of a token's Secret.
pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
/// The group to which kubeadm's rules give what a joining kubelet needs.
const KUBEADM_GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";
/// Length of an id and of a secret (`k8s.io/cluster-bootstrap`).
const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;
/// What both are made of.
const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
/// Clocks of two machines differ a little.
const SKEW: Duration = Duration::from_mins(1);

/// A token: id and secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token(SecretText);

impl Token {
    /// A token from its parts.
    #[must_use]
    pub fn new(id: &str, secret: &str) -> Self {
        Self(SecretText(format!("{id}.{secret}")))
    }

    /// A token of this id whose secret is made of random bytes; nothing if they are too few.
    #[must_use]
    pub fn from_random(id: &str, random: &[u8]) -> Option<Self> {
        // Bytes above the last whole multiple would make some letters more frequent.
        let limit = 256 - 256 % ALPHABET.len();
        let good = random.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < limit);
        let secret: String = good.take(SECRET_LENGTH).map(|byte| char::from(ALPHABET[byte % ALPHABET.len()])).collect();
        (secret.len() == SECRET_LENGTH).then(|| Self::new(id, &secret))
    }

    /// The token as a client sends it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0.0
    }
}

/// The group of the tokens of one pool, beside kubeadm's.
#[must_use]
pub fn group(pool: &str) -> String {
    format!("{POOL_GROUP_PREFIX}{pool}")
}

/// The two ids of a pool.
#[must_use]
pub fn ids(namespace: &str, pool: &str) -> [String; 2] {
    ["0", "1"].map(|turn| {
        let hash = digest::digest(&digest::SHA256, format!("keyplane/{namespace}/{pool}/{turn}").as_bytes());
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

/// What a pool's tokens say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The pool's namespace in the management cluster.
    pub namespace: String,
    /// The pool.
    pub pool: String,
    /// How long one lives.
    pub ttl: Duration,
}

impl Terms {
    /// The Secret of a new token.
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

    /// When a token that is made now ends: to the second, as kubeadm writes it.
    #[must_use]
    pub fn expires(&self, now: Timestamp) -> Timestamp {
        let expires = now.checked_add(self.ttl).unwrap_or(Timestamp::MAX).as_second();
        Timestamp::from_second(expires).unwrap_or(Timestamp::MAX)
    }

    /// What all tokens of the pool say alike.
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

    /// When the Secret ends as a token of this pool; nothing if it is none, or says something else than it should.
    fn good_until(&self, id: &str, found: &SecretObject, now: Timestamp) -> Option<Timestamp> {
        let good = found.type_.as_deref() == Some(SECRET_TYPE)
            && self.data(id).iter().all(|(key, value)| text(found, key) == Some(value))
            && text(found, "token-secret").is_some_and(|secret| secret.len() == SECRET_LENGTH);
        let ends: Timestamp = text(found, "expiration")?.parse().ok()?;
        // One that lives longer than a new one would was made for a longer tokenTTL.
        let last = now.checked_add(self.ttl + SKEW).ok()?;
        (good && now < ends && ends <= last).then_some(ends)
    }
}

/// What to do about a pool's tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Secrets to delete, by id.
    pub delete: Vec<String>,
    /// The id of the token to make.
    pub create: Option<String>,
    /// The token that stays, and its end.
    pub keep: Option<(Token, Timestamp)>,
    /// Secrets of somebody else, by name: nothing can be done while they are there.
    pub foreign: Vec<String>,
}

/// Decides. `found` are the Secrets under the pool's two ids, `needed` is whether a machine is missing.
#[must_use]
pub fn decide(terms: &Terms, found: &[Option<SecretObject>; 2], needed: bool, now: Timestamp) -> Decision {
    let mut decision = Decision::default();
    let ids = ids(&terms.namespace, &terms.pool);
    let mut free = vec![];
    let mut good = vec![];
    for (id, secret) in ids.iter().zip(found) {
        match secret {
            None => free.push(id),
            Some(secret) if !is_ours(secret, &terms.pool) => decision.foreign.push(secret_name(id)),
            Some(secret) => match terms.good_until(id, secret, now) {
                Some(ends) if needed => good.push((ends, id, secret)),
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
    good.sort_by_key(|(ends, ..)| *ends);
    let Some((ends, id, secret)) = good.pop() else {
        decision.create = free.first().map(|id| (*id).clone());
        return decision;
    };
    let half = now.checked_add(terms.ttl / 2).unwrap_or(Timestamp::MAX);
    if half < ends {
        decision.keep = text(secret, "token-secret").map(|secret| (Token::new(id, secret), ends));
        return decision;
    }
    // Half of its life is over. The one before it, if it is still there, makes room.
    if let Some((_, older, _)) = good.pop() {
        decision.delete.push(older.clone());
        free.push(older);
    }
    decision.create = free.first().map(|id| (*id).clone());
    if decision.create.is_none() {
        decision.keep = text(secret, "token-secret").map(|secret| (Token::new(id, secret), ends));
    }
    decision
}

/// Whether a token's Secret was made by Keyplane for the pool.
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

    fn terms(hours: u64) -> Terms {
        Terms { namespace: "prod".to_owned(), pool: "workers".to_owned(), ttl: Duration::from_hours(hours) }
    }

    fn noon() -> Timestamp {
        "2026-11-23T12:00:00Z".parse().unwrap()
    }

    fn later(hours: i64) -> Timestamp {
        noon() + SignedDuration::from_hours(hours)
    }

    fn id(turn: usize) -> String {
        ids("prod", "workers")[turn].clone()
    }

    fn made(turn: usize, ttl: u64, at: Timestamp) -> SecretObject {
        terms(ttl).secret(&id(turn), &Token::new(&id(turn), "0123456789abcdef"), at)
    }

    #[test]
    fn an_id_belongs_to_one_pool_and_has_the_form_that_kubernetes_wants() {
        let [first, second] = ids("prod", "workers");
        assert_ne!(first, second);
        assert_ne!(ids("prod", "workers"), ids("test", "workers"));
        assert!([first, second].iter().all(|id| id.len() == 6 && id.bytes().all(|b| ALPHABET.contains(&b))));
    }

    #[test]
    fn a_secret_is_made_of_random_bytes_without_favourites_and_never_shown() {
        assert_eq!(Token::from_random("abcdef", &[255; 64]), None, "bytes above the limit are not used");
        assert_eq!(Token::from_random("abcdef", &[0; 15]), None);
        let token = Token::from_random("abcdef", &[35; 16]).unwrap();
        assert_eq!(token.text(), "abcdef.9999999999999999");
        assert!(!format!("{token:?}").contains("9999"));
    }

    #[test]
    fn a_token_says_what_kubernetes_and_kubeadm_look_for() {
        let secret = made(0, 24, noon());
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
    fn a_token_is_made_when_a_machine_is_missing_and_not_before() {
        assert_eq!(decide(&terms(24), &[None, None], false, noon()), Decision::default());
        assert_eq!(decide(&terms(24), &[None, None], true, noon()).create, Some(id(0)));
    }

    #[test]
    fn a_token_stays_for_the_first_half_of_its_life_and_then_another_is_made_beside_it() {
        let found = [Some(made(0, 24, noon())), None];
        let kept = decide(&terms(24), &found, true, later(11));
        assert_eq!((kept.create, kept.keep.unwrap().1), (None, later(24)));
        let renewed = decide(&terms(24), &found, true, later(12));
        assert_eq!((renewed.create, renewed.delete), (Some(id(1)), vec![]));
        // The younger one counts, wherever it is.
        let both = [Some(made(0, 24, noon())), Some(made(1, 24, later(12)))];
        assert_eq!(decide(&terms(24), &both, true, later(13)).keep.unwrap().1, later(36));
        // The next time the old one makes room: it has ended by then, or its turn has come.
        let renewed = decide(&terms(24), &both, true, later(24));
        assert_eq!((renewed.create, renewed.delete), (Some(id(0)), vec![id(0)]));
    }

    #[test]
    fn all_tokens_are_revoked_once_no_machine_is_missing() {
        let both = [Some(made(0, 24, noon())), Some(made(1, 24, noon()))];
        let revoked = decide(&terms(24), &both, false, noon());
        assert_eq!((revoked.delete, revoked.create, revoked.keep), (vec![id(0), id(1)], None, None));
    }

    #[test]
    fn a_token_that_ended_or_says_something_else_or_lives_too_long_is_replaced() {
        let mut changed = made(0, 24, noon());
        changed
            .data
            .as_mut()
            .unwrap()
            .insert("auth-extra-groups".to_owned(), ByteString(b"system:bootstrappers:x".to_vec()));
        for (what, found, now) in [
            ("ended", made(0, 24, noon()), later(25)),
            ("another group", changed, later(1)),
            ("a shorter tokenTTL", made(0, 48, noon()), later(1)),
        ] {
            let decision = decide(&terms(24), &[Some(found), None], true, now);
            assert_eq!((decision.delete, decision.create), (vec![id(0)], Some(id(0))), "{what}");
        }
    }

    #[test]
    fn a_secret_of_somebody_else_is_left_alone() {
        let mut theirs = made(0, 24, noon());
        theirs.metadata.labels = None;
        for needed in [true, false] {
            let decision = decide(&terms(24), &[Some(theirs.clone()), None], needed, noon());
            assert_eq!(decision.foreign, [secret_name(&id(0))]);
            assert_eq!((decision.delete, decision.create), (vec![], needed.then(|| id(1))));
        }
        let decision = decide(&terms(24), &[Some(theirs.clone()), Some(theirs)], true, noon());
        assert_eq!((decision.create, decision.keep, decision.foreign.len()), (None, None, 2));
    }
}
