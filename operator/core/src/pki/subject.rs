//! Whose certificate it is, as a distinguished name.

/// A certificate's subject as Kubernetes reads it: a user and its groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// CN: the user.
    pub common_name: String,
    /// O: the groups, in their order in the certificate.
    pub organizations: Vec<String>,
}

impl Subject {
    /// A user without groups.
    #[must_use]
    pub fn user(name: impl Into<String>) -> Self {
        Self { common_name: name.into(), organizations: vec![] }
    }

    /// Whether both are the same user in the same groups. A signer may write the groups in another order: they are a set.
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
