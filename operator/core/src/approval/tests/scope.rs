//! Tests of the scope of Keyplane.

use super::*;

#[test]
fn ignores_csr_for_another_signer() {
    for signer in [
        "kubernetes.io/kube-apiserver-client",
        "kubernetes.io/legacy-unknown",
        "Kubernetes.io/kubelet-serving",
        "",
        "x",
    ] {
        let mut world = World::new();
        world.request.signer_name = signer.to_owned();
        world.is(Verdict::Ignore, "signer", "OtherSigner");
    }
}

#[test]
fn does_not_parse_csr_for_another_signer() {
    let mut world = World::new();
    world.request.signer_name = "example.com/x".to_owned();
    assert_eq!(world.evaluate().answers.len(), 1);
    assert!(!world.evaluate().violation);
}

#[test]
fn ignores_csr_with_verdict_or_certificate() {
    let mut object: CertificateSigningRequest = read(json!({"spec": {"signerName": "s", "request": ""}}));
    assert!(!SigningRequest::from(&object).settled);
    for kind in ["Approved", "Denied", "Failed", "SomethingNew"] {
        object.status = Some(read(json!({"conditions": [{"type": kind, "status": "True"}]})));
        assert!(SigningRequest::from(&object).settled, "{kind}");
    }
    object.status = Some(read(json!({"certificate": "AAAA"})));
    assert!(SigningRequest::from(&object).settled);
    object.status = Some(read(json!({"conditions": [], "certificate": ""})));
    assert!(!SigningRequest::from(&object).settled);
    object.metadata.deletion_timestamp = Some(read(json!(CREATED)));
    assert!(SigningRequest::from(&object).settled);

    let mut world = World::new();
    world.request.settled = true;
    world.is(Verdict::Ignore, "open", "AlreadySettled");
}

#[test]
fn ignores_csrs_if_policy_disables_evaluation() {
    let mut world = World::new();
    world.policy.kubelet_serving.enabled = false;
    world.is(Verdict::Ignore, "enabled", "ApprovalDisabled");
}

#[test]
fn ignores_csr_older_than_wait_limit() {
    let mut world = World::new();
    world.now = "2026-11-23T13:00:00Z".parse().unwrap();
    world.is_approved();
    world.now = "2026-11-23T13:00:01Z".parse().unwrap();
    world.is(Verdict::Ignore, "age", "RequestTooOld");
    world.request.created = None;
    world.is(Verdict::Ignore, "age", "RequestTooOld");
}

#[test]
fn approves_if_clock_of_api_server_is_ahead() {
    let mut world = World::new();
    world.now = "2026-11-23T11:58:00Z".parse().unwrap();
    world.is_approved();
}
