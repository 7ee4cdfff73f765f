//! Clients from kubeconfigs, for commands of the CLI.

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

/// The reason why a client can't be created.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither a kubeconfig nor the environment of a Pod was found.
    #[error(transparent)]
    Infer(#[from] kube::config::InferConfigError),
    /// The kubeconfig is invalid, or does not have the context.
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    /// The client can't be configured from the kubeconfig.
    #[error(transparent)]
    Client(#[from] kube::Error),
}

/// Creates a client of the kubeconfig's current context, or of another one. The client's default namespace is that of
/// the context.
///
/// # Errors
/// The kubeconfig can't be used.
pub async fn connect(context: Option<&str>) -> Result<Client, ConnectError> {
    let config = match context {
        Some(context) => {
            let options = KubeConfigOptions { context: Some(context.to_owned()), ..KubeConfigOptions::default() };
            Config::from_kubeconfig(&options).await?
        }
        None => Config::infer().await?,
    };
    Ok(Client::try_from(config)?)
}

/// Creates a client from the text of a kubeconfig.
///
/// # Errors
/// The text can't be used.
pub async fn connect_by(kubeconfig: &str) -> Result<Client, ConnectError> {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}
