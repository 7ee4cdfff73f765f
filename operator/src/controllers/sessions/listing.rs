//! Objects of one kind, as a watch tells of them.

use std::collections::BTreeMap;

use kube::ResourceExt;
use kube::runtime::watcher::Event;

/// What is known of all objects, by name. A list that is under way counts only once it is complete: half a list would
/// look as if the other objects were gone.
#[derive(Debug)]
pub(super) struct Listing<Known> {
    known: BTreeMap<String, Known>,
    under_way: Option<BTreeMap<String, Known>>,
    complete: bool,
}

impl<Known> Default for Listing<Known> {
    fn default() -> Self {
        Self { known: BTreeMap::new(), under_way: None, complete: false }
    }
}

impl<Known: PartialEq> Listing<Known> {
    /// Keeps what an event says; tells whether there is anything new.
    pub(super) fn take<K>(&mut self, event: &Event<K>) -> bool
    where
        K: ResourceExt,
        Known: for<'a> From<&'a K>,
    {
        match event {
            Event::Init => {
                self.under_way = Some(BTreeMap::new());
                false
            }
            Event::InitApply(object) => {
                self.under_way.get_or_insert_default().insert(object.name_any(), Known::from(object));
                false
            }
            Event::InitDone => {
                let list = self.under_way.take().unwrap_or_default();
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

    /// Whether there has been a complete list.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// The last complete list and what has changed since.
    pub(super) fn known(&self) -> &BTreeMap<String, Known> {
        &self.known
    }
}
