//! Composition of the commands: starts the runtime, the log, the controllers and the endpoints.

use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use k8s_controller::LeaderElection;
use k8s_openapi::jiff::Timestamp;
use keyplane_crds::CertificatePolicy;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::Store;
use kube::{Client, Config};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Role, Roles};
use crate::args::{Arguments, CertsCommand, Command, CsrCommand, LogFormat, Mode, RunArguments};
use crate::controllers::management_approver::OwnCluster;
use crate::controllers::sessions::Targets;
use crate::controllers::{Context, agent_access, certificate_policy, cluster_spec, node_pool, user_kubeconfigs};
use crate::metrics::Metrics;
use crate::{expiration, explain, images, render};
use keyplane_client::causes;
use keyplane_client::events::Events;
use keyplane_core::yaml;

/// Time for running reconciliations after a signal. Shorter than a Pod's default termination grace period of 30 s.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(20);

/// The client would log an error for each failed connection to an unavailable target cluster. The session reports that
/// with more detail.
const DEFAULT_LOG_FILTER: &str = "info,kube_runtime=warn,kube_client=warn,kube_client::client::builder=off";

/// Runs a command and returns its exit status. Errors are printed to standard error.
#[must_use]
pub fn main(arguments: Arguments) -> ExitCode {
    // TLS needs one crypto backend before the first connection. An already installed backend is no error.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // In `keyplane certs check-expiration`, the status 1 means that a renewal is due.
    let failure = if matches!(arguments.command, Command::Certs { .. }) { 2 } else { 1 };
    let result = match arguments.command {
        Command::Crds => print(&crds()).map(|()| ExitCode::SUCCESS),
        Command::Render(arguments) => render::render(&arguments, arguments.now.unwrap_or_else(Timestamp::now))
            .map_err(|error| error.to_string())
            .and_then(|done| print(&(done.join("\n") + "\n")))
            .map(|()| ExitCode::SUCCESS),
        Command::Images(arguments) => images::list(&arguments)
            .map_err(|error| error.to_string())
            .and_then(|images| print(&images))
            .map(|()| ExitCode::SUCCESS),
        Command::Run(arguments) => {
            let threads = match arguments.mode {
                Mode::Operator => threads(),
                Mode::Approver => one_thread(),
            };
            threads.and_then(|runtime| runtime.block_on(run(arguments))).map(|()| ExitCode::SUCCESS)
        }
        Command::Node(arguments) => {
            start_log(arguments.log_format);
            one_thread()
                .and_then(|runtime| runtime.block_on(keyplane_agent::run(arguments.options)))
                .map(|()| ExitCode::SUCCESS)
        }
        Command::Certs { command: CertsCommand::CheckExpiration(arguments) } => threads()
            .and_then(|runtime| {
                let checked = runtime.block_on(expiration::check(&arguments, Timestamp::now()));
                checked.map_err(|error| error.to_string())
            })
            .and_then(|checked| print(&checked.text).map(|()| ExitCode::from(u8::from(checked.is_any_due)))),
        Command::Csr { command: CsrCommand::Explain(arguments) } => threads()
            .and_then(|runtime| {
                let explained = runtime.block_on(explain::explain(&arguments, Timestamp::now()));
                explained.map_err(|error| error.to_string())
            })
            .and_then(|explained| print(&explained.text).map(|()| ExitCode::from(explained.status))),
    };
    match result {
        Ok(status) => status,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "keyplane: {message}");
            ExitCode::from(failure)
        }
    }
}

fn threads() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Runtime::new().map_err(|error| format!("starting threads: {error}"))
}

/// The approver mostly waits for the API server: more threads would only pass its few tasks to one another, and each
/// thread needs its own memory.
fn one_thread() -> Result<tokio::runtime::Runtime, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| format!("starting: {error}"))
}

fn print(text: &str) -> Result<(), String> {
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| format!("standard output: {error}"))
}

/// Renders Keyplane's CRDs as YAML documents.
#[must_use]
pub fn crds() -> String {
    let documents: Vec<_> = keyplane_crds::definitions().iter().map(yaml::write_object).collect();
    format!("---\n{}", documents.join("---\n"))
}

