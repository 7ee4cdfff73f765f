//! Who asks.

use super::csr::{COMMON_NAME, ORGANIZATION, ORGANIZATIONAL_UNIT, part, rdn};
use super::*;
use crate::approval::der;

const T61_STRING: u8 = 0x14;
const IA5_STRING: u8 = 0x16;
const BMP_STRING: u8 = 0x1e;

#[test]
fn approves_a_kubelet_that_asks_for_what_it_has() {
    World::new().is_approved();
}

#[test]
fn denies_a_requester_that_is_no_node() {
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
fn denies_a_requester_outside_of_the_groups_of_nodes() {
    for groups in
        [vec![], vec!["system:nodes"], vec!["system:authenticated"], vec!["system:nodes2", "system:authenticated"]]
    {
        let mut world = World::new();
        world.request.groups = groups.into_iter().map(ToOwned::to_owned).collect();
        world.is_denied("groups", "RequesterNotInGroup");
    }
}

#[test]
fn approves_a_node_with_one_more_group() {
    let mut world = World::new();
    world.request.groups.insert(0, "system:bootstrappers".to_owned());
    world.is_approved();
}

#[test]
fn denies_a_node_that_asks_in_the_name_of_another() {
    World::asked(&Csr::of("cp1").named(&["worker1"], &["10.0.0.21"]))
        .is_denied("common-name", "CommonNameNotRequester");
}

#[test]
fn denies_a_common_name_that_only_looks_like_the_requesters() {
    for name in ["system:node:Worker1", "system:node:worker1 ", "system:node:worker11", "worker1"] {
        let csr = Csr::but(|csr| csr.subject[1] = rdn(COMMON_NAME, der::UTF8_STRING, name.as_bytes()));
        World::asked(&csr).is_denied("common-name", "CommonNameNotRequester");
    }
}

#[test]
fn denies_another_organization() {
    for name in ["system:masters", "system:nodes ", "System:nodes", "kubeadm:cluster-admins"] {
        let csr = Csr::but(|csr| csr.subject[0] = rdn(ORGANIZATION, der::UTF8_STRING, name.as_bytes()));
        World::asked(&csr).is_denied("organization", "OrganizationNotAllowed");
    }
}

#[test]
fn denies_a_second_organization_wherever_it_stands() {
    let masters = part(ORGANIZATION, der::PRINTABLE_STRING, b"system:masters");
    let nodes = part(ORGANIZATION, der::PRINTABLE_STRING, b"system:nodes");
    let apart = Csr::but(|csr| csr.subject.push(der::constructed(der::SET, std::slice::from_ref(&masters))));
    World::asked(&apart).is_denied("subject", "SubjectNotAllowed");
    let before = Csr::but(|csr| csr.subject.insert(0, der::constructed(der::SET, std::slice::from_ref(&masters))));
    World::asked(&before).is_denied("subject", "SubjectNotAllowed");
    let together = Csr::but(|csr| csr.subject[0] = der::constructed(der::SET, &[masters.clone(), nodes.clone()]));
    World::asked(&together).is_denied("subject", "SubjectNotAllowed");
    let twice = Csr::but(|csr| csr.subject.push(der::constructed(der::SET, std::slice::from_ref(&nodes))));
    World::asked(&twice).is_denied("subject", "SubjectNotAllowed");
}

#[test]
fn denies_two_common_names_in_one_part_of_the_name() {
    let names = [
        part(COMMON_NAME, der::PRINTABLE_STRING, b"system:node:cp1"),
        part(COMMON_NAME, der::PRINTABLE_STRING, b"system:node:worker1"),
    ];
    let csr = Csr::but(|csr| csr.subject[1] = der::constructed(der::SET, &names));
    World::asked(&csr).is_denied("subject", "SubjectNotAllowed");
}

#[test]
fn denies_a_subject_with_something_missing_or_something_more() {
    World::asked(&Csr::but(|csr| csr.subject.truncate(1))).is_denied("subject", "SubjectNotAllowed");
    World::asked(&Csr::but(|csr| drop(csr.subject.remove(0)))).is_denied("subject", "SubjectNotAllowed");
    World::asked(&Csr::but(|csr| csr.subject.clear())).is_denied("subject", "SubjectNotAllowed");
    let unit = rdn(ORGANIZATIONAL_UNIT, der::PRINTABLE_STRING, b"x");
    World::asked(&Csr::but(|csr| csr.subject.push(unit))).is_denied("subject", "SubjectNotAllowed");
}

#[test]
fn denies_a_subject_in_an_encoding_that_readers_differ_about() {
    for tag in [T61_STRING, IA5_STRING] {
        let csr = Csr::but(|csr| csr.subject[1] = rdn(COMMON_NAME, tag, b"system:node:worker1"));
        World::asked(&csr).is_denied("subject", "SubjectNotAllowed");
    }
    let wide: Vec<u8> = b"system:node:worker1".iter().flat_map(|byte| [0, *byte]).collect();
    let csr = Csr::but(|csr| csr.subject[1] = rdn(COMMON_NAME, BMP_STRING, &wide));
    World::asked(&csr).is_denied("subject", "SubjectNotAllowed");
}

#[test]
fn denies_a_nul_in_the_common_name() {
    let csr = Csr::but(|csr| csr.subject[1] = rdn(COMMON_NAME, der::UTF8_STRING, b"system:node:worker1\0.example"));
    World::asked(&csr).is_denied("subject", "SubjectNotAllowed");
}

#[test]
fn takes_the_two_parts_of_the_subject_in_either_order_and_encoding() {
    World::asked(&Csr::but(|csr| csr.subject.swap(0, 1))).is_approved();
    World::asked(&Csr::but(|csr| csr.subject[0] = rdn(ORGANIZATION, der::UTF8_STRING, b"system:nodes"))).is_approved();
}
