//! `keyplane-lab`: a real cluster whose keys Keyplane holds, on this machine, for a person to look at.

mod demo;
mod screen;
mod tour;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use keyplane_e2e::bench::{self, raw};
use keyplane_e2e::image::Profile;
use keyplane_e2e::rotation_lab::{self, Options, Size, What};
use keyplane_e2e::sweep::{self, Which};
use keyplane_e2e::{Parts, image, interrupt, preflight, smoke};

use crate::screen::{Progress, say};

/// Real Kubernetes on one host, with Keyplane, without Docker.
#[derive(Debug, Parser)]
#[command(name = "keyplane-lab", version)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Starts a management cluster, Keyplane and a machine, boots a control plane on it, and shows what to look at.
    Demo {
        /// Returns when all is up and leaves it running until `demo-down`.
        #[arg(long)]
        detach: bool,
        /// Another ClusterSpec than the example. It must be named demo, with the node cp1 at 10.90.0.11.
        #[arg(long, default_value = demo::EXAMPLE, hide_default_value = true)]
        file: PathBuf,
    },
    /// Ends the demo and removes everything of it.
    DemoDown,
    /// Builds a whole cluster (three control-plane machines, a worker, add-ons), tries what its owner tries first, loses a
    /// machine and tries again; prints each step with what it saw.
    Smoke,
    /// Rotates everything on three control-plane machines and two workers under a load that must not fail; prints a line
    /// for each phase, and last `N requests, N failed`.
    Rotation {
        /// How many seconds pass after new files are on the machines: components look at some every five minutes.
        #[arg(long, default_value_t = 330)]
        settle: u64,
        /// One control-plane machine and one worker, which shows less and takes less.
        #[arg(long)]
        small: bool,
        /// What is rotated, in place of everything: leaves, service-account-key, encryption-key, authorities. Given more
        /// than once, the last three go on at the same time.
        #[arg(long)]
        only: Vec<String>,
        /// Things go wrong meanwhile: Keyplane and all agents are killed at each stage, a machine is off, an agent's clock is
        /// an hour ahead, a worker is cut off.
        #[arg(long)]
        faults: bool,
    },
    /// Keeps such a cluster through many lifetimes (certificates live half an hour, authorities two hours) under the same
    /// load, and reports each rotation.
    Endurance {
        /// For how many hours.
        #[arg(long, default_value_t = 12)]
        hours: u64,
        /// Have things go wrong meanwhile, as in `rotation --faults`, in each round again.
        #[arg(long)]
        faults: bool,
    },
    /// Measures how fast Keyplane approves kubelets' requests and what that costs, beside a raw client and an approver in
    /// Go. Takes minutes; build with --release.
    BenchApprover(BenchArguments),
    /// Approves every request in the cluster of KUBECONFIG without looking: what bench-approver compares with.
    #[command(hide = true)]
    ApproveEverything,
    /// Removes what labs have left whose owner was killed.
    Down {
        /// Ends every lab, running ones too.
        #[arg(long)]
        all: bool,
    },
    /// Builds Keyplane's own container image, and prints the archive that it is in.
    Image,
    /// Says what this host lacks, and builds the parts if they aren't built yet.
    Preflight,
}

#[derive(Args, Clone, Debug)]
struct BenchArguments {
    /// How many Nodes there are, each with one pending request.
    #[arg(long, default_value_t = 5000)]
    nodes: u16,
    /// How often each approver is measured.
    #[arg(long, default_value_t = 3)]
    rounds: u16,
    /// How many requests come one by one after that.
    #[arg(long, default_value_t = 200)]
    live: u16,
    /// How many of these come in a second.
    #[arg(long, default_value_t = 50)]
    live_rate: u16,
    /// Another approver in Go than the lab's: a program that finds its cluster in KUBECONFIG.
    #[arg(long)]
    go_approver: Option<PathBuf>,
    /// The only approvers that take part: keyplane, raw, go.
    #[arg(long)]
    only: Vec<String>,
}

fn main() -> ExitCode {
    match act(&Arguments::parse().action) {
        Ok(code) => code,
        Err(_) if interrupt::requested() => ExitCode::from(130),
        Err(error) => {
            eprintln!("keyplane-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(action: &Action) -> Result<ExitCode> {
    match action {
        Action::Demo { detach, file } => demo::run(file, *detach)?,
        Action::DemoDown => demo::down()?,
        Action::Smoke => return smoke(),
        Action::Rotation { settle, small, only, faults } => {
            return rotation(Duration::from_secs(*settle), *small, only, *faults);
        }
        Action::Endurance { hours, faults } => return endurance(Duration::from_hours(*hours), *faults),
        Action::BenchApprover(arguments) => bench_approver(arguments)?,
        Action::ApproveEverything => raw::run()?,
        Action::Down { all } => down(if *all { Which::All } else { Which::Dead })?,
        Action::Image => {
            let image = image::keyplane(&Parts::build()?, Profile::Release)?;
            say(&format!("{} is in {}", image.name(), image.archive().display()));
        }
        Action::Preflight => {
            preflight::check()?;
            let parts = Parts::build()?;
            say(&format!("ready: Kubernetes {} in {}", parts.kubernetes_version()?, parts.folder().display()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn smoke() -> Result<ExitCode> {
    interrupt::listen()?;
    let report = smoke::run();
    interrupt::check()?;
    say(&report.summary());
    Ok(if report.failures().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn rotation(settle: Duration, small: bool, only: &[String], faults: bool) -> Result<ExitCode> {
    interrupt::listen()?;
    let what = if only.is_empty() { What::all() } else { What::named(only)? };
    let options = Options { size: if small { Size::small() } else { Size::whole() }, what, settle, faults };
    let progress = Progress::begin();
    let (tally, outcome) = rotation_lab::run(&options, &|what| progress.step(what))?;
    say(&format!("\n{}\n{}", tally.table(), tally.told_failures()));
    if let Err(error) = &outcome {
        say(&format!("the rotation did not get to its end: {error:#}\n"));
    }
    say(&tally.summary());
    Ok(if outcome.is_ok() && tally.total().failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn endurance(time: Duration, faults: bool) -> Result<ExitCode> {
    interrupt::listen()?;
    let progress = Progress::begin();
    let report = rotation_lab::endure(time, faults, &|what| progress.step(what))?;
    say(&format!("\n{report}\n{}\n{}", report.tally.table(), report.tally.told_failures()));
    say(&report.tally.summary());
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn bench_approver(arguments: &BenchArguments) -> Result<()> {
    interrupt::listen()?;
    let BenchArguments { nodes, rounds, live, live_rate, go_approver, only } = arguments.clone();
    let progress = Progress::begin();
    let options = bench::Options { nodes, rounds, live, live_rate, go_approver, only };
    let report = bench::run(&options, &|what| progress.step(what))?;
    say(&format!("\n{report}"));
    Ok(())
}

fn down(which: Which) -> Result<()> {
    if which == Which::All {
        sweep::dismiss_owners(&sweep::records());
    }
    let _lock = sweep::lock()?;
    let ids = sweep::sweep(which)?;
    say(&if ids.is_empty() { "no lab was left".to_owned() } else { format!("removed: {}", ids.join(" ")) });
    Ok(())
}
