//! What a signer is told: the content of the ConfigMap that asks for a certificate.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Asked;
use crate::pki::AuthorityName;
use crate::pki::{AlternativeName, ExtendedUsage};

/// The request (PKCS #10, PEM).
pub const REQUEST_KEY: &str = "request.csr";
/// What the request is for, for people.
pub const DESCRIPTION_KEY: &str = "description";
/// The authority that is to sign it.
pub const AUTHORITY_KEY: &str = "authority";
/// What the certificate is to be for: Kubernetes' and cert-manager's names, with commas between.
pub const USAGES_KEY: &str = "usages";
/// How long it is to be valid at most, as Go and cert-manager write it.
pub const DURATION_KEY: &str = "duration";
/// The extensions of the certificate, for `openssl x509 -req -extfile`.
pub const EXTENSIONS_KEY: &str = "extensions.cnf";
/// Where the signer puts the certificate (PEM).
pub const ANSWER_KEY: &str = "tls.crt";

/// What a signer is asked for, but for the answer.
#[must_use]
pub fn data(description: &str, authority: AuthorityName, request: &str, asked: &Asked<'_>) -> BTreeMap<String, String> {
    let usages: Vec<_> =
        KEY_USAGES.into_iter().chain(asked.extended_usages.iter().map(|usage| usage_name(*usage))).collect();
    [
        (REQUEST_KEY, request.to_owned()),
        (DESCRIPTION_KEY, description.to_owned()),
        (AUTHORITY_KEY, authority.name().to_owned()),
        (USAGES_KEY, usages.join(",")),
        (DURATION_KEY, duration(asked.validity)),
        (EXTENSIONS_KEY, extensions(asked)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// The key usages of kubeadm's leaves, which every request asks for.
pub(super) const KEY_USAGES: [&str; 2] = ["digital signature", "key encipherment"];

/// Kubernetes' name.
pub(super) const fn usage_name(usage: ExtendedUsage) -> &'static str {
    match usage {
        ExtendedUsage::ServerAuth => "server auth",
        ExtendedUsage::ClientAuth => "client auth",
    }
}

/// Hours, minutes and seconds, as Go's `time.Duration` reads them; those that are none at the end are left out.
fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (minutes, seconds) {
        (0, 0) => format!("{hours}h"),
        (_, 0) => format!("{hours}h{minutes}m"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// A person with openssl needs no more than this and the request: openssl takes nothing from a request by itself but the
/// subject and the key.
fn extensions(asked: &Asked<'_>) -> String {
    let usages: Vec<_> = asked
        .extended_usages
        .iter()
        .map(|usage| match usage {
            ExtendedUsage::ServerAuth => "serverAuth",
            ExtendedUsage::ClientAuth => "clientAuth",
        })
        .collect();
    let mut text = format!(
        "basicConstraints = critical, CA:FALSE\nkeyUsage = critical, digitalSignature, keyEncipherment\n\
         extendedKeyUsage = {}\nauthorityKeyIdentifier = keyid\n",
        usages.join(", ")
    );
    if !asked.alternative_names.is_empty() {
        let names: Vec<_> = asked
            .alternative_names
            .iter()
            .map(|name| match name {
                AlternativeName::Dns(name) => format!("DNS:{name}"),
                AlternativeName::Ip(address) => format!("IP:{address}"),
            })
            .collect();
        text = format!("{text}subjectAltName = {}\n", names.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_written_as_short_as_go_reads_it() {
        let text = |seconds| duration(Duration::from_secs(seconds));
        assert_eq!([text(31_536_000), text(5_400), text(90), text(3_600)], ["8760h", "1h30m", "0h1m30s", "1h"]);
    }
}
