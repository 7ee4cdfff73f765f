//! The data of the ConfigMap that publishes a certificate request to an external signer.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ExpectedCertificate;
use crate::pki::{AlternativeName, CaName, ExtendedUsage};

/// The ConfigMap key of the certificate request (PKCS #10, PEM).
pub const REQUEST_KEY: &str = "request.csr";
/// The ConfigMap key of the description for the operator of the signer.
pub const DESCRIPTION_KEY: &str = "description";
/// The ConfigMap key of the name of the CA.
pub const AUTHORITY_KEY: &str = "authority";
/// The ConfigMap key of the usages, separated by commas, with the names of Kubernetes and cert-manager.
pub const USAGES_KEY: &str = "usages";
/// The ConfigMap key of the maximum validity, in the notation of Go and cert-manager.
pub const DURATION_KEY: &str = "duration";
/// The ConfigMap key of the certificate extensions, for `openssl x509 -req -extfile`.
pub const EXTENSIONS_KEY: &str = "extensions.cnf";
/// The ConfigMap key under which the signer writes the certificate (PEM).
pub const ANSWER_KEY: &str = "tls.crt";

/// Returns the ConfigMap data of a certificate request, without the certificate.
#[must_use]
pub fn data(
    description: &str,
    ca: CaName,
    request: &str,
    expected: &ExpectedCertificate<'_>,
) -> BTreeMap<String, String> {
    let usages: Vec<_> =
        KEY_USAGES.into_iter().chain(expected.extended_usages.iter().map(|usage| usage_name(*usage))).collect();
    [
        (REQUEST_KEY, request.to_owned()),
        (DESCRIPTION_KEY, description.to_owned()),
        (AUTHORITY_KEY, ca.name().to_owned()),
        (USAGES_KEY, usages.join(",")),
        (DURATION_KEY, duration(expected.validity)),
        (EXTENSIONS_KEY, extensions(expected)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// The key usages of kubeadm's leaf certificates, which every request has.
pub(super) const KEY_USAGES: [&str; 2] = ["digital signature", "key encipherment"];

/// Returns the name of a usage in the Kubernetes API.
pub(super) const fn usage_name(usage: ExtendedUsage) -> &'static str {
    match usage {
        ExtendedUsage::ServerAuth => "server auth",
        ExtendedUsage::ClientAuth => "client auth",
    }
}

/// Formats hours, minutes and seconds for Go's `time.Duration`, without trailing zero units.
fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (minutes, seconds) {
        (0, 0) => format!("{hours}h"),
        (_, 0) => format!("{hours}h{minutes}m"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// Returns an openssl extension file. openssl by itself takes only the subject and the key from a request, so a signer
/// with openssl needs this file and the request.
fn extensions(expected: &ExpectedCertificate<'_>) -> String {
    let usages: Vec<_> = expected
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
    if !expected.alternative_names.is_empty() {
        let names: Vec<_> = expected
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
    fn formats_durations_without_trailing_zero_units() {
        let text = |seconds| duration(Duration::from_secs(seconds));
        assert_eq!([text(31_536_000), text(5_400), text(90), text(3_600)], ["8760h", "1h30m", "0h1m30s", "1h"]);
    }
}
