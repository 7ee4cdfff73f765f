//! A reason of a condition or an Event, and the macro that defines reasons as constants and as a table.

/// A reason, and what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// The reason.
    pub name: &'static str,
    /// The conditions and Events that have it.
    pub on: &'static str,
    pub(crate) meaning: &'static str,
}

impl Reason {
    /// The meaning, in one line.
    #[must_use]
    pub const fn meaning(&self) -> &'static str {
        self.meaning.trim_ascii()
    }
}

/// Defines the reasons once: as constants, and as a table.
macro_rules! reasons {
    ($(#[doc = $about:literal])+ $table:ident: $($(#[doc = $doc:literal])+ $name:ident = $text:literal, $on:literal;)+) => {
        $($(#[doc = $doc])+ pub const $name: &str = $text;)+

        $(#[doc = $about])+
        pub const $table: &[Reason] = &[$(Reason { name: $text, on: $on, meaning: concat!($($doc),+) }),+];
    };
}
pub(crate) use reasons;
