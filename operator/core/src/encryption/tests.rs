//! Tests of each stage, and a property test with random actions of API servers, writers and users.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use keyplane_crds::{EncryptionProvider, RotationPhase};
use proptest::prelude::*;

use super::proof::configuration_hash as hash;
use super::*;

const DELAYS: Delays = Delays { request: SignedDuration::from_secs(60), history: SignedDuration::from_secs(600) };

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn settings(provider: EncryptionProvider, resources: &[&str]) -> Settings {
    Settings {
        provider,
        resources: resources.iter().map(|resource| (*resource).to_owned()).collect(),
        rotation_period: None,
        keep_retired: SignedDuration::from_hours(1),
    }
}

fn secrets() -> Wanted {
    Wanted { settings: Some(settings(EncryptionProvider::Secretbox, &["secrets"])), ..Wanted::default() }
}

/// Renders the file with the name of each key as its secret.
fn file(state: &State) -> String {
    configuration(state, |name| Some(name.to_owned())).unwrap()
}

/// Nodes with the configuration that their API servers have loaded.
struct Cluster {
    nodes: Vec<String>,
    facts: Facts,
    now: Timestamp,
}

impl Cluster {
    fn new() -> Self {
        Self { nodes: ["cp1", "cp2"].map(str::to_owned).into(), facts: Facts::default(), now: at(0) }
    }

    fn load(&mut self, node: &str, state: &State) {
        self.facts.configurations.insert(node.to_owned(), Ok(hash(&file(state))));
    }

    fn decide(&self, wanted: &Wanted, state: Option<&State>, pristine: bool) -> Option<State> {
        let file = state.map(file).unwrap_or_default();
        let inputs = EncryptionInputs {
            nodes: &self.nodes,
            file: &file,
            facts: Some(&self.facts),
            delays: DELAYS,
            pristine,
            window_open: true,
            now: self.now,
        };
        decide(wanted, state, &inputs)
    }

    /// Fulfils every condition until the change is completed. Returns the stages.
    fn run(&mut self, wanted: &Wanted, state: &mut State) -> Vec<Stage> {
        let mut stages = vec![];
        for _ in 0..20 {
            for node in self.nodes.clone() {
                self.load(&node, state);
            }
            if let Some(work) = state.work(DELAYS) {
                let progress = Progress { done: work.resources, ..Progress::default() };
                self.facts.reencryption = Some(Reencryption { since: work.since, progress, trouble: None });
            }
            self.now += SignedDuration::from_secs(601);
            let Some(next) = self.decide(wanted, Some(state), false) else { return stages };
            stages.extend(next.change.as_ref().map(|change| change.stage));
            *state = next;
        }
        panic!("never settled: {state:?}");
    }
}

fn writers(state: &State, resource: &str) -> Vec<String> {
    let list = lists(state).remove(resource).unwrap_or_default();
    list.into_iter().map(|writer| if let Writer::Key(name) = writer { name } else { "identity".to_owned() }).collect()
}

fn stage(state: &State) -> Option<Stage> {
    state.change.as_ref().map(|change| change.stage)
}

#[test]
fn new_cluster_encrypts_at_once_and_running_one_in_stages() {
    let cluster = Cluster::new();
    let born = cluster.decide(&secrets(), None, true).unwrap();
    assert_eq!((stage(&born), writers(&born, "secrets")), (None, vec!["key-1".to_owned()]));
    assert_eq!(rotation(&born, vec![]), None);
    let running = cluster.decide(&secrets(), None, false).unwrap();
    assert_eq!(
        (stage(&running), writers(&running, "secrets")),
        (Some(Stage::Publish), vec!["identity".to_owned(), "key-1".to_owned()])
    );
    assert_eq!(cluster.decide(&Wanted::default(), None, true), None);
}

