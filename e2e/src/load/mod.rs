//! A load that never fails: clients of every kind that a cluster has, which go on while everything under them is renewed,
//! each with its own count of requests and failures, by phase.
//!
//! What counts as a failure is what a user of the real client sees. So a client here does again what its kind does again
//! by itself, and the table counts that apart (`AGAIN`): client-go sends a GET anew whose connection ends before the
//! answer, and heeds `Retry-After`. A connection that can't be made, a refusal and a write without an answer are
//! failures. Every client connects anew in each phase, with what the cluster's owner has at that moment, so that no old
//! connection hides that a new one would be refused.

mod aggregated;
mod api;
mod asking;
mod beat;
mod cluster;
pub mod connection;
pub mod credentials;
mod etcd;
mod in_cluster;
pub mod kubeconfig;
mod spared;
mod spoken;
mod streams;
pub mod tally;
mod watch;
pub mod workload;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex;
use tokio::time::timeout;

use self::in_cluster::Reader;
use self::kubeconfig::OwnersKubeconfig;
use self::spared::Spared;
pub use self::tally::Tally;
use crate::kubectl::Kubectl;
use crate::scene::{Scene, SharedMachine};

/// How long the logs of pods may take to be read for the last time: a cluster that is broken never lets anybody.
const LAST_READING: Duration = Duration::from_mins(1);

/// All clients, at work until they are stopped or dropped.
pub struct Load {
    subject: Subject,
    threads: Vec<JoinHandle<()>>,
    pods: Arc<Mutex<Reader>>,
    runtime: Option<Runtime>,
}

/// What the clients that are threads know.
#[derive(Clone)]
struct Subject {
    tally: Tally,
    lab: String,
    /// kubectl as the cluster's owner; its file is kept up to date.
    target: Kubectl,
    control_plane: Vec<SharedMachine>,
    spared: Spared,
    over: Arc<AtomicBool>,
}

impl Subject {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

impl Load {
    /// The names of all clients, as the table has them.
    pub const CLIENTS: [&str; 10] = [
        api::CLIENT,
        beat::CLIENT,
        watch::CLIENT,
        in_cluster::CLIENT,
        aggregated::CLIENT,
        streams::EXEC,
        streams::LOGS,
        etcd::CLIENT,
        cluster::HEARTBEATS,
        cluster::PODS,
    ];

    /// Puts what it needs into the cluster of a scene that is up, and starts the clients, in the phase `phase`.
    ///
    /// # Errors
    /// When something that they need can't be made.
    pub fn start(scene: &Scene, phase: &str) -> Result<Self> {
        let pods = workload::start(scene.target(), scene.machines().count())?;
        let tally = Tally::begin(phase);
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().context("no threads")?;
        let file = scene.target().kubeconfig().to_owned();
        let kubeconfig = runtime.block_on(async {
            let management = scene.admin().client().await?;
            OwnersKubeconfig::read(management, scene.cluster(), file).await
        })?;
        runtime.spawn(kubeconfig.clone().follow());
        for _ in 0..api::CLIENTS {
            runtime.spawn(api::run(kubeconfig.clone(), tally.clone()));
        }
        runtime.spawn(beat::run(kubeconfig.clone(), tally.clone()));
        runtime.spawn(aggregated::run(kubeconfig.clone(), tally.clone()));
        let spared = Spared::default();
        runtime.spawn(cluster::run(kubeconfig.clone(), tally.clone(), spared.clone()));
        let reader = Arc::new(Mutex::new(Reader::new(kubeconfig, &tally, pods.clone(), spared.clone())));
        runtime.spawn(in_cluster::run(Arc::clone(&reader)));

        let subject = Subject {
            tally,
            lab: scene.lab().id().to_owned(),
            target: scene.target().clone(),
            control_plane: scene.control_plane().to_vec(),
            spared,
            over: Arc::default(),
        };
        let mut load = Self { subject, threads: vec![], pods: reader, runtime: Some(runtime) };
        load.thread(watch::run);
        load.thread(etcd::run);
        for kind in [streams::Kind::Exec, streams::Kind::Logs] {
            let pods = pods.clone();
            load.thread(move |subject| streams::run(kind, subject, &pods));
        }
        Ok(load)
    }

    fn thread(&mut self, run: impl FnOnce(&Subject) + Send + 'static) {
        let subject = self.subject.clone();
        self.threads.push(thread::spawn(move || run(&subject)));
    }

    /// The counts.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.subject.tally
    }

    /// How many pods of workloads were restarted or replaced.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.tally().total_of(cluster::PODS).failed
    }

    /// From now on it is another phase: all clients connect anew.
    pub fn phase(&self, name: &str) {
        self.subject.tally.phase(name);
    }

    /// From now on nothing is expected of this machine and of what is on it.
    pub fn spare(&self, machine: &str) {
        self.subject.spared.set(machine, true);
    }

    /// From now on everything is expected of this machine again.
    pub fn expect_again(&self, machine: &str) {
        self.subject.spared.set(machine, false);
    }

    /// Ends all clients, and gives back what they counted.
    #[must_use]
    pub fn stop(mut self) -> Tally {
        self.tally().end();
        if let Some(runtime) = &self.runtime {
            let finish = async { timeout(LAST_READING, async { self.pods.lock().await.finish().await }).await };
            if runtime.block_on(finish).is_err() {
                self.tally().failed(in_cluster::CLIENT, "what they have counted last can't be read");
            }
        }
        self.end();
        self.subject.tally.clone()
    }

    fn end(&mut self) {
        self.subject.over.store(true, Ordering::Relaxed);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}
