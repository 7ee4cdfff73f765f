//! The layer with which a container can filter packets: Debian's nft, iptables and conntrack with what they load.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::archive::{Entry, Layer};
use crate::command;

/// The names under which one program of Debian's `iptables` is called.
const IPTABLES: &[&str] =
    &["iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"];

/// Debian's alternatives behind `iptables`; which of them it is, is the host's choice, and so the machines'.
const NFT_MULTI: &str = "/usr/sbin/xtables-nft-multi";
const LEGACY_MULTI: &str = "/usr/sbin/xtables-legacy-multi";

/// The programs, the libraries that they are linked with, and iptables' matches and targets.
pub fn layer() -> Result<Layer> {
    let chosen = fs::canonicalize("/usr/sbin/iptables").context("there is no iptables")?;
    let programs = ["/usr/sbin/nft", "/usr/sbin/conntrack", NFT_MULTI, LEGACY_MULTI];
    let mut layer: Layer = programs.iter().map(|program| same_place(Path::new(program))).collect();
    for name in IPTABLES {
        let target = chosen.file_name().unwrap_or_default().to_string_lossy().into_owned();
        layer.push(Entry::Link(format!("usr/sbin/{name}").into(), target.into()));
    }
    let listed = command::run(Command::new("dpkg-query").args(["--listfiles", "iptables"]))?;
    let extensions: Vec<_> = listed.lines().filter(|line| line.contains("/xtables/lib")).collect();
    // The extensions need libraries that the programs do not: the match `statistic` calculates.
    let linked = command::run(Command::new("ldd").args(programs).args(&extensions))?;
    layer.extend(libraries_in(&linked).iter().map(|library| same_place(library)));
    layer.extend(extensions.iter().map(|extension| same_place(Path::new(extension))));
    layer.push(Entry::Shared("run"));
    Ok(layer)
}

/// A file of the host at its own path, also where a folder of the path is a link there.
fn same_place(path: &Path) -> Entry {
    let relative = path.to_string_lossy().trim_start_matches('/').to_owned();
    Entry::Program(relative.into(), path.to_owned())
}

/// The files in the answer of `ldd`, which has a line for each file asked about and, indented, its libraries: `name => /path (0x1)` and, for the loader, `/path (0x1)`.
fn libraries_in(text: &str) -> BTreeSet<PathBuf> {
    let answers = text.lines().filter(|line| line.starts_with('\t'));
    let words = answers.filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    words.map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found_and_neither_the_program_nor_the_kernels_page_is() {
        let text = "/usr/sbin/nft:\n\tlinux-vdso.so.1 (0x00007f)\n\tlibmnl.so.0 => /lib/x86_64-linux-gnu/libmnl.so.0 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = ["/lib/x86_64-linux-gnu/libmnl.so.0", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(libraries_in(text), BTreeSet::from(expected));
    }
}
