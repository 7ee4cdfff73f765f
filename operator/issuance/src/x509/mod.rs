//! X.509 as it is written: keys, certificates, authorities and requests. Random numbers are used for keys and serial
//! numbers. Reading is in `keyplane_core::pki`.

mod authority;
mod certificate;
mod fields;
mod key;
mod request;
mod subject;

pub use authority::{cross_sign, mint_authority, renew_authority};
pub use certificate::issue;
pub use key::{encryption_key, generate};
pub use request::request;
