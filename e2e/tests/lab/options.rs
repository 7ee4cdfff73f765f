//! A cluster behind a proxy, with an audit log, an issuer of tokens, Pod Security and a user, boots and does what it was
//! asked for.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use keyplane_e2e::bastion::Bastion;
use keyplane_e2e::boot::boot;
use keyplane_e2e::installation::{Installation, PATIENCE};
use keyplane_e2e::issuer::Issuer;
use keyplane_e2e::kubectl::documents;
use keyplane_e2e::machine::lab_kubelet_settings;
use keyplane_e2e::{Kubectl, Lab, Machine, distribute, eventually, image};
use serde_json::{Value, json};

const CLUSTER: &str = "guarded";
/// A name that only the proxy knows.
const HOST: &str = "api.inside.example";
const AUDIT_LOG: &str = "/var/log/kubernetes/audit/audit.log";

/// A server that takes audit events.
#[derive(Clone)]
struct Collector {
    address: SocketAddr,
    users: Arc<Mutex<Vec<String>>>,
}

impl Collector {
    fn start(address: &str) -> Result<Self> {
        let listener = TcpListener::bind((address, 0))?;
        let collector = Self { address: listener.local_addr()?, users: Arc::default() };
        let server = collector.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = server.clone();
                thread::spawn(move || server.serve(&client).ok());
            }
        });
        Ok(collector)
    }

    fn serve(&self, client: &TcpStream) -> Result<()> {
        let mut reader = BufReader::new(client.try_clone()?);
        loop {
            let mut length = 0;
            loop {
                let mut line = String::new();
                ensure!(reader.read_line(&mut line)? > 0, "the client is gone");
                let header = line.to_ascii_lowercase();
                if let Some(value) = header.strip_prefix("content-length:") {
                    length = value.trim().parse()?;
                }
                if line == "\r\n" {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            let events: Value = serde_json::from_slice(&body)?;
            let items = events["items"].as_array().context("no events")?;
            let users = items.iter().filter_map(|event| event["user"]["username"].as_str());
            self.users.lock().unwrap_or_else(PoisonError::into_inner).extend(users.map(str::to_owned));
            (&mut &*client).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        }
    }

    fn saw(&self, user: &str) -> bool {
        self.users.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|seen| seen == user)
    }
}

fn cluster(machine: &Machine, bastion: &Bastion, issuer: &Issuer, prefix: &str, users: &Value) -> Result<Value> {
    let probes = ["/livez", "/readyz", "/healthz"].map(|path| json!({"path": path}));
    Ok(json!({
        "apiVersion": "keyplane.io/v1alpha1", "kind": "ClusterSpec", "metadata": {"name": CLUSTER},
        "spec": {
            "kubernetesVersion": "v1.37.2",
            "controlPlaneEndpoint": {"host": HOST},
            "controlPlane": {
                "nodes": [{"name": "cp1", "addresses": [machine.address()]}],
                "kubelet": lab_kubelet_settings(machine),
            },
            "network": {"podCIDRs": ["10.244.0.0/16"]},
            "access": {"proxyURL": bastion.url()},
            "audit": {"log": {"path": AUDIT_LOG}, "webhook": {"secretRef": {"name": "collector"}}},
            "authentication": {
                "jwt": [{
                    "issuer": {"url": issuer.url(), "audiences": ["guarded"], "certificateAuthority": issuer.certificate()?},
                    "claimMappings": {
                        "username": {"claim": "sub", "prefix": prefix},
                        "groups": {"claim": "groups", "prefix": prefix},
                    },
                }],
                "anonymous": {"enabled": true, "conditions": probes},
            },
            "podSecurity": {"enforce": "baseline", "warn": "restricted", "exemptions": {"namespaces": ["trusted"]}},
            "users": users,
        },
    }))
}

/// Everything that the checks below look at.
struct Guarded<'a> {
    lab: &'a Lab,
    installation: Installation,
    machine: Machine,
    target: Kubectl,
    issuer: Issuer,
}

