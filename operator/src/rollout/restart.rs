//! Has a static pod made anew for files that its component reads only when it starts.

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;

use super::component_of;
use crate::manifests::File;
use crate::rotation::reload;
use crate::yaml;

/// Puts the marks of the machine's Secret onto the manifests: another text, and so another pod.
pub(super) fn mark(files: &mut [File], secret: Option<&Secret>) {
    let Some(secret) = secret else { return };
    for file in files {
        let Some(mark) = component_of(file).map(reload::mark_of) else { continue };
        let Some(value) = secret.annotations().get(&mark) else { continue };
        // What Keyplane has written a moment ago can be read.
        let Ok(mut pod) = serde_saphyr::from_str::<Pod>(&file.content) else { continue };
        pod.annotations_mut().insert(mark, value.clone());
        file.content = yaml::write_object(&pod);
    }
}
