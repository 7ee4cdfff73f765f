//! DNS lookups, for policies that require kubelets' DNS names to resolve.

use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

use keyplane_core::approval::{DnsName, Resolved};

/// Time for a DNS lookup. A CSR whose lookups time out waits and is evaluated again.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Resolves all names concurrently.
pub async fn all(names: &[DnsName]) -> Resolved {
    let lookups = names.iter().map(|name| async move { (name.clone(), one(name).await) });
    futures::future::join_all(lookups).await.into_iter().collect()
}

async fn one(name: &DnsName) -> Result<std::collections::BTreeSet<std::net::IpAddr>, String> {
    // The trailing dot disables search domains: those in the resolver's configuration are the Pod's, not the nodes'.
    let absolute = format!("{name}.");
    match timeout(LOOKUP_TIMEOUT, lookup_host((absolute.as_str(), 0))).await {
        Ok(Ok(found)) => Ok(found.map(|address| address.ip().to_canonical()).collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", LOOKUP_TIMEOUT.as_secs())),
    }
}