async fn run(arguments: RunArguments) -> Result<(), String> {
    start_log(arguments.log_format);
    let identity = identity(arguments.identity.as_deref())?;
    let config = Config::infer().await.map_err(|error| {
        format!("no configuration of the management cluster: {error}; set KUBECONFIG or run in a Pod")
    })?;
    let client = Client::try_from(config.clone()).map_err(|error| format!("configuring the client: {error}"))?;
    // A request for the Lease that is retried for minutes would outlive the Lease.
    let mut lease_config = config;
    lease_config.default_retry = false;
    let lease_client = Client::try_from(lease_config).map_err(|error| format!("configuring the client: {error}"))?;
    let metrics = Metrics::new().map_err(|error| error.to_string())?;
    let roles = Roles::default();
    let listener = listen(arguments.listen).await.map_err(|error| format!("--listen {}: {error}", arguments.listen))?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), identity, listen = %arguments.listen, "keyplane starts");

    let served = CancellationToken::new();
    let admin = tokio::spawn(admin::serve(listener, roles.clone(), metrics.clone(), served.clone()));
    let election = LeaderElection::new(lease_client, &arguments.lease_namespace, &arguments.lease_name, &identity);
    let stop = CancellationToken::new();
    let mut terminated = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let work = async {
        reach(&client, arguments.mode, &roles).await;
        let lead = lead(client.clone(), &arguments, &identity, &metrics, &roles, stop.clone());
        // When the Lease is lost, the controllers are dropped at this await, and the process exits below. No task
        // survives.
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
                // Running reconciliations finish, then the Lease is released. Slow ones are dropped after the timeout.
                let finished = tokio::time::timeout(SHUTDOWN_GRACE, &mut work).await;
                if finished.is_err() {
                    tracing::warn!(seconds = SHUTDOWN_GRACE.as_secs(), "reconciliations were aborted after the grace period");
                    election.release().await;
                }
            }
            Ok(())
        }
    };
    metrics.leading.set(0);
    served.cancel();
    // The last response may be lost without harm.
    let _ = tokio::time::timeout(Duration::from_secs(1), admin).await;
    tracing::info!(ok = result.is_ok(), "keyplane ends");
    result
}

/// Binds the listener. `[::]` means all addresses of both families, or all IPv4 addresses on a kernel without IPv6.
async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(_) if address.ip() == Ipv6Addr::UNSPECIFIED => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

/// Waits until the API server answers and the CRDs are installed: a replica is not ready to lead before that.
async fn reach(client: &Client, mode: Mode, roles: &Roles) {
    let mut failures = 0;
    loop {
        match check_api_server(client, mode).await {
            Ok(version) => {
                tracing::info!(version, "reached the API server");
                roles.set(Role::Standby);
                return;
            }
            Err(problem) => {
                failures += 1;
                tracing::warn!(problem, "not ready");
                tokio::time::sleep(keyplane_client::backoff::delay(failures).min(Duration::from_secs(15))).await;
            }
        }
    }
}

/// Returns the API server's version, if the required CRDs are installed.
async fn check_api_server(client: &Client, mode: Mode) -> Result<String, String> {
    let version = client.apiserver_version().await;
    let version = version.map_err(|error| format!("the API server does not answer: {}", causes(&error)))?;
    let missing = || "Keyplane's CRDs are not installed: keyplane crds | kubectl apply -f -".to_owned();
    let known = match client.list_api_group_resources(&format!("{}/v1alpha1", keyplane_crds::GROUP)).await {
        Ok(known) => known,
        Err(kube::Error::Api(status)) if status.code == 404 => return Err(missing()),
        Err(error) => return Err(format!("discovery of Keyplane's CRDs failed: {}", causes(&error))),
    };
    let needed = |kind: &str| mode == Mode::Operator || kind == "CertificatePolicy";
    let kinds = keyplane_crds::definitions().into_iter().map(|definition| definition.spec.names);
    for plural in kinds.filter(|names| needed(&names.kind)).map(|names| names.plural) {
        if !known.resources.iter().any(|resource| resource.name == plural) {
            return Err(missing());
        }
    }
    Ok(version.git_version)
}

