//! The management cluster: a control plane of plain processes on the host's loopback, without nodes. Keyplane's objects
//! live in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::audit::{self, Request};
use crate::command::{self, FEWER_COLLECTIONS};
use crate::helm::{self, Helm};
use crate::kubectl::{Kubectl, documents};
use crate::lab::Lab;
use crate::network::free_port;
use crate::process::Process;
use crate::site::Site;
use crate::wait::eventually;

/// How the API server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Serving {
    /// It writes down what it is asked.
    audit: bool,
    /// It sends lists as streams where a client wants that (`WatchList`, on by default since Kubernetes 1.34).
    streamed_lists: bool,
}

/// What most tests want.
const SERVING: Serving = Serving { audit: true, streamed_lists: true };

/// A running management control plane. It ends with its lab.
#[derive(Debug)]
pub struct Management {
    site: Arc<Site>,
    folder: PathBuf,
    etcd_port: u16,
    port: u16,
    serving: Serving,
    etcd: Process,
    api_server: Process,
    /// It is there once the API server has been ready for the first time: it ends if it finds none.
    controller_manager: Option<Process>,
    admin: Kubectl,
}

impl Management {
    /// Starts etcd, the API server and the controller-manager, and waits until the API server is ready.
    ///
    /// # Errors
    /// When one of them does not start.
    pub fn start(lab: &Lab) -> Result<Self> {
        Self::start_all(lab, SERVING)
    }

    /// The same with an API server that sends no lists as streams, as those before Kubernetes 1.34.
    ///
    /// # Errors
    /// As [`Management::start`].
    pub fn start_without_streamed_lists(lab: &Lab) -> Result<Self> {
        Self::start_all(lab, Serving { streamed_lists: false, ..SERVING })
    }

    fn start_all(lab: &Lab, serving: Serving) -> Result<Self> {
        let mut management = Self::start_with(lab, serving)?;
        let (site, folder) = (Arc::clone(&management.site), management.folder.clone());
        let files = Files { site: &site, folder: &folder };
        // A name of the component's own, as its RBAC bindings expect.
        files.kubeconfig_as("system:kube-controller-manager", &[])?;
        management.controller_manager = Some(start_controller_manager(&files)?);
        management.wait_for_controller_manager()?;
        Ok(management)
    }

    /// Starts etcd and the API server only, without an audit log, for measurements: nobody then signs certificates or
    /// looks after Nodes that have no machine, and no request is slowed by being written down.
    ///
    /// # Errors
    /// When one of them does not start.
    pub fn start_api_server_only(lab: &Lab) -> Result<Self> {
        Self::start_with(lab, Serving { audit: false, ..SERVING })
    }

    fn start_with(lab: &Lab, serving: Serving) -> Result<Self> {
        let site = Arc::clone(lab.site());
        let folder = site.folder.join("management");
        fs::create_dir_all(&folder)?;
        let (etcd_port, port) = (free_port()?, free_port()?);
        let files = Files { site: &site, folder: &folder };
        files.make_certificates(port)?;
        let admin = Kubectl::new(&site.parts, &files.kubeconfig_as("admin", &["system:masters"])?);
        let etcd = start_etcd(&files, etcd_port)?;
        let api_server = start_api_server(&files, etcd_port, port, serving)?;
        let mut management = Self {
            folder: folder.clone(),
            site,
            etcd_port,
            port,
            serving,
            etcd,
            api_server,
            controller_manager: None,
            admin,
        };
        management.wait_for_api_server()?;
        Ok(management)
    }

    fn wait_for_api_server(&mut self) -> Result<()> {
        eventually("API server of the management cluster", Duration::from_secs(90), || {
            self.etcd.check_running()?;
            self.api_server.check_running()?;
            self.admin.run(&["get", "--raw", "/readyz"])
        })?;
        Ok(())
    }

    fn wait_for_controller_manager(&mut self) -> Result<()> {
        eventually("controller-manager of the management cluster", Duration::from_mins(1), || {
            if let Some(manager) = &mut self.controller_manager {
                manager.check_running()?;
            }
            // It makes this one, as the last thing that a namespace needs.
            self.admin.run(&["get", "serviceaccount", "default", "--namespace", "default"])
        })?;
        Ok(())
    }

    /// kubectl as an administrator of this cluster.
    #[must_use]
    pub fn admin(&self) -> &Kubectl {
        &self.admin
    }

