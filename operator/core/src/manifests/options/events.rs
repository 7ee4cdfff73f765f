//! `spec.etcd.events`: an etcd of its own for Event objects.

use super::ApiServerOption;
use crate::model::Cluster;

/// The flag that sends one resource's objects to another etcd. The servers are separated by semicolons: a comma would
/// begin another resource.
pub(super) fn option(cluster: &Cluster) -> Option<ApiServerOption> {
    let events = cluster.spec.etcd.events.as_ref()?;
    let value = format!("/events#{}", events.endpoints.join(";"));
    Some(ApiServerOption { arguments: vec![("etcd-servers-overrides", value)], ..ApiServerOption::default() })
}
