//! A client of the cluster that a person at a terminal works with.

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is no kubeconfig, and no pod either.
    #[error(transparent)]
    Infer(#[from] kube::config::InferConfigError),
    /// The kubeconfig makes no sense, or has no such context.
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    /// What it says can't be used.
    #[error(transparent)]
    Client(#[from] kube::Error),
}

/// A client of the kubeconfig's current context, or of this one. Its default namespace is the context's.
///
/// # Errors
/// If the kubeconfig can't be used.
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

/// A client of the cluster that the text of a kubeconfig is for.
///
/// # Errors
/// If the text can't be used.
pub async fn connect_by(kubeconfig: &str) -> Result<Client, ConnectError> {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}
