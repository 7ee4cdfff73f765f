//! The one place that knows everything: what each command is made of.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use k8s_controller::LeaderElection;
use k8s_openapi::jiff::Timestamp;
use kube::{Client, Config};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Role, Roles};
use crate::args::{Arguments, Command, LogFormat, RunArguments};
use crate::controllers::target::Targets;
use crate::controllers::{Context, certificate_policy, cluster_spec, issued, node_pool};
use crate::kube::causes;
use crate::kube::events::Events;
use crate::metrics::Metrics;
use crate::{render, yaml};

/// How long work under way may take after a signal. Below the 30 s that Kubernetes gives a Pod by default.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(20);

/// Every failed connection to a target that is down would be an error of the client; the session says it better.
const DEFAULT_LOG_FILTER: &str = "info,kube_runtime=warn,kube_client=warn,kube_client::client::builder=off";

/// Runs a command to its end. Errors go to standard error, with exit status 1.
#[must_use]
pub fn main(arguments: Arguments) -> ExitCode {
    // One crypto backend for TLS, before the first connection; that it is installed already is no error.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let result = match arguments.command {
        Command::Crds => print(&crds()),
        Command::Render(arguments) => render::render(&arguments, arguments.now.unwrap_or_else(Timestamp::now))
            .map_err(|error| error.to_string())
            .and_then(|done| print(&(done.join("\n") + "\n"))),
        Command::Run(arguments) => tokio::runtime::Runtime::new()
            .map_err(|error| format!("starting threads: {error}"))
            .and_then(|runtime| runtime.block_on(run(arguments))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "keyplane: {message}");
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> Result<(), String> {
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| format!("standard output: {error}"))
}

/// The definitions of the three kinds, as YAML documents.
#[must_use]
pub fn crds() -> String {
    let documents: Vec<_> = keyplane_crds::definitions().iter().map(yaml::write_object).collect();
    format!("---\n{}", documents.join("---\n"))
}

async fn run(arguments: RunArguments) -> Result<(), String> {
    start_log(arguments.log_format);
    let identity = identity(arguments.identity.as_deref())?;
    let config = Config::infer().await.map_err(|error| format!("no cluster to work in: {error}"))?;
    let client = Client::try_from(config.clone()).map_err(|error| format!("no client: {error}"))?;
    // A lease request that is repeated for minutes would outlive the lease.
    let mut lease_config = config;
    lease_config.default_retry = false;
    let lease_client = Client::try_from(lease_config).map_err(|error| format!("no client: {error}"))?;
    let metrics = Metrics::new().map_err(|error| error.to_string())?;
    let roles = Roles::default();
    let listener =
        TcpListener::bind(arguments.listen).await.map_err(|error| format!("--listen {}: {error}", arguments.listen))?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), identity, listen = %arguments.listen, "keyplane starts");

    let served = CancellationToken::new();
    let admin = tokio::spawn(admin::serve(listener, roles.clone(), metrics.clone(), served.clone()));
    let election = LeaderElection::new(lease_client, &arguments.lease_namespace, &arguments.lease_name, &identity);
    let stop = CancellationToken::new();
    let mut terminated = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let work = async {
        reach(&client, &roles).await;
        let lead = lead(client.clone(), &arguments, &identity, &metrics, &roles, stop.clone());
        // Work that is handed a lost lease is dropped here, and the process ends below: no task outlives it.
        Box::pin(election.with_lease(lead)).await
    };
    tokio::pin!(work);
    let signalled = async {
        tokio::select! { _ = terminated.recv() => {}, _ = interrupted.recv() => {} }
    };
    let result = tokio::select! {
        outcome = &mut work => match outcome {
            Some(result) => result,
            None => Err(format!("lost the Lease {}/{}", arguments.lease_namespace, arguments.lease_name)),
        },
        () = signalled => {
            tracing::info!("shutting down");
            roles.set(Role::Stopping);
            stop.cancel();
            if metrics.leading.get() == 1 {
                // The work ends by itself and the lease is released after it; what takes too long is dropped.
                let finished = tokio::time::timeout(SHUTDOWN_GRACE, &mut work).await;
                if finished.is_err() {
                    tracing::warn!("work under way was broken off");
                    election.release().await;
                }
            }
            Ok(())
        }
    };
    metrics.leading.set(0);
    served.cancel();
    // Whether the last answer got out matters to nobody.
    let _ = tokio::time::timeout(Duration::from_secs(1), admin).await;
    tracing::info!(ok = result.is_ok(), "keyplane ends");
    result
}

