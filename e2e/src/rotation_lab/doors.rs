//! Who is let in where, stage by stage: each server of each machine is asked with certificates of the old and of the new
//! authority, and by clients that trust only one of the two.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::load::connection::Pair;
use crate::load::credentials::{
    Authority, accepted_as_front_proxy, accepted_by_api_server, accepted_by_etcd, accepted_by_etcd_as_peer,
    accepted_by_kubelet, is_believed, of_kubeconfig,
};
use crate::scene::{CLUSTER, Scene, lock};
use crate::wait::{PATIENCE, eventually};

/// The authorities' names in the status, and what their Secrets' names end with.
const AUTHORITIES: [(&str, &str); 3] = [("ca", "ca"), ("etcd-ca", "etcd"), ("front-proxy-ca", "proxy")];

/// What holds while a stage begins. Nothing where it is what the stage changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Expected {
    /// Whether clients with certificates of the old authority are let in.
    old: Option<bool>,
    /// The same of the new one.
    new: Option<bool>,
    /// Whether who trusts the old one alone believes the servers.
    believed_by_old: Option<bool>,
    /// The same of the new one.
    believed_by_new: Option<bool>,
}

impl Expected {
    /// What the documentation says of a stage; `Completed` is one too.
    fn in_stage(stage: &str) -> Option<Self> {
        let (yes, no) = (Some(true), Some(false));
        let of = |old, new, believed_by_old, believed_by_new| Some(Self { old, new, believed_by_old, believed_by_new });
        match stage {
            "Trust" => of(yes, None, yes, no),
            "Clients" | "Signing" | "Kubelets" => of(yes, yes, yes, no),
            "Servers" => of(yes, yes, yes, None),
            "Gate" => of(yes, yes, yes, yes),
            "Drop" => of(None, yes, None, yes),
            "Completed" => of(no, yes, no, yes),
            _ => None,
        }
    }
}

/// The doors of a cluster's machines, with the authorities of before a rotation.
pub struct Doors {
    old: BTreeMap<&'static str, Authority>,
}

impl Doors {
    /// To be asked for before the rotation begins.
    ///
    /// # Errors
    /// When an authority can't be read.
    pub fn before(scene: &Scene) -> Result<Self> {
        let old = AUTHORITIES.into_iter().map(|(name, suffix)| Ok((name, signing(scene, suffix)?)));
        Ok(Self { old: old.collect::<Result<_>>()? })
    }

    /// Asks at every door of every authority of these entries of the status; gives back how many answers there were.
    ///
    /// # Errors
    /// Which door let somebody in or turned somebody away against what its stage says.
    pub fn check(&self, scene: &Scene, rotations: &[&Value]) -> Result<usize> {
        let mut answers = 0;
        for (name, suffix) in AUTHORITIES {
            let (Some(stage), Some(old)) = (stage_in(rotations.iter().copied(), name), self.old.get(name)) else {
                continue;
            };
            let expected = Expected::in_stage(stage).with_context(|| format!("{name} is in the stage {stage:?}"))?;
            let new = successor(scene, suffix, old)?;
            let round = Round { scene, stage, old, new: &new, expected };
            match round.ask(name) {
                Ok(more) => answers += more,
                // It went on while it was asked: what holds there is asked when that is told.
                Err(_) if has_gone_on(scene, name, stage)? => {}
                Err(error) => return Err(error),
            }
        }
        Ok(answers)
    }
}

/// Whether the authority `name` is not in this stage any more.
fn has_gone_on(scene: &Scene, name: &str, stage: &str) -> Result<bool> {
    let status = scene.status()?;
    Ok(stage_in(status["rotations"].as_array().into_iter().flatten(), name) != Some(stage))
}

/// The stage of the authority `name`, or that it has none any more.
fn stage_in<'a>(mut rotations: impl Iterator<Item = &'a Value>, name: &str) -> Option<&'a str> {
    rotations.find(|one| one["name"] == name).map(|one| one["stage"].as_str().unwrap_or("Completed"))
}

fn signing(scene: &Scene, suffix: &str) -> Result<Authority> {
    Authority::read(scene.admin(), &format!("{CLUSTER}-{suffix}"), "tls.crt", "tls.key")
}

/// The new one: what signs, or what is to come.
fn successor(scene: &Scene, suffix: &str, old: &Authority) -> Result<Authority> {
    let signing = signing(scene, suffix)?;
    if signing.certificate != old.certificate {
        return Ok(signing);
    }
    let read = |certificate, key| Authority::read(scene.admin(), &format!("{CLUSTER}-{suffix}"), certificate, key);
    read("next.crt", "next.key").or_else(|_| read("previous.crt", "previous.key"))
}

