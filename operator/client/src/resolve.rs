//! Looks up DNS names, for policies that want kubelets' names to resolve.

use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

use keyplane_core::approval::{DnsName, Resolved};

/// How long the names of one request may take. A request that is not done by then waits and is tried again.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Looks all of them up.
pub async fn all(names: &[DnsName]) -> Resolved {
    let lookups = names.iter().map(|name| async move { (name.clone(), one(name).await) });
    futures::future::join_all(lookups).await.into_iter().collect()
}

async fn one(name: &DnsName) -> Result<std::collections::BTreeSet<std::net::IpAddr>, String> {
    // The dot keeps the resolver's search domains out: they are those of the Pod, not of the cluster's machines.
    let absolute = format!("{name}.");
    match timeout(LOOKUP_TIMEOUT, lookup_host((absolute.as_str(), 0))).await {
        Ok(Ok(found)) => Ok(found.map(|address| address.ip().to_canonical()).collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", LOOKUP_TIMEOUT.as_secs())),
    }
}
