//! The agent's credential: a token of its ServiceAccount, which the agent renews itself.

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::config::AuthInfo;
use kube::{Api, Client, Config};

use super::files::Root;
use super::index::NodeFile;
use super::token::{Claims, TOKEN_LIFETIME};
use keyplane_client::causes;
use keyplane_core::agent_access::settings::Settings;
use keyplane_core::names;

/// The token stored on the node.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    text: String,
    /// The token's claims.
    pub claims: Claims,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({:?})", self.claims)
    }
}

impl Token {
    /// Reads the token file.
    ///
    /// # Errors
    /// The file is missing or contains no token.
    pub fn read(settings: &Settings, root: &Root) -> Result<Self, String> {
        let path = &settings.token;
        let text = root.read(path).map_err(|error| format!("{path}: {error}"))?;
        let no_token = || format!("{path} has no token: copy the files of the node's bootstrap Secret to the node");
        let text = String::from_utf8(text.ok_or_else(no_token)?).map_err(|_| no_token())?.trim().to_owned();
        let claims = Claims::of(&text).ok_or_else(no_token)?;
        Ok(Self { text, claims })
    }

    /// Creates a client of the management cluster with the token.
    ///
    /// # Errors
    /// A setting is invalid, or the CA bundle is missing.
    pub fn client(&self, settings: &Settings, root: &Root) -> Result<Client, String> {
        let server = &settings.management_server;
        let uri = server.parse().map_err(|error| format!("managementServer {server:?}: {error}"))?;
        let path = &settings.certificate_authority;
        let bundle = root.read(path).map_err(|error| format!("{path}: {error}"))?;
        let bundle = bundle
            .ok_or_else(|| format!("{path} is missing: copy the files of the node's bootstrap Secret to the node"))?;
        let blocks = pem::parse_many(bundle).map_err(|_| format!("{path} is not PEM"))?;
        let certificates = blocks.into_iter().filter(|block| block.tag() == "CERTIFICATE");
        let mut config = Config::new(uri);
        config.default_namespace.clone_from(&settings.namespace);
        config.root_cert = Some(certificates.map(pem::Pem::into_contents).collect());
        config.auth_info = AuthInfo { token: Some(self.text.clone().into()), ..AuthInfo::default() };
        config.connect_timeout = Some(std::time::Duration::from_secs(10));
        Client::try_from(config).map_err(|error| format!("configuring the client: {}", causes(&error)))
    }
}

/// Requests a new token and replaces the stored one, which stays valid until it expires.
///
/// # Errors
/// The request fails, or the token can't be stored.
pub async fn renew(client: Client, settings: &Settings, root: &Root) -> Result<(), String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client, &settings.namespace);
    let account = names::agent_service_account(&settings.cluster, &settings.node);
    let spec = TokenRequestSpec { expiration_seconds: Some(TOKEN_LIFETIME.as_secs()), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let answer = accounts.create_token_request(&account, &PostParams::default(), &request).await;
    let answer = answer.map_err(|error| format!("requesting a new token: {}", causes(&error)))?;
    let token = answer.status.and_then(|status| status.token).unwrap_or_default();
    if Claims::of(&token).is_none() {
        return Err("the management cluster returned no token".to_owned());
    }
    let (user, group) = ("root".to_owned(), "root".to_owned());
    let file = NodeFile { path: settings.token.clone(), mode: 0o600, user, group, content: token.into_bytes() };
    root.write(&file).map_err(|error| format!("{}: {error}", settings.token))
}
