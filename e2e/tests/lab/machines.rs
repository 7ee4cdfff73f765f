//! The lab proves itself: with kubeadm's own files in the place of Keyplane's.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use keyplane_e2e::kubectl::documents;
use keyplane_e2e::load_balancer::{Backend, PORT};
use keyplane_e2e::machine::{MachineOptions, lab_kubelet_settings};
use keyplane_e2e::{Kubectl, Lab, Machine, Management, cgroup, eventually, image, network, process, sweep};
use serde_json::json;

/// What a lab must not leave on the host.
fn leftovers(id: &str) -> Result<Vec<String>> {
    let mut left: Vec<String> = process::marked(id).into_iter().map(|pid| format!("process {pid}")).collect();
    left.extend(network::interfaces(id).into_iter().map(|name| format!("interface {name}")));
    left.extend(cgroup::groups(id, None)?.into_iter().map(|group| format!("cgroup {}", group.display())));
    let folder = sweep::root().join(id);
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    let mine = mounts.lines().filter(|line| line.contains(&*folder.to_string_lossy()));
    left.extend(mine.map(|line| format!("mount {line}")));
    if folder.exists() && std::env::var_os("KEYPLANE_LAB_KEEP_LOGS").is_none() {
        left.push(format!("folder {}", folder.display()));
    }
    Ok(left)
}

fn nothing_is_left_of(id: &str) -> Result<()> {
    let left = leftovers(id)?;
    ensure!(left.is_empty(), "left: {left:?}");
    Ok(())
}

pub(crate) fn a_machine_leaves_nothing_behind() -> Result<()> {
    let lab = Lab::start()?;
    let id = lab.id().to_owned();
    let options = MachineOptions { host_number: Some(77), extra_addresses: vec!["fd00:90::77/64".to_owned()] };
    let one = lab.machine_with("one", &options)?;
    let two = lab.machine("two")?;

    ensure!(one.address().ends_with(".77"));
    ensure!(one.run(&["hostname"])?.trim() == "one");
    ensure!(one.run(&["ip", "-6", "addr", "show", "eth0"])?.contains("fd00:90::77"));
    two.run(&["busybox", "ping", "-c", "1", "-W", "5", &one.address()])?;
    two.run(&["busybox", "ping", "-c", "1", "-W", "5", &lab.host_address()])?;

    one.put_file("/etc/kubernetes/pki/ca.crt", b"mine", 0o600)?;
    ensure!(one.read_file("/etc/kubernetes/pki/ca.crt")? == b"mine");
    ensure!(one.run(&["stat", "-c", "%a", "/etc/kubernetes/pki/ca.crt"])?.trim() == "600");
    ensure!(two.read_file("/etc/kubernetes/pki/ca.crt").is_err(), "machines share no files");
    ensure!(!std::path::Path::new("/etc/kubernetes/pki/ca.crt").exists(), "the host shares no files");
    let error =
        format!("{:#}", one.run(&["sh", "-c", "echo broken >&2; exit 4"]).err().context("exit 4 is a success")?);
    ensure!(error.contains("broken") && error.contains("one"), "{error}");

    let mut sleeper = one.spawn("sleeper", &["sleep", "1000"])?;
    ensure!(sleeper.is_running());
    one.destroy()?;
    ensure!(!sleeper.is_running(), "a destroyed machine has no processes");
    ensure!(!network::interfaces(&id).iter().any(|name| name.ends_with("-77")));

    drop(two);
    lab.end()?;
    nothing_is_left_of(&id)?;
    Ok(())
}

pub(crate) fn a_dead_owners_lab_is_swept_by_the_next_one() -> Result<()> {
    let lab = Lab::start()?;
    let id = lab.id().to_owned();
    let _machine = lab.machine("orphan")?;
    // As if this process had been killed and its pid belonged to another one now.
    let record = sweep::root().join(&id).join("lab.json");
    let mut facts: serde_json::Value = serde_json::from_slice(&std::fs::read(&record)?)?;
    facts["owner"]["start_time"] = json!(1);
    std::fs::write(&record, facts.to_string())?;
    ensure!(!leftovers(&id)?.is_empty());

    let next = Lab::start()?;
    ensure!(next.id() != id);
    nothing_is_left_of(&id)?;
    std::mem::forget(lab);
    Ok(())
}

