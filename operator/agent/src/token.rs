//! Claims of the agent's own token. Only the API server verifies the token. The agent reads its age.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use keyplane_core::agent_report::CredentialKind;

/// Requested lifetime of a renewed token: a node may be off for a long weekend.
pub const TOKEN_LIFETIME: SignedDuration = SignedDuration::from_hours(168);

/// Claims of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claims {
    issued: Timestamp,
    /// Expiry.
    pub expires: Timestamp,
    /// Whether the token is the bootstrap token, which is bound to a Secret.
    pub kind: CredentialKind,
}

impl Claims {
    /// Parses a token; returns `None` for any other text.
    #[must_use]
    pub fn of(token: &str) -> Option<Self> {
        let payload = token.trim().split('.').nth(1)?;
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        let time = |key: &str| Timestamp::from_second(claims.get(key)?.as_i64()?).ok();
        let is_bound = claims.pointer("/kubernetes.io/secret").is_some();
        let kind = if is_bound { CredentialKind::Bootstrap } else { CredentialKind::Renewed };
        Some(Self { issued: time("iat")?, expires: time("exp")?, kind })
    }

    /// Returns the renewal time: at once for a bootstrap token, else after a third of the lifetime.
    #[must_use]
    pub fn renewal_time(&self) -> Timestamp {
        match self.kind {
            CredentialKind::Bootstrap => self.issued,
            CredentialKind::Renewed => self.issued + self.expires.duration_since(self.issued) / 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyplane_core::kubeconfig::base64;

    fn token(claims: &str) -> String {
        let payload = base64(claims).replace('+', "-").replace('/', "_").replace('=', "");
        format!("e30.{payload}.c2ln\n")
    }

    #[test]
    fn renews_bootstrap_token_at_once_and_others_after_a_third() {
        let bound = token(r#"{"iat":1000,"exp":4600,"kubernetes.io":{"secret":{"name":"s?>~"}}}"#);
        let claims = Claims::of(&bound).unwrap();
        assert_eq!((claims.kind, claims.renewal_time().as_second()), (CredentialKind::Bootstrap, 1000));
        let own = token(r#"{"iat":1000,"exp":4600,"kubernetes.io":{"serviceaccount":{"name":"s"}}}"#);
        let claims = Claims::of(&own).unwrap();
        assert_eq!((claims.kind, claims.renewal_time().as_second()), (CredentialKind::Renewed, 2200));
        assert_eq!(claims.expires.as_second(), 4600);
    }

    #[test]
    fn text_that_is_no_token_has_no_claims() {
        for text in ["", "a.b.c", "e30", "e30.e30.e30"] {
            assert_eq!(Claims::of(text), None, "{text}");
        }
    }
}