#[test]
fn each_stage_waits_for_every_api_server_and_names_it() {
    let mut cluster = Cluster::new();
    let wanted = secrets();
    let mut state = cluster.decide(&wanted, None, false).unwrap();
    for (expected, list) in [
        (Stage::Publish, ["identity", "key-1"].as_slice()),
        (Stage::Write, &["key-1", "identity"]),
        (Stage::Reencrypt, &["key-1", "identity"]),
        (Stage::Settle, &["key-1", "identity"]),
        (Stage::Drop, &["key-1"]),
    ] {
        assert_eq!(
            (stage(&state), writers(&state, "secrets")),
            (Some(expected), list.iter().map(ToString::to_string).collect())
        );
        let step = |cluster: &Cluster| cluster.decide(&wanted, Some(&state), false);
        let next = match expected {
            Stage::Publish | Stage::Write | Stage::Drop => {
                cluster.facts.configurations.clear();
                cluster.load("cp1", &state);
                assert_eq!(step(&cluster), None, "cp2 was not asked");
                cluster.facts.configurations.insert("cp2".to_owned(), Ok(hash("another")));
                assert_eq!(step(&cluster), None, "cp2 has another file");
                let nodes = cluster.nodes.clone();
                let file = file(&state);
                let facts = Some(&cluster.facts);
                let inputs = EncryptionInputs {
                    nodes: &nodes,
                    file: &file,
                    facts,
                    delays: DELAYS,
                    pristine: false,
                    window_open: true,
                    now: at(0),
                };
                let messages = waits(&state, &inputs, |node| format!("demo-{node}-pki"));
                assert!(
                    messages.len() == 1 && messages[0].contains("cp2") && messages[0].contains("demo-cp2-pki"),
                    "{messages:?}"
                );
                cluster.load("cp2", &state);
                step(&cluster)
            }
            Stage::Reencrypt => {
                let since = state.change.as_ref().unwrap().since;
                let begins = state.work(DELAYS).unwrap().begins;
                assert_eq!(begins, since + DELAYS.request);
                let done = |done: &[&str], last: &str| Progress {
                    done: done.iter().map(ToString::to_string).collect(),
                    last: Some(("secrets".to_owned(), last.to_owned())),
                    objects: 2,
                };
                let previous_writer =
                    Reencryption { since: at(-1), progress: done(&["secrets"], "a/b"), trouble: None };
                cluster.facts.reencryption = Some(previous_writer);
                assert_eq!(step(&cluster), None, "of another stage");
                cluster.facts.reencryption = Some(Reencryption { since, progress: done(&[], "a/b"), trouble: None });
                let half = step(&cluster).unwrap();
                assert_eq!(half.change.as_ref().unwrap().progress.last, Some(("secrets".to_owned(), "a/b".to_owned())));
                assert_eq!(
                    (event_reason(Some(&state), &half), event_reason(None, &half)),
                    (None, Some("EncryptionReencrypt"))
                );
                assert_eq!(cluster.decide(&wanted, Some(&half), false), None, "it is remembered once");
                state = half;
                cluster.facts.reencryption =
                    Some(Reencryption { since, progress: done(&["secrets"], "z/z"), trouble: None });
                cluster.decide(&wanted, Some(&state), false)
            }
            Stage::Settle => {
                cluster.now += SignedDuration::from_secs(599);
                assert_eq!(step(&cluster), None, "lists and watches may read older revisions");
                assert_eq!(next_time(&wanted, &state, DELAYS), Some(cluster.now + SignedDuration::from_secs(1)));
                cluster.now += SignedDuration::from_secs(1);
                step(&cluster)
            }
        };
        state = next.unwrap_or_else(|| panic!("{expected:?} does not end"));
    }
    assert_eq!((stage(&state), writers(&state, "secrets")), (None, vec!["key-1".to_owned()]));
    assert_eq!(rotation(&state, vec![]).unwrap().phase, RotationPhase::Completed);
}

#[test]
fn new_key_provider_resources_and_disabling_use_the_same_stages() {
    let all = [Stage::Write, Stage::Reencrypt, Stage::Settle, Stage::Drop];
    let mut cluster = Cluster::new();
    let mut state = cluster.decide(&secrets(), None, true).unwrap();
    let steps: [(Wanted, &[(&str, &str)]); 5] = [
        (Wanted { requested: Some("a".to_owned()), ..secrets() }, &[("secrets", "key-2")]),
        (
            Wanted { settings: Some(settings(EncryptionProvider::Secretbox, &["configmaps", "secrets"])), ..secrets() },
            &[("secrets", "key-2"), ("configmaps", "key-2")],
        ),
        (
            Wanted { settings: Some(settings(EncryptionProvider::Aescbc, &["configmaps"])), ..secrets() },
            &[("configmaps", "key-3")],
        ),
        (Wanted::default(), &[]),
        (secrets(), &[("secrets", "key-4")]),
    ];
    for (wanted, expected) in steps {
        state = cluster.decide(&wanted, Some(&state), false).unwrap();
        assert_eq!(stage(&state), Some(Stage::Publish));
        // The new key answers the request.
        let answered = Wanted { requested: None, ..wanted };
        assert_eq!(cluster.run(&answered, &mut state), all);
        let there: Vec<_> =
            state.resources.keys().map(|name| (name.clone(), writers(&state, name).join(","))).collect();
        let expected: BTreeMap<_, _> = expected.iter().copied().collect();
        assert_eq!(there, expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>());
        assert!(keys_in(&file(&state)).len() <= 1, "an old key is left on the nodes");
    }
    // Names are never reused, and the retirement time of a key is recorded.
    let names: Vec<_> = state.keys.iter().map(|key| (key.name.as_str(), key.retired.is_some())).collect();
    assert_eq!(names.last(), Some(&("key-4", false)));
    assert!(names.iter().rev().skip(1).all(|(_, retired)| *retired));
}

#[test]
fn reencrypts_only_resources_whose_key_changes() {
    let mut cluster = Cluster::new();
    let mut state = cluster.decide(&secrets(), None, true).unwrap();
    let both =
        Wanted { settings: Some(settings(EncryptionProvider::Secretbox, &["configmaps", "secrets"])), ..secrets() };
    state = cluster.decide(&both, Some(&state), false).unwrap();
    assert_eq!(
        (writers(&state, "secrets").join(","), writers(&state, "configmaps").join(",")),
        ("key-1".to_owned(), "identity,key-1".to_owned())
    );
    assert_eq!(state.changed_resources(), BTreeSet::from(["configmaps".to_owned()]));
    cluster.run(&both, &mut state);
}

