//! What the rules need to know of a source file: the paths and the macros in it, without code for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use syn::buffer::{Cursor, TokenBuffer};
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItemFn, Item, Macro, MetaList, UseTree};

#[derive(Default)]
pub(crate) struct Source {
    /// The file's own module, `crate` for `lib.rs`.
    module: String,
    /// Every path of at least two names. Those of this crate begin with `crate`, if they do not name a child
    /// module.
    pub(crate) paths: BTreeSet<String>,
    /// The last name of every macro that is called.
    pub(crate) macros: BTreeSet<String>,
}

impl Source {
    fn read(module: &str, text: &str) -> Self {
        let mut source = Self { module: module.to_owned(), ..Self::default() };
        source.visit_file(&syn::parse_file(text).unwrap());
        source
    }

    fn add(&mut self, path: &[String]) {
        let mut module: Vec<_> = self.module.split("::").map(str::to_owned).collect();
        let start = path.iter().take_while(|name| ["self", "super"].contains(&name.as_str())).count();
        let supers = path[..start].iter().filter(|name| *name == "super").count();
        module.truncate(module.len() - supers);
        let prefix = if start > 0 { module } else { Vec::new() };
        let path = [prefix.as_slice(), &path[start..]].concat();
        if path.len() > 1 {
            self.paths.insert(path.join("::"));
        }
    }

    fn flatten(&mut self, mut path: Vec<String>, tree: &UseTree) {
        match tree {
            UseTree::Path(tree) => {
                path.push(tree.ident.to_string());
                self.flatten(path, &tree.tree);
            }
            UseTree::Name(name) if name.ident == "self" => self.add(&path),
            UseTree::Name(name) => self.add(&[path, vec![name.ident.to_string()]].concat()),
            UseTree::Rename(name) => self.add(&[path, vec![name.ident.to_string()]].concat()),
            UseTree::Glob(_) => self.add(&path),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.flatten(path.clone(), tree)),
        }
    }

    /// Reads what syn leaves unparsed: the arguments of macros and attributes.
    fn scan(&mut self, mut cursor: Cursor<'_>) {
        while !cursor.eof() {
            let mut path = Vec::new();
            while let Some((name, after)) = cursor.ident() {
                path.push(name.to_string());
                cursor = after;
                match punctuation(cursor, ':').and_then(|after| punctuation(after, ':')) {
                    Some(after) if after.ident().is_some() => cursor = after,
                    _ => break,
                }
            }
            if let (Some(name), Some(after)) = (path.last(), punctuation(cursor, '!')) {
                self.macros.extend(after.any_group().map(|_| name.clone()));
            }
            self.add(&path);
            cursor = match cursor.any_group() {
                Some((inner, _, _, after)) => {
                    self.scan(inner);
                    after
                }
                None if path.is_empty() => cursor.token_tree().unwrap().1,
                None => cursor,
            };
        }
    }
}

impl Visit<'_> for Source {
    fn visit_item(&mut self, item: &Item) {
        if !is_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_use_tree(&mut self, tree: &UseTree) {
        self.flatten(Vec::new(), tree);
    }

    fn visit_path(&mut self, path: &syn::Path) {
        self.add(&path.segments.iter().map(|segment| segment.ident.to_string()).collect::<Vec<_>>());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &Macro) {
        self.macros.extend(call.path.segments.last().map(|name| name.ident.to_string()));
        self.scan(TokenBuffer::new2(call.tokens.clone()).begin());
        visit::visit_macro(self, call);
    }

    fn visit_meta_list(&mut self, list: &MetaList) {
        self.scan(TokenBuffer::new2(list.tokens.clone()).begin());
        visit::visit_meta_list(self, list);
    }
}