pub(crate) fn the_management_cluster_tells_who_wrote_what() -> Result<()> {
    let lab = Lab::start()?;
    let id = lab.id().to_owned();
    let mut management = Management::start(&lab)?;
    let keyplane = management.add_user("keyplane")?;
    ensure!(management.writes_of("keyplane")?.is_empty());
    keyplane.run(&["create", "configmap", "written", "--from-literal=a=b"])?;
    keyplane.run(&["get", "configmap", "written"])?;
    let writes = management.writes_of("keyplane")?;
    ensure!(writes.len() == 1 && writes[0].verb == "create" && writes[0].resource == "configmaps", "{writes:?}");
    management.kubectl_apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: applied}}")?;
    let error = format!("{:#}", management.kubectl(&["get", "configmap", "missing"]).err().context("it is there")?);
    ensure!(error.contains("not found"), "{error}");

    management.kill_api_server();
    ensure!(management.kubectl(&["get", "configmaps"]).is_err());
    management.start_api_server()?;
    management.kubectl(&["get", "configmap", "written"])?;
    drop(lab);
    nothing_is_left_of(&id)?;
    Ok(())
}

pub(crate) fn a_control_plane_made_by_kubeadm_boots_on_a_machine() -> Result<()> {
    let lab = Lab::start()?;
    let id = lab.id().to_owned();
    let mut machine = lab.machine("cp1")?;
    let began = Instant::now();
    let told = |what: &str| eprintln!("{:6.1} s  {what}", began.elapsed().as_secs_f32());

    let images = image::all(lab.parts())?;
    told("images made");
    run_kubeadm(&lab, &machine)?;
    told("kubeadm's files written");
    machine.put_pod_network("10.244.1.0/24")?;
    machine.start_containerd()?;
    machine.import_images(&images)?;
    told("images imported");
    machine.start_kubelet()?;

    let kubeconfig = lab.folder().join("target.kubeconfig");
    std::fs::write(&kubeconfig, machine.read_file("/etc/kubernetes/super-admin.conf")?)?;
    let target = Kubectl::new(lab.parts(), &kubeconfig);
    eventually("API server of the machine", Duration::from_mins(2), || {
        machine.check_kubelet()?;
        target.run(&["get", "--raw", "/readyz"])
    })?;
    told("API server ready");
    eventually("node that is Ready", Duration::from_mins(2), || target.check_condition(&["node", "cp1"], "Ready"))?;
    told("node Ready");
    // It lets the API server ask kubelets, among other things.
    machine.run(&["kubeadm", "init", "phase", "bootstrap-token", "--config", "/etc/kubeadm.yaml"])?;
    told("kubeadm's RBAC made");
    a_pod_talks(&target, &told)?;

    machine.stop_kubelet()?;
    target.run(&["get", "--raw", "/readyz"]).context("static pods outlive their kubelet")?;
    machine.destroy()?;
    lab.end()?;
    told("all gone");
    nothing_is_left_of(&id)?;
    Ok(())
}

