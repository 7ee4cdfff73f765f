//! A client of one etcd member, for what concerns its cluster: status, members, leader.
//!
//! It is tonic with the dozen messages written down by hand. The crate `etcd-client` would need `protoc` wherever
//! Keyplane is built, and brings etcd's whole API, of which this is a small part.

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
    Anything, MemberAddRequest, MemberListRequest, MemberListResponse, MemberRequest, MoveLeaderRequest, StatusRequest,
    StatusResponse,
};

/// How long a connection, and how long an answer may take. A machine that is down answers nothing.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often a connection that nothing goes through is tried: a machine that dies says no farewell.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Alarms that etcd raises (`AlarmType` in its API).
const ALARMS: [&str; 2] = ["NOSPACE", "CORRUPT"];

/// With what a client proves itself, and verifies etcd.
#[derive(Clone)]
pub struct Credentials {
    trust: Certificate,
    identity: Identity,
}

impl Credentials {
    /// From PEM texts.
    #[must_use]
    pub fn new(trust: &str, certificate: &str, key: &str) -> Self {
        Self { trust: Certificate::from_pem(trust), identity: Identity::from_pem(certificate, key) }
    }
}

/// Why etcd did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EtcdError {
    /// A learner has not caught up with the leader yet.
    #[error("the member is not in sync with the leader yet")]
    NotInSync,
    /// etcd refused.
    #[error("etcd refused: {0}")]
    Refused(String),
    /// There was no answer.
    #[error("etcd does not answer: {0}")]
    NoAnswer(String),
}

impl From<Status> for EtcdError {
    fn from(status: Status) -> Self {
        // etcd's own words begin with its name (`api/v3rpc/rpctypes`); what the connection says does not.
        match (status.code(), status.message()) {
            (Code::FailedPrecondition, message) if message.contains("in sync with leader") => Self::NotInSync,
            (_, message) if message.starts_with("etcdserver:") => Self::Refused(message.to_owned()),
            (code, message) => Self::NoAnswer(format!("{code:?}: {message}")),
        }
    }
}

/// A client of the member at one address. It connects when it is first used.
#[derive(Clone)]
pub struct EtcdClient {
    channel: Channel,
}

impl EtcdClient {
    /// A client of the member at this address.
    ///
    /// # Errors
    /// If the credentials can't be used.
    pub fn new(address: IpAddr, credentials: &Credentials) -> Result<Self, EtcdError> {
        let failed = |error: tonic::transport::Error| EtcdError::NoAnswer(keyplane_client::causes(&error));
        let tls = ClientTlsConfig::new()
            .ca_certificate(credentials.trust.clone())
            .identity(credentials.identity.clone())
            // An IPv6 address has brackets in a URL and none in a certificate.
            .domain_name(address.to_string());
        let endpoint = Endpoint::from_shared(client_url(address)).map_err(failed)?;
        let endpoint = endpoint
            .connect_timeout(TIMEOUT)
            .timeout(TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(TIMEOUT)
            .keep_alive_while_idle(true);
        Ok(Self { channel: endpoint.tls_config(tls).map_err(failed)?.connect_lazy() })
    }

    /// What the member says of itself and of its cluster.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn ask(&self) -> Result<Answer, EtcdError> {
        let status: StatusResponse = self.call("/etcdserverpb.Maintenance/Status", StatusRequest {}).await?;
        let header = status.header.unwrap_or_default();
        let (confirmed, members) = if status.is_learner {
            // etcd lets a learner answer next to nothing.
            (false, vec![])
        } else {
            match self.members(true).await {
                Ok(members) => (true, members),
                // Without a majority it still says what it remembers.
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

    /// Adds a member without a vote.
    ///
    /// # Errors
    /// If etcd refuses.
    pub async fn add_learner(&self, peer_url: String) -> Result<(), EtcdError> {
        let request = MemberAddRequest { peer_urls: vec![peer_url], is_learner: true };
        self.call::<_, Anything>("/etcdserverpb.Cluster/MemberAdd", request).await.map(|_| ())
    }

    /// Gives a learner its vote.
    ///
    /// # Errors
    /// If etcd refuses, as it does until the learner is in sync.
    pub async fn promote(&self, id: u64) -> Result<(), EtcdError> {
        self.call::<_, Anything>("/etcdserverpb.Cluster/MemberPromote", MemberRequest { id }).await.map(|_| ())
    }

    /// Removes a member.
    ///
    /// # Errors
    /// If etcd refuses.
    pub async fn remove(&self, id: u64) -> Result<(), EtcdError> {
        self.call::<_, Anything>("/etcdserverpb.Cluster/MemberRemove", MemberRequest { id }).await.map(|_| ())
    }

    /// Makes another member the leader. Only the leader does it: ask that one.
    ///
    /// # Errors
    /// If etcd refuses.
    pub async fn move_leader(&self, target_id: u64) -> Result<(), EtcdError> {
        let request = MoveLeaderRequest { target_id };
        self.call::<_, Anything>("/etcdserverpb.Maintenance/MoveLeader", request).await.map(|_| ())
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

/// An alarm in a member's list of errors, such as `memberID:9372538179322589801 alarm:NOSPACE`. The list of alarms
/// itself can only be had by a write to etcd's log.
fn alarm(error: &str) -> Option<(u64, &'static str)> {
    let field = |name: &str| error.split_whitespace().find_map(|word| word.strip_prefix(name));
    let alarm = field("alarm:")?;
    Some((field("memberID:")?.parse().ok()?, ALARMS.into_iter().find(|known| *known == alarm)?))
}

/// Whether a machine gives a sign of life: it accepts or refuses a connection to one of these ports.
pub async fn gives_a_sign_of_life(address: IpAddr) -> bool {
    /// The kubelet's, and etcd's two.
    const PORTS: [u16; 3] = [10250, keyplane_core::etcd::PEER_PORT, CLIENT_PORT];
    let knocks = PORTS.map(|port| async move {
        let knock = tokio::net::TcpStream::connect(SocketAddr::new(address, port));
        match tokio::time::timeout(TIMEOUT, knock).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => error.kind() == std::io::ErrorKind::ConnectionRefused,
            Err(_) => false,
        }
    });
    futures::future::join_all(knocks).await.contains(&true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_read_from_a_members_errors() {
        assert_eq!(alarm("memberID:9372538179322589801 alarm:NOSPACE"), Some((9_372_538_179_322_589_801, "NOSPACE")));
        assert_eq!(alarm("memberID:7  alarm:CORRUPT "), Some((7, "CORRUPT")));
        assert_eq!(alarm("etcdserver: no leader"), None);
    }

    #[test]
    fn what_etcd_refuses_is_told_from_what_never_arrived() {
        let not_in_sync = "etcdserver: can only promote a learner member which is in sync with leader";
        assert_eq!(EtcdError::from(Status::failed_precondition(not_in_sync)), EtcdError::NotInSync);
        assert!(matches!(EtcdError::from(Status::unavailable("etcdserver: unhealthy cluster")), EtcdError::Refused(_)));
        assert!(matches!(EtcdError::from(Status::unavailable("tcp connect error")), EtcdError::NoAnswer(_)));
    }
}
