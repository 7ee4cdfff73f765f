//! A lower layer never names a higher one, and no modules depend on each other in a cycle.

// Helpers of tests are no tests to clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Item, ItemMod, ItemUse, UseTree};

const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The crates, and the heading of their layers in `ARCHITECTURE.md`, if they have layers.
const CRATES: &[(&str, Option<&str>)] = &[
    ("crds/src", None),
    ("operator/core/src", Some("## Layers of keyplane-core")),
    ("operator/issuance/src", None),
    ("operator/client/src", None),
    ("operator/agent/src", None),
    ("operator/src", Some("## Layers of keyplane\n")),
    ("e2e/src", None),
];

/// Longer files are probably two modules.
const MAX_LINES: usize = 450;

type Module = Vec<String>;

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|entry| if entry.is_dir() { sources(&entry) } else { vec![entry] })
        .filter(|file| file.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// The path of the module in a file, from the root of its crate. Unit tests and binaries are no modules.
fn module_of(root: &Path, file: &Path) -> Option<Module> {
    let relative = file.strip_prefix(root).unwrap().with_extension("");
    let mut module: Module = relative.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if module.iter().any(|part| part == "tests" || part == "bin") {
        return None;
    }
    if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        module.pop();
    }
    Some(module)
}

/// The paths that a file names.
struct Paths<'a> {
    module: &'a [String],
    found: BTreeSet<Module>,
}

impl Paths<'_> {
    fn add(&mut self, path: &[String]) {
        let absolute = match path.first().map(String::as_str) {
            Some("crate") => path[1..].to_vec(),
            Some("super") => {
                let up = path.iter().take_while(|part| *part == "super").count();
                let parent = &self.module[..self.module.len().saturating_sub(up)];
                [parent, &path[up..]].concat()
            }
            _ => return,
        };
        self.found.insert(absolute);
    }

    fn add_tree(&mut self, prefix: &[String], tree: &UseTree) {
        let with = |name: String| [prefix, &[name]].concat();
        match tree {
            UseTree::Path(path) => self.add_tree(&with(path.ident.to_string()), &path.tree),
            UseTree::Name(name) => self.add(&with(name.ident.to_string())),
            UseTree::Rename(rename) => self.add(&with(rename.ident.to_string())),
            UseTree::Glob(_) => self.add(prefix),
            UseTree::Group(group) => group.items.iter().for_each(|item| self.add_tree(prefix, item)),
        }
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.add_tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.add(&parts);
        visit::visit_path(self, path);
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        let is_test = item.attrs.iter().any(|attribute| {
            attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
        });
        if !is_test {
            visit::visit_item_mod(self, item);
        }
    }
}

/// The modules of a crate, each with the modules that it names.
fn graph(root: &Path) -> BTreeMap<Module, BTreeSet<Module>> {
    let files: Vec<_> = sources(root).into_iter().filter_map(|file| Some((module_of(root, &file)?, file))).collect();
    let modules: BTreeSet<_> = files.iter().map(|(module, _)| module.clone()).collect();
    let edges = |(module, file): &(Module, PathBuf)| {
        let parsed = syn::parse_file(&fs::read_to_string(file).unwrap()).unwrap();
        let mut paths = Paths { module, found: BTreeSet::new() };
        parsed.items.iter().filter(|item| !matches!(item, Item::Macro(_))).for_each(|item| paths.visit_item(item));
        // A path names an item: its module is the longest prefix that is one.
        let target = |path: &Module| {
            let lengths = (1..=path.len()).rev();
            lengths.map(|length| path[..length].to_vec()).find(|prefix| modules.contains(prefix))
        };
        let named = paths.found.iter().filter_map(target);
        // Parents and children are one unit: a folder's first page may use its files, and they its types.
        let is_relative = |other: &Module| other.starts_with(module) || module.starts_with(other);
        (module.clone(), named.filter(|other| !is_relative(other)).collect())
    };
    files.iter().map(edges).collect()
}

/// The modules by layer, as a table below a heading of `ARCHITECTURE.md` lists them.
fn layers(heading: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(Path::new(WORKSPACE).join("ARCHITECTURE.md")).unwrap();
    let section = text.split_once(heading).expect("ARCHITECTURE.md has the heading").1;
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| {
        line.strip_prefix("| ").is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    });
    rows.map(|row| {
        let modules = row.split('|').nth(2).unwrap_or_default();
        modules.split(',').map(|module| module.trim().trim_matches('`').to_owned()).collect()
    })
    .collect()
}

#[test]
fn lower_layers_never_name_higher_ones() {
    for (root, heading) in CRATES.iter().filter_map(|(root, heading)| Some((root, (*heading)?))) {
        let layers = layers(heading);
        let layer_of = |module: &str| {
            let found = layers.iter().position(|layer| layer.iter().any(|name| name == module));
            found.unwrap_or_else(|| panic!("{root}: module {module} is not in the layers of ARCHITECTURE.md"))
        };
        let mut edges = 0;
        for (module, named) in graph(&Path::new(WORKSPACE).join(root)) {
            let Some(top) = module.first().filter(|top| *top != "main") else { continue };
            layer_of(top);
            for other in named.iter().filter_map(|other| other.first()).filter(|other| *other != top) {
                edges += 1;
                assert!(
                    layer_of(other) < layer_of(top),
                    "{root}: {} names the higher layer {other}",
                    module.join("::")
                );
            }
        }
        assert!(edges > 5, "{root}: only {edges} edges were found");
    }
}

#[test]
fn no_modules_depend_on_each_other_in_a_cycle() {
    for (root, _) in CRATES {
        let graph = graph(&Path::new(WORKSPACE).join(root));
        // Modules without an edge to what is left are removed again and again; a cycle stays.
        let mut left: BTreeSet<&Module> = graph.keys().collect();
        loop {
            let free: Vec<_> = left
                .iter()
                .copied()
                .filter(|module| !graph[*module].iter().any(|other| left.contains(other)))
                .collect();
            if free.is_empty() {
                break;
            }
            for module in free {
                left.remove(module);
            }
        }
        let on_a_cycle: Vec<_> = left.iter().map(|module| module.join("::")).collect();
        assert!(on_a_cycle.is_empty(), "{root}: on a cycle, or above one: {on_a_cycle:?}");
    }
}

#[test]
fn paths_in_architecture_md_exist() {
    let text = fs::read_to_string(Path::new(WORKSPACE).join("ARCHITECTURE.md")).unwrap();
    // Every second piece between backticks is code.
    let code = text.split('`').skip(1).step_by(2);
    let paths: Vec<_> = code.filter(|code| code.contains('/') && !code.contains([' ', '\n'])).collect();
    assert!(paths.len() > 20, "only {} paths were found", paths.len());
    for path in paths {
        let roots = ["", "operator/src", "operator/core/src", "operator/src/controllers"];
        let exists = roots.iter().any(|root| Path::new(WORKSPACE).join(root).join(path).exists());
        assert!(exists, "ARCHITECTURE.md names {path}, which does not exist");
    }
}

#[test]
fn files_have_at_most_450_lines() {
    for (root, _) in CRATES {
        for file in sources(&Path::new(WORKSPACE).join(root)) {
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            assert!(lines <= MAX_LINES, "{} has {lines} lines: it is probably two modules", file.display());
        }
    }
}
