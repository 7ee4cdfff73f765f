//! Has a static pod made anew for files that its component reads only when it starts.

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;

use super::component_of;
use crate::manifests::File;
use crate::rotation::reload;
use crate::yaml;

/// Puts the marks of the machine's Secret onto the manifests: another text, and so another pod.
pub(super) fn mark(files: &mut [File], secret: Option<&Secret>) {
    for file in files {
        let Some(component) = component_of(file) else { continue };
        if let Some(marked) = marked(component, &file.content, secret) {
            file.content = marked;
        }
    }
}

/// A manifest with the mark of the machine's Secret; nothing if it has none for the component.
pub(super) fn marked(component: &str, manifest: &str, secret: Option<&Secret>) -> Option<String> {
    let mark = reload::mark_of(component);
    let value = secret?.annotations().get(&mark)?;
    // What Keyplane has written a moment ago can be read.
    let mut pod = serde_saphyr::from_str::<Pod>(manifest).ok()?;
    pod.annotations_mut().insert(mark, value.clone());
    Some(yaml::write_object(&pod))
}
