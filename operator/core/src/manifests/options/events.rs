//! The option `spec.etcd.events`: a separate etcd for Event objects.

use super::ApiServerOption;
use crate::model::Cluster;

/// Returns the flag that stores Events in another etcd. Semicolons separate the servers; a comma would start another
/// resource.
pub(super) fn option(cluster: &Cluster) -> Option<ApiServerOption> {
    let events = cluster.spec.etcd.events.as_ref()?;
    let value = format!("/events#{}", events.endpoints.join(";"));
    Some(ApiServerOption { arguments: vec![("etcd-servers-overrides", value)], ..ApiServerOption::default() })
}
