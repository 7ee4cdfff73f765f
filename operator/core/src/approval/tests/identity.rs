//! Tests of the requester and the subject.

use super::csr::{COMMON_NAME, ORGANIZATION, ORGANIZATIONAL_UNIT, part, rdn};
use super::*;
use crate::approval::der;

const T61_STRING: u8 = 0x14;
const IA5_STRING: u8 = 0x16;
const BMP_STRING: u8 = 0x1e;

#[test]
fn approves_kubelet_csr_for_own_names_and_addresses() {
    World::new().is_approved();
}

#[test]
fn denies_requester_that_is_not_a_node() {
    let users = [
        "",
        "admin",
        "system:node:",
        "system:nodes:worker1",
        "xsystem:node:worker1",
        "System:node:worker1",
        "system:node:Worker1",
        "system:node:worker1.",
        "system:node:worker1 ",
        "system:node:a/b",
        "system:node:-a",
        "system:serviceaccount:kube-system:worker1",
    ];
    for user in users {
        let mut world = World::new();
        world.request.username = user.to_owned();
        world.is_denied("requester", "RequesterNotANode");
    }
}

#[test]
fn denies_requester_outside_system_nodes() {
    for groups in
        [vec![], vec!["system:nodes"], vec!["system:authenticated"], vec!["system:nodes2", "system:authenticated"]]
    {
        let mut world = World::new();
        world.request.groups = groups.into_iter().map(ToOwned::to_owned).collect();
        world.is_denied("groups", "RequesterNotInGroup");
    }
}

#[test]
fn approves_node_with_additional_group() {
    let mut world = World::new();
    world.request.groups.insert(0, "system:bootstrappers".to_owned());
    world.is_approved();
}

#[test]
fn denies_csr_with_common_name_of_another_node() {
    World::with_csr(&Csr::of("cp1").named(&["worker1"], &["10.0.0.21"]))
        .is_denied("common-name", "CommonNameNotRequester");
}

#[test]
fn denies_common_name_similar_to_username() {
    for name in ["system:node:Worker1", "system:node:worker1 ", "system:node:worker11", "worker1"] {
        let csr = Csr::but(|csr| csr.subject[1] = rdn(COMMON_NAME, der::UTF8_STRING, name.as_bytes()));
        World::with_csr(&csr).is_denied("common-name", "CommonNameNotRequester");
    }
}

#[test]
fn denies_other_organization() {
    for name in ["system:masters", "system:nodes ", "System:nodes", "kubeadm:cluster-admins"] {
        let csr = Csr::but(|csr| csr.subject[0] = rdn(ORGANIZATION, der::UTF8_STRING, name.as_bytes()));
        World::with_csr(&csr).is_denied("organization", "OrganizationNotAllowed");
    }
}

#[test]
fn denies_second_organization_at_any_position() {
    let masters = part(ORGANIZATION, der::PRINTABLE_STRING, b"system:masters");
    let nodes = part(ORGANIZATION, der::PRINTABLE_STRING, b"system:nodes");
    let apart = Csr::but(|csr| csr.subject.push(der::constructed(der::SET, std::slice::from_ref(&masters))));
    World::with_csr(&apart).is_denied("subject", "SubjectNotAllowed");
    let before = Csr::but(|csr| csr.subject.insert(0, der::constructed(der::SET, std::slice::from_ref(&masters))));
    World::with_csr(&before).is_denied("subject", "SubjectNotAllowed");
    let together = Csr::but(|csr| csr.subject[0] = der::constructed(der::SET, &[masters.clone(), nodes.clone()]));
    World::with_csr(&together).is_denied("subject", "SubjectNotAllowed");
    let twice = Csr::but(|csr| csr.subject.push(der::constructed(der::SET, std::slice::from_ref(&nodes))));
    World::with_csr(&twice).is_denied("subject", "SubjectNotAllowed");
}

#[test]
fn denies_two_common_names_in_one_rdn() {
    let names = [
        part(COMMON_NAME, der::PRINTABLE_STRING, b"system:node:cp1"),
        part(COMMON_NAME, der::PRINTABLE_STRING, b"system:node:worker1"),
    ];
    let csr = Csr::but(|csr| csr.subject[1] = der::constructed(der::SET, &names));
    World::with_csr(&csr).is_denied("subject", "SubjectNotAllowed");
}

#[test]
fn denies_subject_with_missing_or_additional_attributes() {
    World::with_csr(&Csr::but(|csr| csr.subject.truncate(1))).is_denied("subject", "SubjectNotAllowed");
    World::with_csr(&Csr::but(|csr| drop(csr.subject.remove(0)))).is_denied("subject", "SubjectNotAllowed");
    World::with_csr(&Csr::but(|csr| csr.subject.clear())).is_denied("subject", "SubjectNotAllowed");
    let unit = rdn(ORGANIZATIONAL_UNIT, der::PRINTABLE_STRING, b"x");
    World::with_csr(&Csr::but(|csr| csr.subject.push(unit))).is_denied("subject", "SubjectNotAllowed");
}

#[test]
fn denies_ambiguous_subject_encoding() {
    for tag in [T61_STRING, IA5_STRING] {
        let csr = Csr::but(|csr| csr.subject[1] = rdn(COMMON_NAME, tag, b"system:node:worker1"));
        World::with_csr(&csr).is_denied("subject", "SubjectNotAllowed");
    }
    let wide: Vec<u8> = b"system:node:worker1".iter().flat_map(|byte| [0, *byte]).collect();
    let csr = Csr::but(|csr| csr.subject[1] = rdn(COMMON_NAME, BMP_STRING, &wide));
    World::with_csr(&csr).is_denied("subject", "SubjectNotAllowed");
}

#[test]
fn denies_nul_in_common_name() {
    let csr = Csr::but(|csr| csr.subject[1] = rdn(COMMON_NAME, der::UTF8_STRING, b"system:node:worker1\0.example"));
    World::with_csr(&csr).is_denied("subject", "SubjectNotAllowed");
}

#[test]
fn accepts_subject_in_any_order_and_both_encodings() {
    World::with_csr(&Csr::but(|csr| csr.subject.swap(0, 1))).is_approved();
    World::with_csr(&Csr::but(|csr| csr.subject[0] = rdn(ORGANIZATION, der::UTF8_STRING, b"system:nodes")))
        .is_approved();
}
