//! Cache of the objects of one watch.

use std::collections::BTreeMap;

use kube::ResourceExt;
use kube::runtime::watcher::Event;

/// A projection of each object, by name. A new list replaces the cache only when it is complete: with an incomplete
/// list, the other objects would seem to be deleted.
#[derive(Debug)]
pub(super) struct Listing<Known> {
    known: BTreeMap<String, Known>,
    pending: Option<BTreeMap<String, Known>>,
    complete: bool,
}

impl<Known> Default for Listing<Known> {
    fn default() -> Self {
        Self { known: BTreeMap::new(), pending: None, complete: false }
    }
}

impl<Known: PartialEq> Listing<Known> {
    /// Applies an event; returns whether the cache has changed.
    pub(super) fn take<K>(&mut self, event: &Event<K>) -> bool
    where
        K: ResourceExt,
        Known: for<'a> From<&'a K>,
    {
        match event {
            Event::Init => {
                self.pending = Some(BTreeMap::new());
                false
            }
            Event::InitApply(object) => {
                self.pending.get_or_insert_default().insert(object.name_any(), Known::from(object));
                false
            }
            Event::InitDone => {
                let list = self.pending.take().unwrap_or_default();
                let changed = !self.complete || list != self.known;
                self.known = list;
                self.complete = true;
                changed
            }
            Event::Apply(object) => {
                let now = Known::from(object);
                let changed = self.known.get(&object.name_any()) != Some(&now);
                self.known.insert(object.name_any(), now);
                changed
            }
            Event::Delete(object) => self.known.remove(&object.name_any()).is_some(),
        }
    }

    /// Returns whether a list was complete.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Returns the last complete list with all later changes.
    pub(super) fn known(&self) -> &BTreeMap<String, Known> {
        &self.known
    }
}