fn punctuation(cursor: Cursor<'_>, character: char) -> Option<Cursor<'_>> {
    let (found, after) = cursor.punct()?;
    (found.as_char() == character).then_some(after)
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether `path` is `pattern` or below it.
pub(crate) fn begins(path: &str, pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => path.strip_prefix(pattern).is_some_and(|rest| rest.is_empty() || rest.starts_with("::")),
    }
}

/// Every source file below `src` but those of tests, by its path there.
pub(crate) static SOURCES: LazyLock<BTreeMap<String, Source>> = LazyLock::new(sources);

fn sources() -> BTreeMap<String, Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = BTreeMap::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && name != "tests" {
                directories.push(path);
            } else if name.ends_with(".rs") && name != "tests.rs" {
                let file = path.strip_prefix(&root).unwrap().to_str().unwrap();
                let source = Source::read(&module(file), &fs::read_to_string(&path).unwrap());
                sources.insert(file.to_owned(), source);
            }
        }
    }
    sources
}

fn module(file: &str) -> String {
    match file {
        "lib.rs" | "main.rs" => "crate".to_owned(),
        _ => format!("crate::{}", file.trim_end_matches(".rs").replace('/', "::")),
    }
}

/// Sets of files that use each other. A file that uses one above its own folder is not counted: a child may
/// know its parent.
pub(crate) fn circles(sources: &BTreeMap<String, Source>) -> BTreeSet<Vec<String>> {
    let files: BTreeMap<_, _> = sources.keys().map(|file| (module(file), file.as_str())).collect();
    let used = |file: &str| {
        let source = &sources[file];
        let of_child = |path: &String| format!("{}::{path}", source.module);
        let paths = source.paths.iter().flat_map(|path| [path.clone(), of_child(path)]);
        let modules = paths.filter_map(|path| longest(&path, &files));
        let other = modules.filter(|module| !begins(&source.module, module));
        other.map(|module| files[&module]).collect::<BTreeSet<_>>()
    };
    let uses: BTreeMap<_, _> = sources.keys().map(|file| (file.as_str(), used(file))).collect();
    let reached: BTreeMap<_, _> = uses.keys().map(|file| (*file, reach(file, &uses))).collect();
    let circles = reached.iter().map(|(file, others)| {
        others.iter().filter(|other| reached[**other].contains(file)).map(|file| (*file).to_owned()).collect()
    });
    circles.filter(|circle: &Vec<_>| !circle.is_empty()).collect()
}

/// All files that a file uses, directly or not.
fn reach<'a>(file: &'a str, uses: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![file]);
    while let Some(file) = next.pop() {
        next.extend(uses[file].iter().filter(|used| reached.insert(**used)));
    }
    reached
}

/// The longest part of a path that is a module of this crate.
fn longest(path: &str, files: &BTreeMap<String, &str>) -> Option<String> {
    let ends = path.match_indices("::").map(|(end, _)| end).chain([path.len()]);
    let parts = ends.map(|end| &path[..end]).filter(|part| *part != "crate");
    parts.filter(|part| files.contains_key(*part)).last().map(str::to_owned)
}

#[test]
fn the_reading_sees_through_comments_strings_and_tests() {
    let source = Source::read(
        "crate::road::stdio",
        r##"
        //! use tokio::net;
        use std::{fmt, io::{self, Read as _}};
        use super::super::key::OneTimeKey as Key;
        use self::blocking::Reader;
        const TEXT: &str = "std::fs::read \" println!"; /* std::env */
        const RAW: &str = r#"std::env::var " "#;
        #[arg(value_parser = clap::parser())]
        fn f<'a>(quote: char) -> bool { print!("{}", aws_types::x(dbg!(a))); quote == '"' && quote != '\'' }
        #[cfg(test)]
        mod tests { use tokio::net; fn g() { { std::fs::read("}") } } }
        #[cfg(test)]
        use std::thread;
        fn h() { std::process::abort() }
        "##,
    );
    let expected = "aws_types::x clap::parser crate::key::OneTimeKey crate::road::stdio::blocking::Reader \
                    std::fmt std::io std::io::Read std::process::abort";
    assert_eq!(source.paths.iter().map(String::as_str).collect::<Vec<_>>().join(" "), expected);
    assert_eq!(source.macros, ["dbg", "print"].map(str::to_owned).into());
}