    /// Runs kubectl as an administrator.
    ///
    /// # Errors
    /// When it fails; the message holds its words.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.admin.run(arguments)
    }

    /// Applies these objects as an administrator.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub fn kubectl_apply(&self, yaml: &str) -> Result<String> {
        self.admin.apply(yaml)
    }

    /// The API server's address.
    #[must_use]
    pub fn server(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The API server's address as machines of the lab reach it: what `spec.nodeAgent.managementServer` is to be.
    #[must_use]
    pub fn server_for_machines(&self) -> String {
        format!("https://{}:{}", self.site.subnet.address(1), self.port)
    }

    /// The API server's process.
    #[must_use]
    pub fn api_server_pid(&self) -> u32 {
        self.api_server.pid()
    }

    /// Makes a user with a client certificate of its own and all rights, and returns kubectl as that user. In the
    /// audit log the user's requests can be told from those of others.
    ///
    /// # Errors
    /// When the certificate or the binding can't be made.
    pub fn add_user(&self, name: &str) -> Result<Kubectl> {
        let user = format!("--user={name}");
        self.admin.run(&["create", "clusterrolebinding", name, "--clusterrole=cluster-admin", &user])?;
        self.user(name)
    }

    /// Makes a user with the rights that the chart gives an operator in the namespace `default`, and returns kubectl as
    /// that user: with every test that Keyplane passes as this user, the chart's rights have been enough.
    ///
    /// # Errors
    /// When the chart can't be rendered, or the certificate or a binding can't be made.
    pub fn add_keyplane(&self, name: &str) -> Result<Kubectl> {
        let rendered = Helm::new(&self.site.parts)?.template("default", &["nodeAgents=true"])?;
        self.add_user_with(name, &rendered)
    }

    /// Makes a user with the rights that these objects of the chart give its `ServiceAccount`.
    ///
    /// # Errors
    /// When the certificate or a binding can't be made.
    pub fn add_user_with(&self, name: &str, rendered: &[Value]) -> Result<Kubectl> {
        helm::bind(&self.admin, rendered, name)?;
        self.user(name)
    }

    fn user(&self, name: &str) -> Result<Kubectl> {
        let files = Files { site: &self.site, folder: &self.folder };
        Ok(Kubectl::new(&self.site.parts, &files.kubeconfig_as(name, &[])?))
    }

    /// Every request that the API server has answered so far.
    ///
    /// # Errors
    /// When the audit log can't be read.
    pub fn requests(&self) -> Result<Vec<Request>> {
        audit::read(&audit_log(&self.folder))
    }

    /// The requests of the user `name` that changed something, or tried to.
    ///
    /// # Errors
    /// When the audit log can't be read.
    pub fn writes_of(&self, name: &str) -> Result<Vec<Request>> {
        Ok(self.requests()?.into_iter().filter(|request| request.user == name && request.is_write()).collect())
    }

    /// Kills the API server, for tests of what happens without it. (Asked to end, it would take a minute, for the sake
    /// of the clients that are still connected.)
    pub fn kill_api_server(&mut self) {
        self.api_server.kill();
    }

    /// Starts the API server again, on the same port and data, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn start_api_server(&mut self) -> Result<()> {
        let files = Files { site: &self.site, folder: &self.folder };
        self.api_server = start_api_server(&files, self.etcd_port, self.port, self.serving)?;
        self.wait_for_api_server()
    }

    /// Kills all of it, and takes everything away that it held: another one of this lab then begins anew.
    ///
    /// # Errors
    /// When its files can't be removed.
    pub fn lose(&mut self) -> Result<()> {
        if let Some(manager) = &mut self.controller_manager {
            manager.kill();
        }
        self.api_server.kill();
        self.etcd.kill();
        fs::remove_dir_all(&self.folder).with_context(|| format!("cannot remove {}", self.folder.display()))
    }
}

/// The files of a management cluster. kubeadm makes its certificates too: it is there, and knows all of them.
struct Files<'a> {
    site: &'a Site,
    folder: &'a Path,
}

impl Files<'_> {
    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }

    fn certificate(&self, name: &str) -> String {
        self.path(&format!("pki/{name}"))
    }

    fn make_certificates(&self, port: u16) -> Result<()> {
        let config = [
            json!({
                "apiVersion": "kubeadm.k8s.io/v1beta4",
                "kind": "InitConfiguration",
                "localAPIEndpoint": {"advertiseAddress": self.site.subnet.address(1), "bindPort": port},
                "nodeRegistration": {"name": "management"},
            }),
            json!({
                "apiVersion": "kubeadm.k8s.io/v1beta4",
                "kind": "ClusterConfiguration",
                "clusterName": "management",
                "kubernetesVersion": self.site.parts.kubernetes_version()?,
                "certificatesDir": self.path("pki"),
                // RSA keys take seconds.
                "encryptionAlgorithm": "ECDSA-P256",
                "controlPlaneEndpoint": format!("127.0.0.1:{port}"),
                "apiServer": {"certSANs": ["127.0.0.1", "localhost"]},
            }),
        ];
        fs::write(self.path("kubeadm.yaml"), documents(&config))?;
        let mut kubeadm = self.site.parts.command("kubeadm");
        kubeadm.args(["init", "phase", "certs", "all", "--config", &self.path("kubeadm.yaml")]);
        command::run(&mut kubeadm).context("cannot make the certificates of the management cluster")?;
        Ok(())
    }

    /// A kubeconfig with a new client certificate for this user and these groups, in a file named after the user.
    fn kubeconfig_as(&self, user: &str, groups: &[&str]) -> Result<PathBuf> {
        let mut kubeadm = self.site.parts.command("kubeadm");
        kubeadm.args(["kubeconfig", "user", "--config", &self.path("kubeadm.yaml"), "--client-name", user]);
        for group in groups {
            kubeadm.args(["--org", group]);
        }
        let text = command::run(&mut kubeadm).with_context(|| format!("cannot make a kubeconfig for {user}"))?;
        let path = self.folder.join(kubeconfig_name(user));
        fs::write(&path, text)?;
        Ok(path)
    }
}

