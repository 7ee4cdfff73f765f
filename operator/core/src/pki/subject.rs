//! The subject of a certificate.

/// The subject of a certificate with its meaning in Kubernetes: a user and the groups of that user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// CN: the user.
    pub common_name: String,
    /// O: the groups, in the order of the certificate.
    pub organizations: Vec<String>,
}

impl Subject {
    /// Returns the subject of a user without groups.
    #[must_use]
    pub fn user(name: impl Into<String>) -> Self {
        Self { common_name: name.into(), organizations: vec![] }
    }

    /// Returns whether both name the same user with the same groups. The order of groups has no meaning, and a signer
    /// may change the order.
    #[must_use]
    pub fn is_same_user(&self, other: &Self) -> bool {
        let groups = |subject: &Self| {
            let mut groups = subject.organizations.clone();
            groups.sort();
            groups
        };
        self.common_name == other.common_name && groups(self) == groups(other)
    }
}
