//! A client of one etcd member for cluster operations: status and membership.
//!
//! The client is tonic with a few handwritten messages. The crate `etcd-client` would require `protoc` for every build
//! of Keyplane, and has etcd's whole API, of which Keyplane uses a small part.

mod messages;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use keyplane_core::etcd::{Answer, CLIENT_PORT, Listed, client_url};
use messages::{
    IgnoredResponse, MemberAddRequest, MemberListRequest, MemberListResponse, MemberRequest, StatusRequest,
    StatusResponse,
};

/// Time for a connection, and time for an answer. A node that is down does not answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval of keep-alive pings on an idle connection: a node that fails does not close its connections.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Alarms of etcd (`AlarmType` in its API).
const ALARMS: [&str; 2] = ["NOSPACE", "CORRUPT"];

/// The client certificate, and the CA bundle that verifies etcd.
#[derive(Clone)]
pub struct Credentials {
    trust: Certificate,
    identity: Identity,
}

impl Credentials {
    /// Creates credentials from PEM texts.
    #[must_use]
    pub fn new(trust: &str, certificate: &str, key: &str) -> Self {
        Self { trust: Certificate::from_pem(trust), identity: Identity::from_pem(certificate, key) }
    }
}

/// The reason why an etcd request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EtcdError {
    /// A learner has not caught up with the leader yet.
    #[error("the member is not in sync with the leader yet")]
    NotInSync,
    /// etcd rejected the request.
    #[error("etcd rejected the request: {0}")]
    Rejected(String),
    /// etcd did not answer.
    #[error("etcd does not answer: {0}")]
    NoAnswer(String),
}

impl From<Status> for EtcdError {
    fn from(status: Status) -> Self {
        // etcd's own messages begin with its name (`api/v3rpc/rpctypes`). Messages of the connection don't.
        match (status.code(), status.message()) {
            (Code::FailedPrecondition, message) if message.contains("in sync with leader") => Self::NotInSync,
            (_, message) if message.starts_with("etcdserver:") => Self::Rejected(message.to_owned()),
            (code, message) => Self::NoAnswer(format!("{code:?}: {message}")),
        }
    }
}

/// A client of the member at one address. The client connects at its first request.
#[derive(Clone)]
pub struct EtcdClient {
    channel: Channel,
}

