//! The Kubernetes versions that Keyplane supports, with the versions of their images.

use std::fmt;

use super::FieldError;

/// A version of Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The minor version, 36 or 37.
    pub minor: u8,
    /// The patch version.
    pub patch: u8,
}

/// A minor version that Keyplane can deploy, with the image tags that kubeadm 1.37 uses for it.
struct Supported {
    minor: u8,
    /// `SupportedEtcdVersion` in kubeadm's constants.
    etcd: &'static str,
    /// `CoreDNSVersion`.
    core_dns: &'static str,
    /// `PauseVersion`.
    pause: &'static str,
}

const SUPPORTED: &[Supported] = &[
    Supported { minor: 36, etcd: "3.7.0-0", core_dns: "v1.14.6", pause: "3.10.2" },
    Supported { minor: 37, etcd: "3.7.0-0", core_dns: "v1.14.6", pause: "3.10.2" },
];

impl Version {
    /// Parses a version like `v1.37.2`.
    ///
    /// # Errors
    /// Returns an error for other text, and for a minor version that has no golden tests.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let numbers = text.strip_prefix("v1.").and_then(|rest| rest.split_once('.'));
        let parsed = numbers.and_then(|(minor, patch)| {
            let version = Self { minor: minor.parse().ok()?, patch: patch.parse().ok()? };
            // Formatting the result refuses text that the integer parser accepts, such as v1.+37.02.
            (version.to_string() == text && version.etcd_image_tag().is_some()).then_some(version)
        });
        parsed.ok_or_else(|| {
            FieldError::new(
                "spec.kubernetesVersion",
                format!("{text:?} is not a version that Keyplane knows: write v1.36.x or v1.37.x, for example v1.37.2"),
            )
        })
    }

    /// Parses the version that a component reports, such as `v1.36.4` or `v1.37.2-eks-1`. Versions that Keyplane can't
    /// deploy are accepted.
    #[must_use]
    pub fn reported(text: &str) -> Option<Self> {
        let (minor, rest) = text.strip_prefix("v1.")?.split_once('.')?;
        let patch = rest.split(['-', '+']).next()?;
        Some(Self { minor: minor.parse().ok()?, patch: patch.parse().ok()? })
    }

    /// The tag of the etcd image for this version.
    #[must_use]
    pub fn etcd_image_tag(self) -> Option<&'static str> {
        self.supported().map(|supported| supported.etcd)
    }

    /// The tag of the CoreDNS image for this version.
    #[must_use]
    pub fn core_dns_image_tag(self) -> Option<&'static str> {
        self.supported().map(|supported| supported.core_dns)
    }

    /// The tag of the pause image for this version.
    #[must_use]
    pub fn pause_image_tag(self) -> Option<&'static str> {
        self.supported().map(|supported| supported.pause)
    }

    fn supported(self) -> Option<&'static Supported> {
        SUPPORTED.iter().find(|supported| supported.minor == self.minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v1.{}.{}", self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_reported_versions_that_keyplane_cannot_deploy() {
        let read = |text| Version::reported(text).map(|version| (version.minor, version.patch));
        assert_eq!(read("v1.38.12"), Some((38, 12)));
        assert_eq!(read("v1.37.2-eks-5+abc"), Some((37, 2)));
        assert_eq!(read("3.7.0-0"), None);
    }

    #[test]
    fn parses_only_versions_that_kubeadm_1_37_deploys() {
        assert_eq!(Version::parse("v1.37.2").unwrap(), Version { minor: 37, patch: 2 });
        assert_eq!(Version::parse("v1.36.0").unwrap().to_string(), "v1.36.0");
        for bad in ["1.37.2", "v1.37", "v1.35.4", "v1.38.0", "v2.0.0", "v1.37.2-rc.1", "v1.+37.2", "v1.37.02", ""] {
            assert!(Version::parse(bad).is_err(), "{bad:?} was let through");
        }
    }
}
