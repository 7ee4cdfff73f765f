//! A load that never fails: clients of every kind that a cluster has, which go on while everything under them is renewed,
//! each with its own count of requests and failures, by phase.
//!
//! What counts as a failure is what a user of the real client sees. So a client here does again what its kind does again
//! by itself, and the table counts that apart (`AGAIN`): Go's `net/http` sends a GET anew when the connection that it
//! reused is closed before the answer, and client-go heeds `Retry-After`. Nothing is done again on a connection that is
//! new. Every client connects anew in each phase, with what the cluster's owner has at that moment, so that no old
//! connection hides that a new one would be refused.

mod api;
mod asking;
pub mod connection;
pub mod kubeconfig;
pub mod tally;

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::runtime::{Builder, Runtime};

use self::kubeconfig::OwnersKubeconfig;
pub use self::tally::Tally;
use crate::kubectl::Kubectl;
use crate::rotation_lab::Scene;

/// All clients, at work until they are stopped.
pub struct Load {
    tally: Tally,
    runtime: Runtime,
}

impl Load {
    /// Starts the clients on a scene that is up, in the phase `phase`.
    ///
    /// # Errors
    /// When something that they need can't be made.
    pub fn start(scene: &Scene, phase: &str) -> Result<Self> {
        let tally = Tally::begin(phase);
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().context("no threads")?;
        let file = scene.target().kubeconfig().to_owned();
        let kubeconfig = runtime.block_on(async {
            let management = client(scene.admin()).await?;
            OwnersKubeconfig::read(management, scene.cluster(), file).await
        })?;
        runtime.spawn(kubeconfig.clone().follow());
        for _ in 0..api::CLIENTS {
            runtime.spawn(api::run(kubeconfig.clone(), tally.clone()));
        }
        Ok(Self { tally, runtime })
    }

    /// The counts.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// From now on it is another phase: all clients connect anew.
    pub fn phase(&self, name: &str) {
        self.tally.phase(name);
    }

    /// Ends all clients, and gives back what they counted.
    #[must_use]
    pub fn stop(self) -> Tally {
        self.runtime.shutdown_background();
        self.tally
    }
}

/// A client in this process with the kubeconfig of `kubectl`.
///
/// # Errors
/// When the kubeconfig can't be used.
pub async fn client(kubectl: &Kubectl) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubectl.kubeconfig())?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}
