//! The addresses of a lab: one /24 out of 10.90.0.0/16.

use std::fmt;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The /24 network number N: `10.90.N.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Subnet(u8);

impl Subnet {
    /// The network of the demo: always the same, so that its example and its documentation can name addresses.
    pub const DEMO: Self = Self(0);

    /// The network number `number`.
    #[must_use]
    pub const fn new(number: u8) -> Self {
        Self(number)
    }

    /// The address with the host number `host`. The host of the lab itself is 1.
    #[must_use]
    pub fn address(self, host: u8) -> String {
        format!("10.90.{}.{host}", self.0)
    }

    /// The first network, the demo's apart, that no lab holds and in which this host has no address.
    ///
    /// # Errors
    /// When all are taken.
    pub fn first_free(held: &[Self], addresses_of_host: &str) -> Result<Self> {
        let mine = |subnet: &Self| {
            let prefix = format!("10.90.{}.", subnet.0);
            addresses_of_host.split_whitespace().any(|word| word.starts_with(&prefix))
        };
        (1..=254)
            .map(Self)
            .find(|subnet| !held.contains(subnet) && !mine(subnet))
            .context("every network of 10.90.0.0/16 is taken by a lab: keyplane-lab down --all")
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "10.90.{}.0/24", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_network_is_neither_held_nor_in_use() {
        let held = [Subnet::new(1), Subnet::new(3)];
        let text = "2: eth0 inet 10.90.2.1/24 brd 10.90.2.255";
        assert_eq!(Subnet::first_free(&held, text).unwrap(), Subnet::new(4));
        assert_eq!(Subnet::first_free(&[], "").unwrap(), Subnet::new(1));
    }

    #[test]
    fn addresses_are_in_the_network() {
        assert_eq!(Subnet::DEMO.address(11), "10.90.0.11");
        assert_eq!(Subnet::new(7).to_string(), "10.90.7.0/24");
    }
}
