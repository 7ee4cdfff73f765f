//! Property test: API servers reload files at any time, earlier requests write later, controllers crash, and users
//! change the settings. Every API server can always read every object.

use super::*;

const RESOURCES: [&str; 2] = ["configmaps", "secrets"];
const PROVIDERS: [EncryptionProvider; 2] = [EncryptionProvider::Secretbox, EncryptionProvider::Aescbc];

type Lists = BTreeMap<String, Vec<Writer>>;

#[derive(Debug, Clone)]
enum Act {
    Tick,
    Load(usize),
    Write(usize, usize),
    LateWrite(usize, usize),
    Reencrypt(usize),
    Crash,
    Advance(u16),
    Want(Option<(usize, u8)>),
    Request,
    RollBack(bool),
}

#[derive(Debug, Default)]
struct Replica {
    lists: Lists,
    loaded: String,
    /// The previous configuration, with which earlier requests may write until this time.
    before: Option<(Lists, Timestamp)>,
}

/// One version of an object.
#[derive(Debug)]
struct Stored {
    object: usize,
    resource: String,
    writer: Writer,
    superseded: Option<Timestamp>,
}

struct World {
    nodes: Vec<String>,
    replicas: Vec<Replica>,
    stored: Vec<Stored>,
    objects: usize,
    state: Option<State>,
    wanted: Wanted,
    now: Timestamp,
    reencryption: Option<Reencryption>,
    /// The listed objects that are not re-encrypted yet.
    listed: Option<Vec<usize>>,
}

fn first(lists: &Lists, resource: &str) -> Writer {
    lists.get(resource).map_or(Writer::Identity, |list| list[0].clone())
}

impl World {
    fn new(replicas: usize) -> Self {
        Self {
            nodes: (0..replicas).map(|number| format!("cp{number}")).collect(),
            replicas: (0..replicas).map(|_| Replica::default()).collect(),
            stored: vec![],
            objects: 0,
            state: None,
            wanted: Wanted::default(),
            now: at(0),
            reencryption: None,
            listed: None,
        }
    }

    fn file(&self) -> String {
        self.state.as_ref().map(file).unwrap_or_default()
    }

