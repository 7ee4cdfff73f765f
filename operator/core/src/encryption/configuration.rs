//! Renders the `EncryptionConfiguration` (`apiserver.config.k8s.io/v1`) of the API servers.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Stage, State, Writer};
use crate::yaml;

/// Returns the providers that can read each resource. The first one writes.
#[must_use]
pub fn lists(state: &State) -> BTreeMap<String, Vec<Writer>> {
    let mut resources: Vec<_> = state.resources.keys().collect();
    resources.extend(state.change.iter().flat_map(|change| change.to.keys()));
    let list = |resource: &str| {
        let (previous_writer, next_writer) =
            (state.previous_writer(resource).clone(), state.next_writer(resource).clone());
        match state.change.as_ref().map(|change| change.stage) {
            _ if previous_writer == next_writer => vec![previous_writer],
            None | Some(Stage::Publish) => vec![previous_writer, next_writer],
            Some(Stage::Write | Stage::Reencrypt | Stage::Settle) => vec![next_writer, previous_writer],
            Some(Stage::Drop) => vec![next_writer],
        }
    };
    resources.into_iter().map(|resource| (resource.clone(), list(resource))).collect()
}

/// Renders the file. `material` returns a key in base64 by its name. `None` if a key is missing.
#[must_use]
pub fn configuration(state: &State, material: impl Fn(&str) -> Option<String>) -> Option<String> {
    let mut groups: BTreeMap<Vec<Writer>, Vec<String>> = BTreeMap::new();
    for (resource, list) in lists(state) {
        groups.entry(list).or_default().push(resource);
    }
    let groups = groups.into_iter().map(|(list, resources)| {
        Some(json!({"resources": resources, "providers": providers(state, &list, &material)?}))
    });
    let mut groups = groups.collect::<Option<Vec<_>>>()?;
    if groups.is_empty() {
        // An API server rejects a file without resources.
        groups.push(json!({"resources": ["secrets"], "providers": [{"identity": {}}]}));
    }
    Some(yaml::write(&json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": groups,
    })))
}

/// Returns the provider entries. Consecutive keys of one provider form one entry: with two entries, an API server would
/// count each read with the second one as a failure of the first.
fn providers(state: &State, list: &[Writer], material: impl Fn(&str) -> Option<String>) -> Option<Vec<Value>> {
    let mut providers: Vec<(&'static str, Vec<Value>)> = vec![];
    for writer in list {
        let Writer::Key(name) = writer else {
            providers.push(("identity", vec![]));
            continue;
        };
        let provider = state.keys.iter().find(|key| key.name == *name)?.provider.name();
        let key = json!({"name": name, "secret": material(name)?});
        match providers.last_mut() {
            Some((last, keys)) if *last == provider => keys.push(key),
            _ => providers.push((provider, vec![key])),
        }
    }
    let entry = |(provider, keys): (&str, Vec<Value>)| {
        if keys.is_empty() { json!({provider: {}}) } else { json!({provider: {"keys": keys}}) }
    };
    Some(providers.into_iter().map(entry).collect())
}

/// Returns the keys in such a file, by name, in base64.
#[must_use]
pub fn keys_in(configuration: &str) -> BTreeMap<String, String> {
    let Ok(read) = serde_saphyr::from_str::<Value>(configuration) else { return BTreeMap::new() };
    let items = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    let providers = items(&read, "resources").into_iter().flat_map(|group| items(&group, "providers"));
    let entries = providers.flat_map(|provider| provider.as_object().cloned().unwrap_or_default());
    let keys = entries.flat_map(|(_, entry)| items(&entry, "keys"));
    let text = |key: &Value, name: &str| key[name].as_str().map(str::to_owned);
    keys.filter_map(|key| text(&key, "name").zip(text(&key, "secret"))).collect()
}