fn kubeconfig_name(user: &str) -> String {
    format!("{}.kubeconfig", user.replace(':', "-"))
}

fn audit_log(folder: &Path) -> PathBuf {
    folder.join("audit.jsonl")
}

fn start(site: &Site, name: &str, command: &mut Command) -> Result<Process> {
    let full = format!("management-{name}");
    let (variable, value) = FEWER_COLLECTIONS;
    command.env(variable, value);
    Process::start(&full, &site.id, command, site.log(&full))
}

fn start_etcd(files: &Files, port: u16) -> Result<Process> {
    let mut etcd = files.site.parts.command("etcd");
    etcd.arg(format!("--data-dir={}", files.path("etcd")))
        .arg(format!("--listen-client-urls=http://127.0.0.1:{port}"))
        .arg(format!("--advertise-client-urls=http://127.0.0.1:{port}"))
        .arg("--listen-peer-urls=http://127.0.0.1:0")
        // What it holds is worth nothing after the lab.
        .arg("--unsafe-no-fsync");
    start(files.site, "etcd", &mut etcd)
}

fn start_api_server(files: &Files, etcd_port: u16, port: u16, serving: Serving) -> Result<Process> {
    let mut server = files.site.parts.command("kube-apiserver");
    server
        .arg(format!("--etcd-servers=http://127.0.0.1:{etcd_port}"))
        // Machines reach it at the lab's own address.
        .arg("--bind-address=0.0.0.0")
        .arg(format!("--secure-port={port}"))
        .arg(format!("--advertise-address={}", files.site.subnet.address(1)))
        .arg("--service-cluster-ip-range=10.96.0.0/16")
        .arg("--authorization-mode=Node,RBAC")
        .arg("--anonymous-auth=true")
        .arg("--service-account-issuer=https://kubernetes.default.svc")
        .arg(format!("--service-account-key-file={}", files.certificate("sa.pub")))
        .arg(format!("--service-account-signing-key-file={}", files.certificate("sa.key")))
        .arg(format!("--client-ca-file={}", files.certificate("ca.crt")))
        .arg(format!("--tls-cert-file={}", files.certificate("apiserver.crt")))
        .arg(format!("--tls-private-key-file={}", files.certificate("apiserver.key")));
    if !serving.streamed_lists {
        server.arg("--feature-gates=WatchList=false");
    }
    if serving.audit {
        fs::write(files.path("audit-policy.yaml"), audit::POLICY)?;
        server
            .arg(format!("--audit-policy-file={}", files.path("audit-policy.yaml")))
            .arg(format!("--audit-log-path={}", audit_log(files.folder).display()))
            // A request is in the log when it is answered, so that a test may read the log right after.
            .arg("--audit-log-mode=blocking-strict");
    }
    start(files.site, "kube-apiserver", &mut server)
}

fn start_controller_manager(files: &Files) -> Result<Process> {
    let kubeconfig = files.path(&kubeconfig_name("system:kube-controller-manager"));
    let mut manager = files.site.parts.command("kube-controller-manager");
    for flag in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
        manager.arg(format!("--{flag}={kubeconfig}"));
    }
    manager
        .arg("--bind-address=127.0.0.1")
        .arg(format!("--secure-port={}", free_port()?))
        .arg("--leader-elect=false")
        .arg("--use-service-account-credentials=true")
        .arg(format!("--client-ca-file={}", files.certificate("ca.crt")))
        .arg(format!("--root-ca-file={}", files.certificate("ca.crt")))
        .arg(format!("--cluster-signing-cert-file={}", files.certificate("ca.crt")))
        .arg(format!("--cluster-signing-key-file={}", files.certificate("ca.key")))
        .arg(format!("--service-account-private-key-file={}", files.certificate("sa.key")));
    start(files.site, "kube-controller-manager", &mut manager)
}