/// `kubeadm init`, phase by phase, without those that talk to the cluster.
fn run_kubeadm(lab: &Lab, machine: &Machine) -> Result<()> {
    let mut kubelet = lab_kubelet_settings(machine);
    kubelet["apiVersion"] = json!("kubelet.config.k8s.io/v1beta1");
    kubelet["kind"] = json!("KubeletConfiguration");
    kubelet["serverTLSBootstrap"] = json!(true);
    let config = [
        json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "InitConfiguration",
            "localAPIEndpoint": {"advertiseAddress": machine.address()},
            "nodeRegistration": {
                "name": machine.name(),
                "criSocket": "unix:///run/containerd/containerd.sock",
                "taints": [],
            },
        }),
        json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "ClusterConfiguration",
            "kubernetesVersion": lab.parts().kubernetes_version()?,
            "networking": {"podSubnet": "10.244.0.0/16"},
        }),
        kubelet,
    ];
    machine.put_file("/etc/kubeadm.yaml", documents(&config).as_bytes(), 0o600)?;
    for phase in ["certs all", "kubeconfig all", "etcd local", "control-plane all", "kubelet-start"] {
        let mut line = vec!["kubeadm", "init", "phase"];
        line.extend(phase.split(' '));
        line.extend(["--config", "/etc/kubeadm.yaml"]);
        machine.run(&line)?;
    }
    Ok(())
}

/// The story of serverTLSBootstrap: without its certificate the kubelet answers nobody.
fn a_pod_talks(target: &Kubectl, told: &impl Fn(&str)) -> Result<()> {
    eventually("service account", Duration::from_mins(1), || target.run(&["get", "serviceaccount", "default"]))?;
    target.run(&[
        "run",
        "talker",
        &format!("--image={}", image::TOOLBOX),
        "--image-pull-policy=Never",
        "--command",
        "--",
        "sh",
        "-c",
        "while :; do echo talking; sleep 1; done",
    ])?;
    eventually("pod that is Ready", Duration::from_mins(1), || target.check_condition(&["pod", "talker"], "Ready"))?;
    told("pod Ready");
    match target.run(&["logs", "talker"]) {
        Ok(text) => bail!("a kubelet without a certificate answered {text}"),
        Err(error) => ensure!(format!("{error:#}").contains("tls: internal error"), "{error:#}"),
    }
    eventually("kubelet-serving request", Duration::from_mins(1), || {
        let list = target.json(&["get", "csr"])?;
        let requests = list["items"].as_array().context("no list")?;
        let serving = requests.iter().find(|csr| csr["spec"]["signerName"] == "kubernetes.io/kubelet-serving");
        let Some(name) = serving.and_then(|csr| csr["metadata"]["name"].as_str()) else { bail!("none yet") };
        target.run(&["certificate", "approve", name])
    })?;
    let logs = eventually("log", Duration::from_mins(1), || target.run(&["logs", "talker"]))?;
    ensure!(logs.contains("talking"), "{logs}");
    told("log read");
    let said = target.run(&["exec", "talker", "--", "sh", "-c", "echo hi"])?;
    ensure!(said.trim() == "hi", "{said}");
    told("command run in the pod");
    Ok(())
}

/// Ends on its own, so that it has to be started again, and says what it was started with.
const UNIT: &str = "
[Service]
EnvironmentFile=-/etc/default/talker
Environment=WORD=unset
ExecStartPre=/bin/mkdir -p /var/lib/talker
ExecStart=/bin/sh -c 'echo run $$(ls /var/lib/talker | wc -l) says ${WORD}; \\
  mktemp /var/lib/talker/XXXXXX; \\
  [ $$(ls /var/lib/talker | wc -l) -ge 3 ] || exit 3; \\
  exec sleep 1000'
Restart=on-failure
RestartSec=100ms
";

pub(crate) fn a_unit_runs_until_it_is_stopped_and_again_after_a_failure() -> Result<()> {
    let lab = Lab::start()?;
    let mut machine = lab.machine("one")?;
    machine.put_file("/etc/default/talker", b"WORD=hello\n", 0o644)?;
    machine.start_unit("talker", UNIT)?;
    let log = machine.unit_log("talker").context("no log")?;
    eventually("third start", Duration::from_secs(20), || {
        machine.check_unit("talker")?;
        let said = std::fs::read_to_string(&log)?;
        ensure!(said.contains("run 2 says hello"), "{said}");
        Ok(())
    })?;
    let said = std::fs::read_to_string(&log)?;
    ensure!(said.matches("ended with status 3").count() == 2, "{said}");
    ensure!(machine.start_unit("talker", UNIT).is_err(), "it runs already");
    machine.stop_unit("talker")?;
    ensure!(machine.run(&["pgrep", "-x", "sleep"]).is_err(), "its process went with it");

    machine.start_unit("once", "[Service]\nType=oneshot\nExecStart=/bin/true\nExecStart=/bin/touch /var/done\n")?;
    machine.read_file("/var/done")?;
    let failing = machine.start_unit("fails", "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo why; exit 1'\n");
    let error = format!("{:#}", failing.err().context("a failure is a success")?);
    ensure!(error.contains("the unit fails") && error.contains("why"), "{error}");
    Ok(())
}

