//! Which key has signed the tokens that pods hold, read where their kubelets have put them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::scene::{Scene, lock};
use crate::wait::eventually;

/// Prints every token that the kubelet of a machine has given to pods, a line each. One that goes meanwhile is not missed.
const PRINT: &str = "for token in /var/lib/kubelet/pods/*/volumes/kubernetes.io~projected/*/token; do
  cat \"$token\" 2>/dev/null && echo
done; true";

/// Pods have tokens for an hour and seven seconds, which the kubelet replaces once four fifths of that are over
/// (`pkg/kubelet/token`), and it looks at a pod's volumes every minute or two.
const REPLACED_WITHIN: Duration = Duration::from_mins(55);

/// Waits until the tokens of all pods are signed by the key that signs now.
///
/// # Errors
/// When one is still of another key after the time in which kubelets replace them.
pub fn await_new_ones(scene: &Scene) -> Result<()> {
    eventually("tokens of the new key in all pods", REPLACED_WITHIN, || {
        let wanted = key_id(&scene.target().run(&["create", "token", "default"])?)?;
        for machine in scene.machines() {
            let machine = lock(machine);
            let tokens = machine.run(&["sh", "-c", PRINT])?;
            let keys = tokens.lines().map(key_id).collect::<Result<Vec<_>>>()?;
            ensure!(!keys.is_empty(), "{} has no pod with a token", machine.name());
            let old = keys.iter().filter(|key| **key != wanted).count();
            ensure!(old == 0, "{old} of {} tokens on {} are of the former key", keys.len(), machine.name());
        }
        Ok(())
    })
}

/// The identifier of the key that has signed a token (RFC 7515, `kid`). No token is ever in a message.
fn key_id(token: &str) -> Result<String> {
    let header = token.trim().split('.').next().unwrap_or_default();
    let header = BASE64_URL_SAFE_NO_PAD.decode(header).ok().context("something that is no token")?;
    let header: Value = serde_json::from_slice(&header).ok().context("something that is no token")?;
    Ok(header["kid"].as_str().context("a token that names no key")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_key_and_an_error_shows_none() {
        let token = format!("{}.e30.c2ln", BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","kid":"one"}"#));
        assert_eq!(key_id(&format!("{token}\n")).unwrap(), "one");
        let error = format!("{:#}", key_id("c2VjcmV0.c2VjcmV0").unwrap_err());
        assert!(!error.contains("c2VjcmV0"), "{error}");
    }
}