#[test]
fn rotates_an_old_key_inside_the_maintenance_window() {
    let mut cluster = Cluster::new();
    let state = cluster.decide(&secrets(), None, true).unwrap();
    let mut wanted = secrets();
    wanted.settings.as_mut().unwrap().rotation_period = Some(SignedDuration::from_hours(24));
    assert_eq!(next_time(&wanted, &state, DELAYS), Some(at(86400)));
    cluster.now = at(86399);
    assert_eq!(cluster.decide(&wanted, Some(&state), false), None);
    cluster.now = at(86400);
    let file = file(&state);
    let inputs = EncryptionInputs {
        nodes: &cluster.nodes,
        file: &file,
        facts: None,
        delays: DELAYS,
        pristine: false,
        window_open: false,
        now: cluster.now,
    };
    assert_eq!(decide(&wanted, Some(&state), &inputs), None);
    let next = decide(&wanted, Some(&state), &EncryptionInputs { window_open: true, ..inputs }).unwrap();
    assert_eq!(writers(&next, "secrets"), ["key-1", "key-2"]);
}

#[test]
fn keeps_a_retired_key_for_the_configured_time() {
    let mut cluster = Cluster::new();
    let mut state = cluster.decide(&secrets(), None, true).unwrap();
    state = cluster.decide(&Wanted { requested: Some("a".to_owned()), ..secrets() }, Some(&state), false).unwrap();
    cluster.run(&secrets(), &mut state);
    let retired = state.keys[0].retired.unwrap();
    assert_eq!(next_time(&secrets(), &state, DELAYS), Some(retired + SignedDuration::from_hours(1)));
    cluster.now = retired + SignedDuration::from_mins(59);
    assert_eq!(cluster.decide(&secrets(), Some(&state), false), None);
    cluster.now = retired + SignedDuration::from_hours(1);
    let next = cluster.decide(&secrets(), Some(&state), false).unwrap();
    assert_eq!(next.keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["key-2"]);
    assert_eq!(event_reason(Some(&state), &next), None);
}

#[test]
fn rolls_back_in_every_stage_except_drop() {
    let asked = Wanted { requested: Some("a".to_owned()), ..secrets() };
    let back = Wanted { rolls_back: true, ..secrets() };
    for begun in [Stage::Publish, Stage::Write, Stage::Reencrypt, Stage::Settle, Stage::Drop] {
        let mut cluster = Cluster::new();
        let born = cluster.decide(&secrets(), None, true).unwrap();
        let mut state = cluster.decide(&asked, Some(&born), false).unwrap();
        while stage(&state) != Some(begun) {
            for node in ["cp1", "cp2"] {
                cluster.load(node, &state);
            }
            if let Some(work) = state.work(DELAYS) {
                let progress = Progress { done: work.resources, ..Progress::default() };
                cluster.facts.reencryption = Some(Reencryption { since: work.since, progress, trouble: None });
            }
            cluster.now += SignedDuration::from_secs(601);
            state = cluster.decide(&secrets(), Some(&state), false).unwrap();
        }
        cluster.facts.configurations.clear();
        let key = if begun == Stage::Drop {
            assert_eq!(cluster.decide(&back, Some(&state), false), None);
            "key-2"
        } else {
            state = cluster.decide(&back, Some(&state), false).unwrap();
            assert!(rotation(&state, vec![]).unwrap().rolling_back);
            "key-1"
        };
        cluster.run(&back, &mut state);
        assert_eq!(writers(&state, "secrets"), [key], "{begun:?}");
        assert_eq!(rotation(&state, vec![]).unwrap().rolling_back, begun != Stage::Drop);
    }
}

#[test]
fn disabling_while_enabling_rolls_back() {
    let mut cluster = Cluster::new();
    let mut state = cluster.decide(&secrets(), None, false).unwrap();
    state = cluster.decide(&Wanted::default(), Some(&state), false).unwrap();
    assert_eq!((stage(&state), file(&state).contains("key-1")), (Some(Stage::Drop), false));
    cluster.run(&Wanted::default(), &mut state);
    assert!(!state.is_in_use());
    assert!(file(&state).contains("identity"));
}

#[test]
fn state_and_messages_contain_no_key() {
    let cluster = Cluster::new();
    let state = cluster.decide(&secrets(), None, false).unwrap();
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
    let written = configuration(&state, |_| Some("c2VjcmV0".to_owned())).unwrap();
    assert!(written.contains("c2VjcmV0"));
    assert!(!text.contains("c2VjcmV0") && !describe(&state).contains("c2VjcmV0"));
    assert_eq!(keys_in(&written), BTreeMap::from([("key-1".to_owned(), "c2VjcmV0".to_owned())]));
}

mod world;