/// Whether the server at an address, which is trusted with these authorities, lets in the holder of a pair.
type Question = fn(&str, &[u8], &Pair) -> Result<bool>;

/// The questions for one authority in one stage.
struct Round<'a> {
    scene: &'a Scene,
    stage: &'a str,
    old: &'a Authority,
    new: &'a Authority,
    expected: Expected,
}

impl Round<'_> {
    fn ask(&self, name: &str) -> Result<usize> {
        let control_plane = self.scene.control_plane().iter().map(|machine| lock(machine).address());
        let all = self.scene.machines().map(|machine| lock(machine).address());
        let mut answers = 0;
        // Servers are dialled by who trusts both: here it is their judgement that counts.
        let trust = self.trust(name)?;
        let questions: Vec<(&str, Vec<String>, Question)> = match name {
            "ca" => vec![
                ("API server", control_plane.collect(), accepted_by_api_server),
                ("kubelet", all.collect(), accepted_by_kubelet),
            ],
            "etcd-ca" => {
                let addresses: Vec<_> = control_plane.collect();
                vec![
                    ("etcd", addresses.clone(), accepted_by_etcd),
                    ("etcd's other members", addresses, accepted_by_etcd_as_peer),
                ]
            }
            _ => vec![("aggregation", control_plane.collect(), accepted_as_front_proxy)],
        };
        let user = if name == "front-proxy-ca" { "front-proxy-client" } else { "somebody" };
        for (which, authority, expected) in [("old", self.old, self.expected.old), ("new", self.new, self.expected.new)]
        {
            let Some(expected) = expected else { continue };
            let pair = authority.client(user, &[])?;
            for (door, addresses, question) in &questions {
                for address in addresses {
                    let found = self.answer(&format!("{door} of {address}"), || question(address, &trust, &pair))?;
                    ensure!(
                        found == expected,
                        "{name} in {}: {door} of {address} with a certificate of the {which} authority: {found}",
                        self.stage
                    );
                    answers += 1;
                }
            }
        }
        Ok(answers + self.ask_who_believes(name)?)
    }

    /// What the servers are trusted with. Nothing is served with certificates below the front proxies' authority: those
    /// doors are the API servers'.
    fn trust(&self, name: &str) -> Result<Vec<u8>> {
        if name == "front-proxy-ca" {
            let owners = self.scene.admin().secret_text(&format!("{CLUSTER}-kubeconfig"), "value")?;
            return Ok(of_kubeconfig(&owners)?.authorities);
        }
        Ok(format!("{}{}", self.old.certificate, self.new.certificate).into_bytes())
    }

    /// Whether servers are believed by who trusts one alone.
    fn ask_who_believes(&self, name: &str) -> Result<usize> {
        let port = match name {
            "ca" => 6443,
            "etcd-ca" => 2379,
            _ => return Ok(0),
        };
        let mut answers = 0;
        let cases =
            [("old", self.old, self.expected.believed_by_old), ("new", self.new, self.expected.believed_by_new)];
        for (which, authority, expected) in cases {
            let Some(expected) = expected else { continue };
            for machine in self.scene.control_plane() {
                let address = lock(machine).address();
                let trust = authority.certificate.as_bytes();
                let found = self.answer(&format!("{address}:{port}"), || is_believed(&address, port, trust))?;
                ensure!(
                    found == expected,
                    "{name} in {}: {address}:{port} by who trusts the {which} authority alone: {found}",
                    self.stage
                );
                answers += 1;
            }
        }
        Ok(answers)
    }

    /// A server that is being started anew answers a little later.
    fn answer(&self, door: &str, mut ask: impl FnMut() -> Result<bool>) -> Result<bool> {
        eventually(&format!("answer of {door} in {}", self.stage), PATIENCE, &mut ask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_turned_away_before_the_old_authority_is_dropped() {
        for stage in ["Trust", "Clients", "Signing", "Kubelets", "Servers", "Gate"] {
            let expected = Expected::in_stage(stage).unwrap();
            assert_eq!((expected.old, expected.believed_by_old), (Some(true), Some(true)), "{stage}");
        }
        assert_eq!(Expected::in_stage("Completed").unwrap().old, Some(false));
        assert_eq!(Expected::in_stage("Preparing"), None);
    }
}
