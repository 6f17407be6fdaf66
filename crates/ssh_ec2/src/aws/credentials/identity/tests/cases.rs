//! Configurations and environments from a seed: what users write, and what they write wrong.

mod focus;
mod render;
mod sources;
mod surroundings;

use std::collections::{BTreeMap, BTreeSet};

/// One configuration, environment and command line.
#[derive(Clone, Debug, Default)]
pub(super) struct Case {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) profile: Option<String>,
    pub(super) region: Option<String>,
    /// The rules that it may turn on, by their names in `oracle.py`.
    pub(super) rules: BTreeSet<&'static str>,
}

/// Where the files of cases are.
pub(super) const HOME: &str = "/R/home";

/// The case of a seed: one thing at a time, or everything together, in which much hides behind something
/// else.
pub(super) fn case(seed: u64) -> Case {
    let mut draft = Draft::new(seed);
    if seed % 9 < 4 {
        draft.focus();
        return draft.finish();
    }
    draft.select();
    let selected = draft.selected.clone();
    draft.region(&selected);
    draft.source(&selected, 0);
    while draft.chance(30) {
        // More than one source: which of them counts?
        draft.source(&selected, MAX_DEPTH);
    }
    if draft.chance(40) {
        let other = draft.other_profile();
        draft.source(&other, MAX_DEPTH);
        draft.region(&other);
    }
    draft.environment();
    draft.endpoints(&selected);
    draft.metadata(&selected);
    draft.legacy_files();
    draft.oddities(&selected);
    draft.finish()
}

/// The longest chain of assumed roles.
const MAX_DEPTH: usize = 3;

const NAMES: [&str; 10] =
    ["dev", "prod", "My Co", "münchen", "a/b@c:d", "it's", "x  y", "Dev", "日本", "a\"b\\c"];
const REGIONS: [&str; 8] = [
    "eu-west-1",
    "us-east-1",
    "ap-south-1",
    "us-gov-west-1",
    "cn-north-1",
    "eu-central-2",
    "sa-east-1",
    "me-south-1",
];

/// Numbers from a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }
}

#[derive(Clone, Debug)]
enum Setting {
    Text(String),
    Nested(Vec<(String, String)>),
}

#[derive(Clone, Debug)]
struct Section {
    /// `profile`, `sso-session`, `services`, or nothing.
    kind: &'static str,
    name: String,
    settings: Vec<(String, Setting)>,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum File {
    Config,
    Credentials,
}

struct Draft {
    random: Random,
    case: Case,
    config: Vec<Section>,
    credentials: Vec<Section>,
    selected: String,
    /// For values of which none is there twice.
    count: usize,
}

impl Draft {
    fn new(seed: u64) -> Self {
        let mut draft = Self {
            random: Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d)),
            case: Case::default(),
            config: Vec::new(),
            credentials: Vec::new(),
            selected: String::new(),
            count: 0,
        };
        draft.set_env("HOME", HOME);
        draft
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.random.below(100) < percent
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.random.below(from.len())].clone()
    }

    fn rule(&mut self, name: &'static str) {
        self.case.rules.insert(name);
    }

    fn set_env(&mut self, name: &str, value: impl Into<String>) {
        self.case.env.insert(name.to_owned(), value.into());
    }

    fn fresh(&mut self, prefix: &str) -> String {
        self.count += 1;
        format!("{prefix}{}", self.count)
    }

    fn some_region(&mut self) -> String {
        self.pick(&REGIONS).to_owned()
    }

    fn section(&mut self, file: File, kind: &'static str, name: &str) -> &mut Section {
        let sections = if file == File::Config { &mut self.config } else { &mut self.credentials };
        let found = sections.iter().position(|section| section.kind == kind && section.name == name);
        let at = found.unwrap_or_else(|| {
            sections.push(Section { kind, name: name.to_owned(), settings: Vec::new() });
            sections.len() - 1
        });
        &mut sections[at]
    }

    /// Sets an option that is not set yet.
    fn set(&mut self, file: File, profile: &str, option: &str, value: impl Into<String>) {
        let kind = if file == File::Config { "profile" } else { "" };
        let section = self.section(file, kind, profile);
        if section.settings.iter().all(|(name, _)| name != option) {
            section.settings.push((option.to_owned(), Setting::Text(value.into())));
        }
    }

    /// In the config file mostly; the credentials file has profiles as well.
    fn set_somewhere(&mut self, profile: &str, option: &str, value: impl Into<String>) {
        let value = value.into();
        match self.random.below(12) {
            0 => self.set(File::Credentials, profile, option, value),
            1 => {
                self.rule("the credentials file wins");
                self.set(File::Config, profile, option, format!("not-{value}"));
                self.set(File::Credentials, profile, option, value);
            }
            _ => self.set(File::Config, profile, option, value),
        }
    }

    fn other_profile(&mut self) -> String {
        let taken: Vec<_> =
            self.config.iter().chain(&self.credentials).map(|section| section.name.clone()).collect();
        let free: Vec<_> = NAMES
            .iter()
            .filter(|name| !taken.iter().any(|taken| taken == *name) && **name != self.selected)
            .collect();
        match free[..] {
            [] => self.fresh("p"),
            _ => self.pick(&free).to_string(),
        }
    }

    /// Which profile, and how it is named.
    fn select(&mut self) {
        let name = if self.chance(20) { "default".to_owned() } else { self.pick(&NAMES).to_owned() };
        self.selected.clone_from(&name);
        self.section(File::Config, "profile", &name);
        match self.random.below(20) {
            0..=5 => {
                self.rule("--profile");
                self.case.profile = Some(name);
                if self.chance(40) {
                    let other = self.other_profile();
                    self.set_env("AWS_PROFILE", other);
                }
            }
            6..=11 => {
                self.rule("AWS_PROFILE");
                self.set_env("AWS_PROFILE", name.clone());
                match self.random.below(12) {
                    0 => {
                        let other = self.other_profile();
                        self.set_env("AWS_DEFAULT_PROFILE", other);
                    }
                    1 => self.set_env("AWS_DEFAULT_PROFILE", name),
                    2 => self.set_env("AWS_DEFAULT_PROFILE", ""),
                    _ => {}
                }
            }
            12..=14 => {
                self.rule("AWS_DEFAULT_PROFILE");
                self.set_env("AWS_DEFAULT_PROFILE", name);
            }
            15 => {
                self.rule("an empty profile is a name");
                let variable = self.pick(&["AWS_PROFILE", "AWS_DEFAULT_PROFILE"]);
                self.set_env(variable, "");
            }
            16 => {
                self.rule("a named profile exists");
                self.case.profile = Some("gone".into());
            }
            _ => {
                self.config.retain(|section| section.name != name);
                self.selected = "default".into();
                if self.chance(80) {
                    self.section(File::Config, "profile", "default");
                }
            }
        }
    }

    fn region(&mut self, profile: &str) {
        if self.chance(85) {
            let region = match self.random.below(60) {
                0 => "eu_west_1".to_owned(),
                1 => "EU-West-1".to_owned(),
                2 => String::new(),
                _ => self.some_region(),
            };
            self.set_somewhere(profile, "region", region);
        }
    }
}
