//! Validation of `spec.nodeAgent`: the connection of the agents to the management cluster.

use http::Uri;
use keyplane_crds::ClusterSpecSpec;

use super::FieldError;
use crate::pki::certificates_in;

/// Refuses the same settings as admission.
pub(super) fn refuse(spec: &ClusterSpecSpec) -> Result<(), FieldError> {
    let Some(agent) = &spec.node_agent else { return Ok(()) };
    let uri = agent.management_server.parse::<Uri>().ok();
    let is_https = uri.is_some_and(|uri| uri.scheme_str() == Some("https") && uri.host().is_some());
    if !is_https {
        let message = format!(
            "{:?} is not the URL of an API server: write https:// with a host and a port, for example \
             https://management.example:6443",
            agent.management_server
        );
        return Err(FieldError::new("spec.nodeAgent.managementServer", message));
    }
    let Some(bundle) = &agent.certificate_authority else { return Ok(()) };
    certificates_in("it", bundle).map(drop).map_err(|_| {
        let message = "must be certificates in PEM format and nothing else: the bundle is distributed to every node";
        FieldError::new("spec.nodeAgent.certificateAuthority", message)
    })
}