pub(crate) fn a_load_balancer_leads_only_to_what_is_ready() -> Result<()> {
    let lab = Lab::start()?;
    let mut machine = lab.machine("cp1")?;
    let mut balancer = lab.load_balancer("lb", &[Backend::from(&machine)])?;
    ensure!(balancer.address().ends_with(".5"));
    let outsider = lab.machine("outsider")?;
    let url = format!("https://{}:{PORT}/readyz", balancer.address());
    let ask = ["curl", "--silent", "--insecure", "--fail", "--max-time", "2", &url];
    eventually("nobody ready", Duration::from_secs(20), || {
        ensure!(balancer.ready_backends()?.is_empty(), "still ready");
        Ok(())
    })?;
    ensure!(outsider.run(&ask).is_err());

    // Something that answers with 200 to everything, over TLS.
    let key = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=x"];
    machine.run(&[&["openssl"][..], &key, &["-keyout", "/etc/key.pem", "-out", "/etc/cert.pem"]].concat())?;
    let unit = format!(
        "[Service]\nExecStart=/usr/bin/openssl s_server -www -quiet -accept {PORT} -cert /etc/cert.pem -key /etc/key.pem\n"
    );
    machine.start_unit("server", &unit)?;
    eventually("ready backend", Duration::from_secs(20), || {
        ensure!(balancer.ready_backends()? == ["cp1"], "not ready");
        outsider.run(&ask)
    })?;
    balancer.stop()?;
    ensure!(outsider.run(&ask).is_err());
    balancer.start()?;
    outsider.run(&ask)?;
    machine.stop_unit("server")?;
    eventually("nobody ready", Duration::from_secs(20), || {
        ensure!(balancer.ready_backends()?.is_empty(), "still ready");
        Ok(())
    })
}

pub(crate) fn a_machine_keeps_its_disk_over_a_loss_of_power_and_hears_nobody_without_its_cable() -> Result<()> {
    let lab = Lab::start()?;
    let mut machine = lab.machine("m1")?;
    let other = lab.machine("m2")?;
    let address = machine.address();
    let ping = ["busybox", "ping", "-c", "1", "-W", "1", &address];
    machine.put_file("/etc/kubernetes/kept", b"kept", 0o600)?;
    machine.put_file("/var/lib/kept", b"kept", 0o600)?;
    machine.put_file("/run/forgotten", b"forgotten", 0o600)?;
    let id = machine.read_file("/etc/machine-id")?;
    let is_heard = |when: &str| eventually(when, Duration::from_secs(10), || other.run(&ping));
    is_heard("answer before")?;

    machine.power_off()?;
    ensure!(machine.run(&["true"]).is_err() && other.run(&ping).is_err(), "it is still on");
    machine.power_on()?;
    for path in ["/etc/kubernetes/kept", "/var/lib/kept"] {
        ensure!(machine.read_file(path)? == b"kept", "{path} is lost");
    }
    ensure!(machine.read_file("/run/forgotten").is_err() && machine.read_file("/etc/machine-id")? == id);
    is_heard("answer after the boot")?;

    machine.unplug()?;
    ensure!(other.run(&ping).is_err(), "it still hears");
    machine.plug_in()?;
    is_heard("answer with the cable")?;
    Ok(())
}
