//! Generates keys, certificates, CAs and certificate requests. Keys and serial numbers are random. The module
//! `keyplane_core::pki` parses X.509.

mod authority;
mod certificate;
mod fields;
mod key;
mod parameters;
mod request;
mod subject;

pub use authority::{cross_sign, generate_ca, renew_ca};
pub use certificate::issue;
pub use key::{encryption_key, generate};
pub use request::request;