pub(crate) fn a_guarded_cluster_behind_a_proxy_boots_and_logs_and_refuses_and_knows_its_users() -> Result<()> {
    let began = Instant::now();
    let tell = |what: &str| eprintln!("{:6.1} s  {what}", began.elapsed().as_secs_f32());
    let lab = Lab::start()?;
    let images = image::all(lab.parts())?;
    let mut machine = lab.machine("cp1")?;
    let issuer = Issuer::start(&lab)?;
    let collector = Collector::start(&lab.host_address())?;
    let inside: SocketAddr = format!("{}:6443", machine.address()).parse()?;
    let bastion = Bastion::start(&[(&format!("{HOST}:6443"), inside)])?;
    let mut installation = Installation::start(&lab)?;
    let admin = installation.admin().clone();
    let users = json!([{"name": "jane", "groups": ["auditors", "ops@example"], "validity": "24h"}]);
    admin.apply(&cluster(&machine, &bastion, &issuer, "id:", &users)?.to_string())?;
    eventually("complaint about the missing Secret", PATIENCE, || {
        let told = admin.complaint(&["clusterspec", CLUSTER], "Rendered")?;
        ensure!(told.contains("SecretNotFound") && told.contains("collector"), "{told}");
        Ok(())
    })?;
    let webhook = json!({"clusters": [{"name": "a", "cluster": {"server": format!("http://{}/", collector.address)}}],
        "contexts": [{"name": "a", "context": {"cluster": "a"}}], "current-context": "a"});
    admin.apply(&documents(&[json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "collector", "labels": {"keyplane.io/cluster": CLUSTER}},
        "stringData": {"value": webhook.to_string()}})]))?;
    installation.wait_for(CLUSTER, "Rendered")?;
    tell("rendered");
    let target = boot(&lab, &mut installation, CLUSTER, &mut machine, &images, "10.244.0.0/24", &tell)?;
    let guarded = Guarded { lab: &lab, installation, machine, target, issuer };

    let asked = bastion.asked();
    ensure!(asked.len() > 3 && asked.iter().all(|target| *target == format!("{HOST}:6443")), "{asked:?}");
    guarded.nobody_reaches_it_without_the_proxy()?;
    guarded.a_privileged_pod_is_refused_but_for_an_exempt_namespace()?;
    tell("Pod Security holds");
    guarded.a_user_is_known_with_every_group()?;
    guarded.requests_without_credentials_see_the_probes_and_nothing_else()?;
    tell("users are who they are");
    guarded.the_audit_log_says_who_did_it_and_shows_no_secret()?;
    eventually("audit event at the server", PATIENCE, || {
        ensure!(collector.saw("jane"), "jane was not seen");
        Ok(())
    })?;
    tell("it is all in the audit log");
    guarded.a_token_is_believed_and_a_change_is_taken_over_without_a_restart(&bastion, &users)?;
    tell("the issuer's tokens are believed");
    guarded.the_kubeconfig_of_a_user_who_is_gone_goes(&bastion)?;
    tell("the user is gone");
    Ok(())
}

