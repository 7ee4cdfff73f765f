//! An authority and a client certificate from it, as the owner of an etcd would hand them out, and an authority below a
//! company's root: made with openssl.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::command;

const SCRIPT: &str = "
set -eu
new='openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
$new -x509 -days 30 -subj /CN=corp-etcd-ca -keyout ca.key -out ca.crt
$new -subj /CN=demo -keyout tls.key -out tls.csr
printf 'extendedKeyUsage=clientAuth' > tls.ext
openssl x509 -req -days 30 -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile tls.ext -out tls.crt
rm ca.key tls.csr tls.ext
";

const AUTHORITY: &str = "
set -eu
new='openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
$new -x509 -days 30 -subj /CN=corp-root -keyout root.key -out ca.crt
$new -subj /O=corp/CN=demo -keyout tls.key -out tls.csr
printf 'basicConstraints=critical,CA:TRUE\\nkeyUsage=critical,keyCertSign\\nsubjectKeyIdentifier=hash' > tls.ext
openssl x509 -req -days 30 -in tls.csr -CA ca.crt -CAkey root.key -CAcreateserial -extfile tls.ext -out tls.crt
rm root.key tls.csr tls.ext
";

/// Makes an authority below a root in a folder: `ca.crt` (the root), `tls.crt` and `tls.key`.
///
/// # Errors
/// When openssl fails.
pub fn make_authority(folder: &Path) -> Result<()> {
    run(folder, AUTHORITY)
}

/// Makes `ca.crt`, `tls.crt` and `tls.key` in a folder.
///
/// # Errors
/// When openssl fails.
pub fn make(folder: &Path) -> Result<()> {
    run(folder, SCRIPT)
}

fn run(folder: &Path, script: &str) -> Result<()> {
    fs::create_dir_all(folder)?;
    command::run(Command::new("sh").args(["-c", script]).current_dir(folder)).map(|_| ())
}
