//! The agent's own credential: a token of its ServiceAccount, which it renews itself.

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::config::AuthInfo;
use kube::{Api, Client, Config};

use super::files::Root;
use super::index::MachineFile;
use super::token::{Claims, LIFETIME};
use keyplane_client::causes;
use keyplane_core::agent_access::settings::Settings;
use keyplane_core::names;

/// A token as it is on the machine.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    text: String,
    /// What it says of itself.
    pub claims: Claims,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({:?})", self.claims)
    }
}

impl Token {
    /// Reads it.
    ///
    /// # Errors
    /// If there is none.
    pub fn read(settings: &Settings, root: &Root) -> Result<Self, String> {
        let path = &settings.token;
        let text = root.read(path).map_err(|error| format!("{path}: {error}"))?;
        let told = || format!("{path} has no token: carry the machine's bootstrap Secret to it");
        let text = String::from_utf8(text.ok_or_else(told)?).map_err(|_| told())?.trim().to_owned();
        let claims = Claims::of(&text).ok_or_else(told)?;
        Ok(Self { text, claims })
    }

    /// A client with it.
    ///
    /// # Errors
    /// If the settings make none.
    pub fn client(&self, settings: &Settings, root: &Root) -> Result<Client, String> {
        let server = &settings.management_server;
        let uri = server.parse().map_err(|error| format!("managementServer {server:?}: {error}"))?;
        let path = &settings.certificate_authority;
        let bundle = root.read(path).map_err(|error| format!("{path}: {error}"))?;
        let bundle = bundle.ok_or_else(|| format!("{path} is missing: carry the machine's bootstrap Secret to it"))?;
        let blocks = pem::parse_many(bundle).map_err(|_| format!("{path} is no PEM"))?;
        let certificates = blocks.into_iter().filter(|block| block.tag() == "CERTIFICATE");
        let mut config = Config::new(uri);
        config.default_namespace.clone_from(&settings.namespace);
        config.root_cert = Some(certificates.map(pem::Pem::into_contents).collect());
        config.auth_info = AuthInfo { token: Some(self.text.clone().into()), ..AuthInfo::default() };
        config.connect_timeout = Some(std::time::Duration::from_secs(10));
        Client::try_from(config).map_err(|error| format!("the client: {}", causes(&error)))
    }
}

/// Asks for a new token and puts it in the place of the one before, which stays good until it ends.
///
/// # Errors
/// If there is none to be had, or it can't be stored.
pub async fn renew(client: Client, settings: &Settings, root: &Root) -> Result<(), String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client, &settings.namespace);
    let account = names::agent_service_account(&settings.cluster, &settings.node);
    let spec = TokenRequestSpec { expiration_seconds: Some(LIFETIME.as_secs()), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let answer = accounts.create_token_request(&account, &PostParams::default(), &request).await;
    let answer = answer.map_err(|error| format!("asking for a new token: {}", causes(&error)))?;
    let token = answer.status.and_then(|status| status.token).unwrap_or_default();
    if Claims::of(&token).is_none() {
        return Err("the management cluster has sent no token".to_owned());
    }
    let (user, group) = ("root".to_owned(), "root".to_owned());
    let file = MachineFile { path: settings.token.clone(), mode: 0o600, user, group, content: token.into_bytes() };
    root.write(&file).map_err(|error| format!("{}: {error}", settings.token))
}