impl Guarded<'_> {
    fn admin(&self) -> &Kubectl {
        self.installation.admin()
    }

    /// kubectl with another kubeconfig.
    fn kubectl(&self, name: &str, kubeconfig: &str) -> Result<Kubectl> {
        let path = self.lab.folder().join(format!("{name}.kubeconfig"));
        fs::write(&path, kubeconfig)?;
        Ok(Kubectl::new(self.lab.parts(), &path))
    }

    fn nobody_reaches_it_without_the_proxy(&self) -> Result<()> {
        let kubeconfig = fs::read_to_string(self.target.kubeconfig())?;
        let direct: Vec<_> = kubeconfig.lines().filter(|line| !line.contains("proxy-url")).collect();
        ensure!(direct.len() + 1 == kubeconfig.lines().count(), "the owner's kubeconfig names no proxy");
        let direct = self.kubectl("direct", &direct.join("\n"))?;
        let told = direct.run(&["get", "--raw", "/readyz"]).err().context("it is reached without the proxy")?;
        ensure!(format!("{told:#}").contains("no such host"), "{told:#}");
        Ok(())
    }

    fn a_privileged_pod_is_refused_but_for_an_exempt_namespace(&self) -> Result<()> {
        for namespace in ["fresh", "trusted"] {
            self.target.run(&["create", "namespace", namespace])?;
            let account = ["get", "serviceaccount", "default", "-n", namespace];
            eventually("default service account", PATIENCE, || self.target.run(&account))?;
        }
        let pod = |namespace: &str| {
            let container = json!({"name": "a", "image": image::TOOLBOX, "securityContext": {"privileged": true}});
            let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "strong", "namespace": namespace},
                "spec": {"containers": [container]}});
            self.target.apply(&object.to_string())
        };
        let told = format!("{:#}", pod("fresh").err().context("a privileged pod was let in")?);
        ensure!(told.contains("violates PodSecurity \"baseline:latest\": privileged"), "{told}");
        pod("trusted")?;
        Ok(())
    }

    fn a_user_is_known_with_every_group(&self) -> Result<()> {
        let jane = self.kubectl("jane", &self.admin().secret_text("guarded-user-jane-kubeconfig", "value")?)?;
        let who = jane.json(&["auth", "whoami"])?["status"]["userInfo"].clone();
        ensure!(who["username"] == "jane", "{who}");
        ensure!(who["groups"] == json!(["auditors", "ops@example", "system:authenticated"]), "{who}");
        ensure!(jane.run(&["get", "secrets", "-n", "fresh"]).is_err(), "jane may do what nobody has allowed");
        self.target.run(&["create", "clusterrolebinding", "ops", "--clusterrole=edit", "--group=ops@example"])?;
        eventually("right of a group", PATIENCE, || jane.run(&["get", "secrets", "-n", "fresh"]))?;
        jane.run(&["create", "secret", "generic", "treasure", "-n", "fresh", "--from-literal=map=x-marks-the-spot"])?;
        let listed = self.admin().json(&["get", "clusterspec", CLUSTER])?["status"]["certificates"].clone();
        let row = listed.as_array().into_iter().flatten().find(|row| row["name"] == "users/jane");
        ensure!(row.is_some_and(|row| row["issuer"] == "ca"), "{listed}");
        Ok(())
    }

    fn requests_without_credentials_see_the_probes_and_nothing_else(&self) -> Result<()> {
        let code = |path: &str| {
            let url = format!("https://{}:6443{path}", self.machine.address());
            let ca = "/etc/kubernetes/pki/ca.crt";
            self.machine.run(&["curl", "-sS", "-o", "/tmp/answer", "-w", "%{http_code}", "--cacert", ca, &url])
        };
        ensure!(code("/readyz")? == "200" && code("/version")? == "401");
        Ok(())
    }

    fn the_audit_log_says_who_did_it_and_shows_no_secret(&self) -> Result<()> {
        eventually("line in the audit log", PATIENCE, || {
            let log = String::from_utf8(self.machine.read_file(AUDIT_LOG)?)?;
            let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let events: Vec<_> = events.collect();
            let find = |verb: &str, resource: &str, name: &str| {
                let event = events.iter().find(|event| {
                    let object = &event["objectRef"];
                    event["verb"] == verb && object["resource"] == resource && object["name"] == name
                });
                event.with_context(|| format!("no {verb} of {resource} {name} among {}", events.len()))
            };
            let treasure = find("create", "secrets", "treasure")?;
            ensure!(treasure["user"]["username"] == "jane" && treasure["level"] == "Metadata", "{treasure}");
            ensure!(!log.contains("x-marks-the-spot") && !log.contains(&BASE64_STANDARD.encode("x-marks-the-spot")));
            let refused = find("create", "pods", "strong")?;
            ensure!(refused["level"] == "Request" && refused["requestObject"].is_object(), "{refused}");
            ensure!(!events.iter().any(|event| event["requestURI"] == "/readyz"), "probes are logged");
            Ok(())
        })
    }

    fn a_token_is_believed_and_a_change_is_taken_over_without_a_restart(
        &self,
        bastion: &Bastion,
        users: &Value,
    ) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let claims =
            |audience: &str| json!({"aud": audience, "sub": "bob", "groups": ["devs"], "iat": now, "exp": now + 900});
        let kubeconfig = |token: &str| {
            let cluster = json!({"server": format!("https://{HOST}:6443"), "proxy-url": bastion.url(),
                "insecure-skip-tls-verify": true});
            json!({"clusters": [{"name": "a", "cluster": cluster}], "users": [{"name": "a", "user": {"token": token}}],
                "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}], "current-context": "a"})
            .to_string()
        };
        let bob = self.kubectl("bob", &kubeconfig(&self.issuer.token(claims("guarded"))?))?;
        let stranger = self.kubectl("stranger", &kubeconfig(&self.issuer.token(claims("another"))?))?;
        let is = |prefix: &str| {
            eventually(&format!("token that is {prefix}bob's"), PATIENCE, || {
                let who = bob.json(&["auth", "whoami"])?["status"]["userInfo"].clone();
                ensure!(who["username"] == format!("{prefix}bob"), "{who}");
                let group = json!(format!("{prefix}devs"));
                ensure!(who["groups"].as_array().is_some_and(|groups| groups.contains(&group)), "{who}");
                Ok(())
            })
        };
        is("id:")?;
        ensure!(stranger.run(&["auth", "whoami"]).is_err(), "a token for somebody else's API server is believed");
        let process = || {
            let pod = ["get", "pod", "-n", "kube-system", "kube-apiserver-cp1"];
            Ok::<_, anyhow::Error>(self.target.json(&pod)?["status"]["containerStatuses"][0]["containerID"].clone())
        };
        let before = process()?;
        self.admin().apply(&cluster(&self.machine, bastion, &self.issuer, "sso:", users)?.to_string())?;
        eventually("new authentication configuration", PATIENCE, || {
            let config = self.admin().json(&["get", "configmap", "guarded-cp1-config"])?;
            let text = config["data"]["authentication-config.yaml"].as_str().context("no configuration")?;
            ensure!(text.contains("sso:"));
            Ok(())
        })?;
        distribute::apply_files(self.admin(), "default", CLUSTER, &self.machine)?;
        is("sso:")?;
        ensure!(process()? == before, "the API server was restarted");
        Ok(())
    }

    fn the_kubeconfig_of_a_user_who_is_gone_goes(&self, bastion: &Bastion) -> Result<()> {
        let spec = cluster(&self.machine, bastion, &self.issuer, "sso:", &json!([]))?;
        self.admin().apply(&spec.to_string())?;
        eventually("end of the user's Secret", PATIENCE, || {
            let found = self.admin().run(&["get", "secret", "guarded-user-jane-kubeconfig", "--ignore-not-found"])?;
            ensure!(found.is_empty(), "{found}");
            let events = self.admin().run(&["get", "events", "--field-selector", "reason=UserRemoved"])?;
            ensure!(events.contains("jane") && events.contains("can't be revoked"), "{events}");
            Ok(())
        })?;
        self.admin().run(&["get", "secret", "collector"])?;
        Ok(())
    }
}
