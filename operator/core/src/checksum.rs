//! SHA-256 checksums and hexadecimal text.

use aws_lc_rs::digest;

/// Returns the SHA-256 of keys and values in hexadecimal. The length precedes each part, so that no two inputs collide.
#[must_use]
pub fn checksum<'a>(entries: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for (key, value) in entries {
        for part in [key.as_bytes(), value] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
    }
    hexadecimal(context.finish().as_ref())
}

/// Returns the bytes in lower-case hexadecimal.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}