/// Waits until the API server answers and knows the kinds: a replica without them is not ready to take over.
async fn reach(client: &Client, roles: &Roles) {
    let mut failures = 0;
    loop {
        match greet(client).await {
            Ok(version) => {
                tracing::info!(version, "reached the API server");
                roles.set(Role::Standby);
                return;
            }
            Err(problem) => {
                failures += 1;
                tracing::warn!(problem, "not ready");
                tokio::time::sleep(crate::kube::backoff::delay(failures).min(Duration::from_secs(15))).await;
            }
        }
    }
}

/// The API server's version, if it knows Keyplane's kinds.
async fn greet(client: &Client) -> Result<String, String> {
    let version = client.apiserver_version().await;
    let version = version.map_err(|error| format!("the API server does not answer: {}", causes(&error)))?;
    let missing = || "Keyplane's kinds are not installed: keyplane crds | kubectl apply -f -".to_owned();
    let known = match client.list_api_group_resources(&format!("{}/v1alpha1", keyplane_crds::GROUP)).await {
        Ok(known) => known,
        Err(kube::Error::Api(status)) if status.code == 404 => return Err(missing()),
        Err(error) => return Err(format!("the API server does not tell its kinds: {}", causes(&error))),
    };
    let kinds = keyplane_crds::definitions().into_iter().map(|definition| definition.spec.names.plural);
    for plural in kinds {
        if !known.resources.iter().any(|resource| resource.name == plural) {
            return Err(missing());
        }
    }
    Ok(version.git_version)
}

/// The controllers, under the lease.
async fn lead(
    client: Client,
    arguments: &RunArguments,
    identity: &str,
    metrics: &Metrics,
    roles: &Roles,
    stop: CancellationToken,
) -> Result<(), String> {
    roles.set(Role::Leading);
    metrics.leading.set(1);
    let events = Events::new(client.clone(), identity);
    let (trigger, triggers) = mpsc::unbounded_channel();
    let (pool_trigger, pool_triggers) = mpsc::unbounded_channel();
    let targets = Targets::new(client.clone(), trigger, pool_trigger, events.clone(), metrics.clone());
    let targets = Arc::new(targets);
    let (policies, certificate_policies) = certificate_policy::controller(client.clone(), arguments.concurrency);
    let (pools, node_pools) = node_pool::controller(client.clone(), arguments.concurrency);
    let (watch_issued, issued_kubeconfigs) = issued::watch(client.clone());
    let context = Context {
        client: client.clone(),
        events,
        metrics: metrics.clone(),
        targets: Arc::clone(&targets),
        node_pools: node_pools.clone(),
        certificate_policies: certificate_policies.clone(),
        issued_kubeconfigs: issued_kubeconfigs.clone(),
    };
    let of_pools = context.clone();
    let clusters = async {
        // A ClusterSpec that is worked on before its policy and pools are known would be refused or judged wrongly.
        let known = futures::future::join3(
            certificate_policies.wait_until_ready(),
            node_pools.wait_until_ready(),
            issued_kubeconfigs.wait_until_ready(),
        );
        if let Some((Ok(()), Ok(()), true)) = stop.run_until_cancelled(known).await {
            cluster_spec::run(context, arguments.concurrency, triggers, stop.clone().cancelled_owned()).await;
        }
    };
    futures::future::join4(
        certificate_policy::run(policies, client.clone(), stop.clone().cancelled_owned()),
        node_pool::run(pools, of_pools, pool_triggers, stop.clone().cancelled_owned()),
        stop.run_until_cancelled(watch_issued),
        clusters,
    )
    .await;
    targets.stop_all();
    if stop.is_cancelled() { Ok(()) } else { Err("the controllers ended without being asked to".to_owned()) }
}

fn identity(given: Option<&str>) -> Result<String, String> {
    if let Some(given) = given.filter(|given| !given.is_empty()) {
        return Ok(given.to_owned());
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut random = [0_u8; 4];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| "the system gave no random numbers".to_owned())?;
    Ok(format!("{}_{:08x}", host.trim(), u32::from_be_bytes(random)))
}

fn start_log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(DEFAULT_LOG_FILTER));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // That a log is there already is no error.
    let _ = match format {
        LogFormat::Json => log.json().flatten_event(true).try_init(),
        LogFormat::Text => log.try_init(),
    };
}