    fn store(&mut self, object: usize, resource: &str, writer: Writer) {
        let now = self.now;
        for version in self.stored.iter_mut().filter(|version| version.object == object) {
            version.superseded.get_or_insert(now);
        }
        self.stored.push(Stored { object, resource: resource.to_owned(), writer, superseded: None });
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Tick => self.tick(),
            Act::Load(replica) => self.load(*replica % self.replicas.len()),
            Act::Write(replica, resource) => {
                let resource = RESOURCES[resource % 2];
                let writer = first(&self.replicas[replica % self.replicas.len()].lists, resource);
                self.objects += 1;
                self.store(self.objects, resource, writer);
            }
            Act::LateWrite(replica, resource) => {
                let resource = RESOURCES[resource % 2];
                let replica = &self.replicas[replica % self.replicas.len()];
                if let Some((lists, until)) = &replica.before
                    && self.now < *until
                {
                    let writer = first(lists, resource);
                    self.objects += 1;
                    self.store(self.objects, resource, writer);
                }
            }
            Act::Reencrypt(replica) => self.reencrypt(*replica % self.replicas.len()),
            Act::Crash => self.listed = None,
            Act::Advance(seconds) => self.now += SignedDuration::from_secs((*seconds).into()),
            Act::Want(None) => self.wanted.settings = None,
            Act::Want(Some((provider, mask))) => {
                let resources: Vec<_> = (0..2).filter(|bit| mask >> bit & 1 == 1).map(|bit| RESOURCES[bit]).collect();
                let resources = if resources.is_empty() { RESOURCES.to_vec() } else { resources };
                self.wanted.settings = Some(settings(PROVIDERS[provider % 2], &resources));
            }
            Act::Request => self.wanted.requested = Some("r".to_owned()),
            Act::RollBack(back) => self.wanted.rolls_back = *back,
        }
    }

    fn tick(&mut self) {
        let loaded = self.nodes.iter().cloned().zip(self.replicas.iter().map(|replica| Ok(hash(&replica.loaded))));
        let facts = Facts { configurations: loaded.collect(), reencryption: self.reencryption.clone() };
        let file = self.file();
        let inputs = EncryptionInputs {
            nodes: &self.nodes,
            file: &file,
            facts: Some(&facts),
            delays: DELAYS,
            pristine: false,
            window_open: true,
            now: self.now,
        };
        // As in the plan: only a request in progress can be rolled back.
        let asked = self.state.as_ref().and_then(|state| state.change.as_ref()?.requested.as_ref()).is_some();
        let wanted = Wanted { rolls_back: self.wanted.rolls_back && asked, ..self.wanted.clone() };
        if let Some(next) = decide(&wanted, self.state.as_ref(), &inputs) {
            if next.made > self.state.as_ref().map_or(0, |state| state.made) {
                self.wanted.requested = None;
            }
            if next.change.as_ref().map(|change| change.since) != self.since() {
                self.listed = None;
            }
            self.state = Some(next);
        }
    }

    fn since(&self) -> Option<Timestamp> {
        Some(self.state.as_ref()?.change.as_ref()?.since)
    }

    fn load(&mut self, replica: usize) {
        let (file, until) = (self.file(), self.now + DELAYS.request);
        let replica = &mut self.replicas[replica];
        if let Some(state) = &self.state
            && replica.loaded != file
        {
            replica.before = Some((std::mem::replace(&mut replica.lists, lists(state)), until));
            replica.loaded = file;
        }
    }

    /// Re-encrypts the next object through a replica.
    fn reencrypt(&mut self, replica: usize) {
        let Some(work) = self.state.as_ref().and_then(|state| state.work(DELAYS)) else { return };
        if work.resources.is_empty() || self.now < work.begins {
            return;
        }
        let current = |version: &&Stored| version.superseded.is_none() && work.resources.contains(&version.resource);
        let all = || self.stored.iter().filter(current).map(|version| version.object).collect();
        let mut listed: Vec<usize> = self.listed.take().unwrap_or_else(all);
        if let Some(object) = listed.pop() {
            let found = self.stored.iter().find(|version| version.object == object && version.superseded.is_none());
            let resource = found.unwrap().resource.clone();
            let writer = first(&self.replicas[replica].lists, &resource);
            self.store(object, &resource, writer);
        } else {
            let progress = Progress { done: work.resources, ..Progress::default() };
            self.reencryption = Some(Reencryption { since: work.since, progress, trouble: None });
        }
        self.listed = Some(listed);
    }

    /// Checks that every replica can read all current objects, and all older versions that a list or watch may still
    /// read.
    fn check_readable(&self) -> Result<(), TestCaseError> {
        let oldest = self.now - DELAYS.history;
        for version in self.stored.iter().filter(|version| version.superseded.is_none_or(|end| end > oldest)) {
            for (node, replica) in self.nodes.iter().zip(&self.replicas) {
                let plain = vec![Writer::Identity];
                let list = replica.lists.get(&version.resource).unwrap_or(&plain);
                let (resource, writer) = (&version.resource, &version.writer);
                prop_assert!(
                    list.contains(writer),
                    "{node} can't read {resource} with {writer:?}: {list:?}; {:?}",
                    self.state
                );
            }
        }
        Ok(())
    }

    /// Runs without further changes by users until the state is stable.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        self.wanted.rolls_back = false;
        for _ in 0..40 {
            for replica in 0..self.replicas.len() {
                self.load(replica);
            }
            self.now += SignedDuration::from_secs(601);
            for _ in 0..=self.objects + 1 {
                self.reencrypt(0);
            }
            self.check_readable()?;
            self.tick();
        }
        let state = self.state.clone().unwrap_or_default();
        prop_assert!(state.change.is_none(), "never comes to rest: {state:?}");
        let settings = self.wanted.settings.as_ref();
        let wanted: BTreeSet<_> = settings.map(|settings| settings.resources.clone()).unwrap_or_default();
        prop_assert_eq!(state.resources.keys().cloned().collect::<BTreeSet<_>>(), wanted);
        for version in self.stored.iter().filter(|version| version.superseded.is_none()) {
            let expected = state.resources.get(&version.resource).unwrap_or(&Writer::Identity);
            prop_assert_eq!(&version.writer, expected);
        }
        Ok(())
    }
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => Just(Act::Tick),
        6 => (0..3_usize).prop_map(Act::Load),
        4 => (0..3_usize, 0..2_usize).prop_map(|(replica, resource)| Act::Write(replica, resource)),
        4 => (0..3_usize, 0..2_usize).prop_map(|(replica, resource)| Act::LateWrite(replica, resource)),
        6 => (0..3_usize).prop_map(Act::Reencrypt),
        1 => Just(Act::Crash),
        3 => (1..700_u16).prop_map(Act::Advance),
        1 => prop::option::weighted(0.8, (0..2_usize, 1..4_u8)).prop_map(Act::Want),
        1 => Just(Act::Request),
        1 => any::<bool>().prop_map(Act::RollBack),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_api_server_can_always_read_every_object(
        replicas in 1..4_usize,
        acts in prop::collection::vec(act(), 1..250),
    ) {
        let mut world = World::new(replicas);
        world.act(&Act::Write(0, 0));
        for act in &acts {
            world.act(act);
            world.check_readable()?;
        }
        world.settle()?;
    }
}