/// Runs the controllers while this replica holds the Lease.
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
    let own_namespace = arguments.policy_namespace.clone().unwrap_or_else(|| arguments.lease_namespace.clone());
    let own_cluster = OwnCluster {
        client: client.clone(),
        namespace: own_namespace.clone(),
        events: events.clone(),
        metrics: metrics.clone(),
    };
    let scope = (arguments.mode == Mode::Approver).then_some(own_namespace.as_str());
    let (policies, certificate_policies) = certificate_policy::controller(client.clone(), arguments.concurrency, scope);
    let policy_state = certificate_policy::State {
        client: client.clone(),
        policies: certificate_policies.clone(),
        own_namespace: own_namespace.clone(),
    };
    let policies = certificate_policy::run(policies, policy_state, stop.clone().cancelled_owned());
    let own_cluster = own_cluster.run(stop.clone());
    match arguments.mode {
        Mode::Approver => {
            Box::pin(futures::future::join(policies, own_cluster)).await;
        }
        Mode::Operator => {
            let clusters = operate(client, arguments.concurrency, events, metrics, certificate_policies, stop.clone());
            Box::pin(futures::future::join3(policies, own_cluster, clusters)).await;
        }
    }
    if stop.is_cancelled() { Ok(()) } else { Err("the controllers stopped unexpectedly".to_owned()) }
}

/// Runs the controllers of ClusterSpecs and NodePools, and the sessions with their target clusters.
async fn operate(
    client: Client,
    concurrency: u16,
    events: Events,
    metrics: &Metrics,
    certificate_policies: Store<DeserializeGuard<CertificatePolicy>>,
    stop: CancellationToken,
) {
    let (trigger, triggers) = mpsc::unbounded_channel();
    let (pool_trigger, pool_triggers) = mpsc::unbounded_channel();
    let targets = Targets::new(client.clone(), trigger, pool_trigger, events.clone(), metrics.clone());
    let targets = Arc::new(targets);
    let (pools, node_pools) = node_pool::controller(client.clone(), concurrency);
    let (watch_issued, issued_kubeconfigs) = user_kubeconfigs::watch(client.clone());
    let (watch_agents, agents) = agent_access::watch(client.clone(), Arc::clone(&targets));
    let context = Context {
        client: client.clone(),
        events,
        metrics: metrics.clone(),
        targets: Arc::clone(&targets),
        node_pools: node_pools.clone(),
        certificate_policies: certificate_policies.clone(),
        issued_kubeconfigs: issued_kubeconfigs.clone(),
        agents: agents.clone(),
    };
    let pool_context = context.clone();
    let clusters = async {
        // A ClusterSpec that is reconciled before the caches of policies and pools are synced could be rejected
        // wrongly.
        let synced = futures::future::join4(
            certificate_policies.wait_until_ready(),
            node_pools.wait_until_ready(),
            issued_kubeconfigs.wait_until_ready(),
            agents.wait_until_ready(),
        );
        if let Some((Ok(()), Ok(()), true, true)) = stop.run_until_cancelled(synced).await {
            cluster_spec::run(context, concurrency, triggers, stop.clone().cancelled_owned()).await;
        }
    };
    let pools = node_pool::run(pools, pool_context, pool_triggers, stop.clone().cancelled_owned());
    let watches = futures::future::join(watch_issued, Box::pin(watch_agents));
    futures::future::join3(pools, stop.run_until_cancelled(watches), clusters).await;
    targets.stop_all();
}

fn identity(configured: Option<&str>) -> Result<String, String> {
    if let Some(configured) = configured.filter(|configured| !configured.is_empty()) {
        return Ok(configured.to_owned());
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut random = [0_u8; 4];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| "the operating system returned no random numbers".to_owned())?;
    Ok(format!("{}_{:08x}", host.trim(), u32::from_be_bytes(random)))
}

fn start_log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(DEFAULT_LOG_FILTER));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An already initialized log is no error.
    let _ = match format {
        LogFormat::Json => log.json().flatten_event(true).try_init(),
        LogFormat::Text => log.try_init(),
    };
}
