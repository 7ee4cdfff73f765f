//! Fuzz tests: the parser survives any input, and never leads to an approval of content that it does not support.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use super::csr::pem;
use super::property::read_request;
use super::*;
use crate::approval::pkcs10::Pkcs10;

/// The number of cases per test; all tests together take a few seconds. `PROPTEST_CASES` overrides the number.
const CASES: u32 = 1500;

fn runner() -> TestRunner {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

/// One change of some bytes.
#[derive(Clone, Debug)]
enum Edit {
    Set(Index, u8),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize),
    Truncate(Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        (any::<Index>(), vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (any::<Index>(), 1..16_usize).prop_map(|(at, count)| Edit::Remove(at, count)),
        (any::<Index>(), 1..64_usize).prop_map(|(at, count)| Edit::Repeat(at, count)),
        any::<Index>().prop_map(Edit::Truncate),
    ]
}

fn edited(bytes: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for edit in edits {
        if bytes.is_empty() {
            break;
        }
        match edit {
            Edit::Set(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Edit::Flip(at, bit) => {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            Edit::Insert(at, more) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, more.iter().copied());
            }
            Edit::Remove(at, count) => {
                let at = at.index(bytes.len());
                let end = (at + count).min(bytes.len());
                bytes.drain(at..end);
            }
            Edit::Repeat(at, count) => {
                let at = at.index(bytes.len());
                let again = bytes[at..(at + count).min(bytes.len())].to_vec();
                bytes.splice(at..at, again);
            }
            Edit::Truncate(at) => bytes.truncate(at.index(bytes.len())),
        }
    }
    bytes
}

fn verdict(request: Vec<u8>) -> Verdict {
    let mut world = World::new();
    world.request.request = request;
    world.evaluate().verdict
}

fn run<S: Strategy>(strategy: &S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    if let Err(error) = runner().run(strategy, test) {
        panic!("{error}");
    }
}

#[test]
fn parser_survives_arbitrary_bytes() {
    run(&vec(any::<u8>(), 0..600), |bytes| {
        let _ = Pkcs10::parse(&bytes);
        if let Ok(parsed) = Pkcs10::parse(&pem("CERTIFICATE REQUEST", &bytes)) {
            let _ = (parsed.identity(), parsed.is_canonical());
        }
        Ok(())
    });
}

#[test]
fn parser_survives_almost_valid_pem() {
    let good = Csr::but(|_| ()).pem();
    run(&vec(edit(), 1..4), |edits| {
        let request = edited(&good, &edits);
        let approved = verdict(request.clone()) == Verdict::Approve;
        // Only the text around the Base64 and the line breaks may differ.
        let content = |pem: &[u8]| x509_parser::pem::parse_x509_pem(pem).map(|(_, block)| block.contents).ok();
        prop_assert!(!approved || content(&request) == content(&good));
        Ok(())
    });
}

#[test]
fn never_approves_request_changed_after_signing() {
    let csr = Csr::but(|_| ());
    let der = csr.der();
    let info = csr.info();
    assert_eq!(verdict(pem("CERTIFICATE REQUEST", &der)), Verdict::Approve);
    run(&vec(edit(), 1..4), |edits| {
        let changed = edited(&der, &edits);
        let approved = verdict(pem("CERTIFICATE REQUEST", &changed)) == Verdict::Approve;
        prop_assert!(!approved || changed.windows(info.len()).any(|part| part == info));
        Ok(())
    });
}

#[test]
fn approves_request_changed_before_signing_only_if_safe() {
    let csr = Csr::of("worker1").named(&["worker1"], &["10.0.0.21", "fd00::15"]);
    let info = csr.info();
    run(&vec(edit(), 1..3), |edits| {
        let request = pem("CERTIFICATE REQUEST", &csr.sign(&edited(&info, &edits)));
        if verdict(request.clone()) == Verdict::Approve {
            let wanted = read_request(&request);
            prop_assert_eq!(wanted.others, 0);
            prop_assert_eq!(wanted.organization, ["system:nodes"]);
            prop_assert_eq!(wanted.common_name, ["system:node:worker1"]);
            prop_assert!(wanted.names.iter().all(|name| name.to_lowercase().trim_end_matches('.') == "worker1"));
            let own: Vec<std::net::IpAddr> =
                ["10.0.0.21", "fd00::15"].iter().map(|text| text.parse().unwrap()).collect();
            prop_assert!(wanted.addresses.iter().all(|address| own.contains(address)));
        }
        Ok(())
    });
}
