//! An issuer of tokens, as a company's identity provider is one: `openssl s_server` hands out its documents, and
//! `openssl` signs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::command;
use crate::lab::Lab;
use crate::network::free_port;
use crate::process::Process;

/// A running issuer. It ends with its lab.
#[derive(Debug)]
pub struct Issuer {
    url: String,
    folder: PathBuf,
    _process: Process,
}

impl Issuer {
    /// Starts one on the host, where machines reach it.
    ///
    /// # Errors
    /// When openssl fails.
    pub fn start(lab: &Lab) -> Result<Self> {
        let folder = lab.folder().join("issuer");
        fs::create_dir_all(folder.join(".well-known"))?;
        let (address, port) = (lab.host_address(), free_port()?);
        let url = format!("https://{address}:{port}");
        openssl(&folder, &["genrsa", "-out", "signing.key", "2048"])?;
        openssl(
            &folder,
            &[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-keyout",
                "server.key",
                "-out",
                "server.crt",
                "-days",
                "2",
                "-subj",
                "/CN=issuer",
                "-addext",
                &format!("subjectAltName=IP:{address}"),
            ],
        )?;
        let documents = [
            (
                ".well-known/openid-configuration",
                json!({"issuer": url, "jwks_uri": format!("{url}/jwks"),
                "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"]}),
            ),
            (
                "jwks",
                json!({"keys": [{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "lab", "e": "AQAB", "n": modulus(&folder)?}]}),
            ),
        ];
        for (path, document) in documents {
            fs::write(folder.join(path), document.to_string())?;
        }
        let mut server = Command::new("openssl");
        server.current_dir(&folder).args(["s_server", "-quiet", "-WWW", "-key", "server.key", "-cert", "server.crt"]);
        server.args(["-accept", &format!("{address}:{port}")]);
        let process = Process::start("the issuer of tokens", lab.id(), &mut server, lab.site().log("issuer"))?;
        Ok(Self { url, folder, _process: process })
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The certificate that its server is verified with, as PEM.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn certificate(&self) -> Result<String> {
        fs::read_to_string(self.folder.join("server.crt")).context("the issuer's certificate")
    }

    /// A token with these claims besides `iss`.
    ///
    /// # Errors
    /// When openssl fails.
    pub fn token(&self, mut claims: Value) -> Result<String> {
        claims["iss"] = self.url.as_str().into();
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&json!({"alg": "RS256", "typ": "JWT", "kid": "lab"})), part(&claims));
        fs::write(self.folder.join("signed"), &signed)?;
        openssl(&self.folder, &["dgst", "-sha256", "-sign", "signing.key", "-out", "signature", "signed"])?;
        let signature = fs::read(self.folder.join("signature"))?;
        Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }
}

fn modulus(folder: &Path) -> Result<String> {
    let text = openssl(folder, &["rsa", "-in", "signing.key", "-modulus", "-noout"])?;
    let digits = text.trim().strip_prefix("Modulus=").context("openssl printed no modulus")?;
    let bytes = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16));
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes.collect::<Result<Vec<_>, _>>()?))
}

fn openssl(folder: &Path, arguments: &[&str]) -> Result<String> {
    command::run(Command::new("openssl").current_dir(folder).args(arguments))
}
