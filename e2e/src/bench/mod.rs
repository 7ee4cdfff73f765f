//! How fast kubelets' requests are approved, and what that costs: Keyplane with all its checks, a raw client that looks
//! at nothing, and an approver in Go, in turn, on the same API server and the same requests.
//!
//! It is no test: what a computer that also does other things takes is a figure, not a verdict.

mod approver;
mod cluster;
mod observer;
pub mod raw;
mod report;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::Runtime;
use tokio::time::{Instant, interval, sleep, timeout};

use self::approver::{Approver, usage};
use self::cluster::Cluster;
use self::observer::{Observer, Sight};
pub use self::report::Report;
use self::report::{Figures, Latencies};
use crate::lab::Lab;
use crate::management::Management;
use crate::parts::Parts;
use crate::process::Process;
use crate::{installation, interrupt};

/// How long the API server is left alone before an approver starts: what filling it has left to do is then done.
const SETTLE: Duration = Duration::from_secs(3);

/// How long after the last approval the processor time is read: Events and the like that come late count too.
const AFTERMATH: Duration = Duration::from_secs(1);

/// An approver that has approved nothing for so long is given up.
const PATIENCE: Duration = Duration::from_mins(2);

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many Nodes there are, each with one pending request.
    pub nodes: u16,
    /// How often each approver is measured; the report has the medians.
    pub rounds: u16,
    /// How many requests come after the others are approved.
    pub live: u16,
    /// How many of these come in a second.
    pub live_rate: u16,
    /// The program of an approver in Go that finds its cluster in `KUBECONFIG`; nothing means the lab's own.
    pub go_approver: Option<PathBuf>,
    /// Which approvers take part; nothing means all.
    pub only: Vec<String>,
}

/// Measures, telling each step.
///
/// # Errors
/// When something does not start, an approver does not approve everything, or this process was interrupted.
pub fn run(options: &Options, step: &dyn Fn(&str)) -> Result<Report> {
    let parts = Parts::build()?;
    let go_approver = match &options.go_approver {
        Some(program) => program.clone(),
        None => parts.on_request("go-approver")?.join("go-approver"),
    };
    let approvers = [Approver::Keyplane, Approver::Raw, Approver::Go(go_approver)];
    let wanted =
        |approver: &&Approver| options.only.is_empty() || options.only.iter().any(|name| name == approver.name());
    let approvers: Vec<&Approver> = approvers.iter().filter(wanted).collect();
    let runtime = Runtime::new().context("cannot start threads")?;

    step("starting etcd and an API server");
    let lab = Lab::start()?;
    let management = Management::start_api_server_only(&lab)?;
    installation::install_kinds(&management)?;
    let user = management.add_user("approver")?;
    let mut bench = Bench {
        cluster: runtime.block_on(Cluster::connect(management.admin(), options.nodes))?,
        kubeconfig: user.kubeconfig().to_owned(),
        lab,
        management,
        options: options.clone(),
    };
    bench.management.kubectl_apply(&cluster::policy(options.nodes))?;
    step(&format!("making {} Nodes", options.nodes));
    runtime.block_on(bench.cluster.make_nodes())?;
    let mut report = Report::new(options);
    for round in 0..options.rounds {
        // Who comes first finds a colder API server.
        let mut order = approvers.clone();
        if round % 2 == 1 {
            order.reverse();
        }
        for approver in order {
            step(&format!(
                "round {} of {}: {} requests for {}",
                round + 1,
                options.rounds,
                options.nodes,
                approver.name()
            ));
            let figures = runtime.block_on(bench.measure(approver, round))?;
            step(&format!("    {figures}"));
            report.add(approver.name(), figures);
        }
    }
    bench.lab.end()?;
    Ok(report)
}

struct Bench {
    cluster: Cluster,
    kubeconfig: PathBuf,
    lab: Lab,
    management: Management,
    options: Options,
}

impl Bench {
    async fn measure(&mut self, approver: &Approver, round: u16) -> Result<Figures> {
        self.cluster.remove_requests().await?;
        let prefix = format!("{}-{round}", approver.name());
        self.cluster.make_requests(&prefix).await?;
        sleep(SETTLE).await;
        let mut observer = Observer::start(self.cluster.client()).await?;
        let server = self.management.api_server_pid();
        let before = usage(server)?;
        let start = Instant::now();
        let log = self.lab.site().log(&prefix);
        let mut command = approver.command(&self.kubeconfig, round)?;
        let mut process = Process::start(&prefix, self.lab.id(), &mut command, log)?;

        let approved = approvals(&mut observer, &mut process, usize::from(self.options.nodes)).await?;
        sleep(AFTERMATH).await;
        let drained = usage(process.pid())?;
        let server_cpu = usage(server)?.cpu.saturating_sub(before.cpu);
        let (first, last) = (approved.values().min().copied(), approved.values().max().copied());
        let live = self.live(&mut observer, &mut process, &prefix).await?;
        let all = usage(process.pid())?;
        process.stop(Duration::from_secs(30))?;
        Ok(Figures {
            first: first.unwrap_or(start) - start,
            drain: last.unwrap_or(start) - start,
            requests: self.options.nodes,
            cpu: drained.cpu,
            server_cpu,
            peak_kib: all.peak_kib,
            live,
        })
    }

    /// Requests that come one by one.
    async fn live(&self, observer: &mut Observer, process: &mut Process, prefix: &str) -> Result<Latencies> {
        let mut ticks = interval(Duration::from_secs(1) / u32::from(self.options.live_rate.max(1)));
        let mut making = tokio::task::JoinSet::new();
        for number in 0..self.options.live {
            ticks.tick().await;
            making.spawn(self.cluster.make_live_request(number, &format!("{prefix}-live-{number}")));
        }
        while let Some(made) = making.join_next().await {
            made.context("a request was not made")??;
        }
        let approved = approvals(observer, process, usize::from(self.options.live)).await?;
        let created = observer.created();
        let latencies = approved.iter().filter_map(|(name, at)| created.get(name).map(|created| *at - *created));
        Ok(Latencies::of(latencies.collect()))
    }
}

/// Waits for so many approvals, and gives back when each was seen.
async fn approvals(observer: &mut Observer, process: &mut Process, count: usize) -> Result<HashMap<String, Instant>> {
    let mut approved = HashMap::new();
    let mut last = Instant::now();
    while approved.len() < count {
        match timeout(Duration::from_millis(500), observer.next()).await {
            Ok(Some(Sight { name, at })) => {
                last = at;
                approved.entry(name).or_insert(at);
            }
            Ok(None) => anyhow::bail!("the API server has ended the watch"),
            Err(_) => {
                interrupt::check()?;
                process.check_running()?;
                if last.elapsed() > PATIENCE {
                    let so_far = approved.len();
                    anyhow::bail!("{so_far} of {count} are approved; its log ends with:\n{}", process.log_tail());
                }
            }
        }
    }
    Ok(approved)
}
