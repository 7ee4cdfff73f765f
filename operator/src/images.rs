//! `keyplane images`: the images that a registry must have before a cluster can start.

use serde_json::json;

use crate::args::{ImagesArguments, ImagesFormat};
use crate::render::{self, RenderError};
use keyplane_core::images::required_images;

/// Lists every image of every ClusterSpec in the files, each once.
///
/// # Errors
/// The first problem of a file.
pub fn list(arguments: &ImagesArguments) -> Result<String, RenderError> {
    let mut images: Vec<String> = vec![];
    for cluster in render::read_clusters(&arguments.filenames)? {
        for image in required_images(&cluster) {
            if !images.contains(&image) {
                images.push(image);
            }
        }
    }
    Ok(match arguments.output {
        ImagesFormat::Text => images.join("\n") + "\n",
        ImagesFormat::Json => format!("{:#}\n", json!({"images": images})),
    })
}
