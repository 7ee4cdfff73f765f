//! An authority and a client certificate from it, as the owner of an etcd would hand them out: made with openssl.

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

/// Makes `ca.crt`, `tls.crt` and `tls.key` in a folder.
///
/// # Errors
/// When openssl fails.
pub fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    command::run(Command::new("sh").args(["-c", SCRIPT]).current_dir(folder)).map(|_| ())
}