impl EtcdClient {
    /// Creates a client of the member at this address.
    ///
    /// # Errors
    /// The credentials can't be used.
    pub fn new(address: IpAddr, credentials: &Credentials) -> Result<Self, EtcdError> {
        let failed = |error: tonic::transport::Error| EtcdError::NoAnswer(keyplane_client::causes(&error));
        let tls = ClientTlsConfig::new()
            .ca_certificate(credentials.trust.clone())
            .identity(credentials.identity.clone())
            // An IPv6 address has brackets in a URL, but not in a certificate.
            .domain_name(address.to_string());
        let endpoint = Endpoint::from_shared(client_url(address)).map_err(failed)?;
        let endpoint = endpoint
            .connect_timeout(REQUEST_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(REQUEST_TIMEOUT)
            .keep_alive_while_idle(true);
        Ok(Self { channel: endpoint.tls_config(tls).map_err(failed)?.connect_lazy() })
    }

    /// Queries the member's status and member list.
    ///
    /// # Errors
    /// The member does not answer.
    pub async fn query(&self) -> Result<Answer, EtcdError> {
        let status: StatusResponse = self.call("/etcdserverpb.Maintenance/Status", StatusRequest {}).await?;
        let header = status.header.unwrap_or_default();
        let (confirmed, members) = if status.is_learner {
            // A learner serves only few requests.
            (false, vec![])
        } else {
            match self.members(true).await {
                Ok(members) => (true, members),
                // Without a quorum, the member still returns its local list.
                Err(_) => (false, self.members(false).await?),
            }
        };
        Ok(Answer {
            cluster_id: header.cluster_id,
            member_id: header.member_id,
            has_leader: status.leader != 0,
            confirmed,
            members,
            alarms: status.errors.iter().filter_map(|error| alarm(error)).collect(),
        })
    }

    async fn members(&self, linearizable: bool) -> Result<Vec<Listed>, EtcdError> {
        let request = MemberListRequest { linearizable };
        let response: MemberListResponse = self.call("/etcdserverpb.Cluster/MemberList", request).await?;
        let listed = response.members.into_iter().map(|member| Listed {
            id: member.id,
            name: member.name,
            peer_urls: member.peer_urls,
            learner: member.is_learner,
        });
        Ok(listed.collect())
    }

    /// Adds a learner.
    ///
    /// # Errors
    /// etcd rejects the request or does not answer.
    pub async fn add_learner(&self, peer_url: String) -> Result<(), EtcdError> {
        let request = MemberAddRequest { peer_urls: vec![peer_url], is_learner: true };
        self.call::<_, IgnoredResponse>("/etcdserverpb.Cluster/MemberAdd", request).await.map(|_| ())
    }

    /// Promotes a learner to voting member.
    ///
    /// # Errors
    /// etcd rejects the request, as it does until the learner is in sync, or does not answer.
    pub async fn promote(&self, id: u64) -> Result<(), EtcdError> {
        self.call::<_, IgnoredResponse>("/etcdserverpb.Cluster/MemberPromote", MemberRequest { id }).await.map(|_| ())
    }

    /// Removes a member.
    ///
    /// # Errors
    /// etcd rejects the request or does not answer.
    pub async fn remove(&self, id: u64) -> Result<(), EtcdError> {
        self.call::<_, IgnoredResponse>("/etcdserverpb.Cluster/MemberRemove", MemberRequest { id }).await.map(|_| ())
    }

    async fn call<Sent, Received>(&self, path: &'static str, message: Sent) -> Result<Received, EtcdError>
    where
        Sent: prost::Message + Default + Send + Sync + 'static,
        Received: prost::Message + Default + Send + Sync + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|error| EtcdError::NoAnswer(keyplane_client::causes(&error)))?;
        let codec: ProstCodec<Sent, Received> = ProstCodec::default();
        let response = grpc.unary(Request::new(message), PathAndQuery::from_static(path), codec).await?;
        Ok(response.into_inner())
    }
}

/// Parses an alarm in a member's list of errors, such as `memberID:9372538179322589801 alarm:NOSPACE`. A request for
/// the list of alarms itself would be a write to etcd's log.
fn alarm(error: &str) -> Option<(u64, &'static str)> {
    let field = |name: &str| error.split_whitespace().find_map(|word| word.strip_prefix(name));
    let alarm = field("alarm:")?;
    Some((field("memberID:")?.parse().ok()?, ALARMS.into_iter().find(|known| *known == alarm)?))
}

/// Returns whether a node is reachable: it accepts or refuses a connection to one of these ports.
pub async fn is_reachable(address: IpAddr) -> bool {
    /// The kubelet's port, and etcd's two ports.
    const PORTS: [u16; 3] = [10250, keyplane_core::etcd::PEER_PORT, CLIENT_PORT];
    let attempts = PORTS.map(|port| async move {
        let connect = tokio::net::TcpStream::connect(SocketAddr::new(address, port));
        match tokio::time::timeout(REQUEST_TIMEOUT, connect).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => error.kind() == std::io::ErrorKind::ConnectionRefused,
            Err(_) => false,
        }
    });
    futures::future::join_all(attempts).await.contains(&true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_alarm_in_member_errors() {
        assert_eq!(alarm("memberID:9372538179322589801 alarm:NOSPACE"), Some((9_372_538_179_322_589_801, "NOSPACE")));
        assert_eq!(alarm("memberID:7  alarm:CORRUPT "), Some((7, "CORRUPT")));
        assert_eq!(alarm("etcdserver: no leader"), None);
    }

    #[test]
    fn distinguishes_rejection_by_etcd_from_connection_error() {
        let not_in_sync = "etcdserver: can only promote a learner member which is in sync with leader";
        assert_eq!(EtcdError::from(Status::failed_precondition(not_in_sync)), EtcdError::NotInSync);
        assert!(matches!(
            EtcdError::from(Status::unavailable("etcdserver: unhealthy cluster")),
            EtcdError::Rejected(_)
        ));
        assert!(matches!(EtcdError::from(Status::unavailable("tcp connect error")), EtcdError::NoAnswer(_)));
    }
}
