//! Lists the instances: a table for people, JSON for programs.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use serde::Serialize;

use crate::aws::{AwsError, Filter, Instance, Managed, Settings, timestamp};
use crate::cli::{Common, List};
use crate::commands::runtime::{log_to_stderr, network, on_runtime};
use crate::commands::{interrupt, refuse_unused, tell_distrust};
use crate::environment::Environment;
use crate::error::{ExitCode, Failure};
use crate::instances::cache::Cache;
use crate::instances::inventory::{Place, Update, places, remember, search};
use crate::net::network::Network;
use crate::system::age::Age;
use crate::system::explain::Explain as _;
use crate::system::text::chain;
use crate::ui;

pub(super) fn start(mut list: List, before: Common) -> Result<ExitCode, Failure> {
    refuse_unused("list", &before, &["--profile", "--region", "--batch", "--verbose"])?;
    log_to_stderr(list.verbose.max(before.verbose));
    list.region = list.region.or(before.region);
    if list.profile.is_empty() {
        list.profile.extend(before.profile);
    }
    let cache = Environment::read()?.cache;
    let first = Settings { profile: list.profile.first().cloned(), ..Settings::default() };
    on_runtime(interrupt::unless_ended(async {
        run(&list, before.batch, &network(&first).await?, &cache).await
    }))
}

/// Lists the instances, and caches their names for later connections. If some regions cannot be searched,
/// they are reported, the others are listed, and the exit status is 1.
async fn run(list: &List, batch: bool, network: &Network, cache: &Cache) -> Result<ExitCode, Failure> {
    let filters = filters(list)?;
    let settings = Settings { region: list.region.clone(), batch, ..Settings::default() };
    let places = places(&list.profile, &settings, list.all_regions, network).await?;
    let found = RefCell::new(Found::default());
    search(&places, &filters, |update| found.borrow_mut().add(update)).await;
    let Found { instances, managed, failures, unmanaged } = found.into_inner();
    if filters.is_empty() || list.is_plain() {
        let complete = |index: &usize| failures.iter().all(|(failed, _)| failed != index);
        for (index, place) in places.iter().enumerate().filter(|(index, _)| complete(index)) {
            let here = instances.iter().filter(|(found, _)| *found == index).map(|(_, instance)| instance);
            remember(place, here, cache).await;
        }
    }
    let mut rows: Vec<_> = instances
        .iter()
        .map(|(index, instance)| Row {
            place: &places[*index],
            instance,
            managed: managed.get(instance.id.as_str()),
        })
        .collect();
    rows.sort_by(|a, b| a.key().cmp(&b.key()));
    let text = if list.json { ui::escape_json(&json(&rows)?) } else { table(&rows, SystemTime::now()) };
    ui::print(&text).map_err(Failure::Output)?;
    tell_distrust(places.first().map(Place::aws), cache);
    report(&places, &unmanaged);
    report(&places, &failures);
    Ok(if failures.is_empty() { ExitCode::Success } else { ExitCode::Failure })
}

/// Reports errors, one that several regions have only once.
fn report(places: &[Place], errors: &[(usize, AwsError)]) {
    let mut reported = Vec::new();
    for (index, error) in errors {
        let text = chain(error);
        if reported.contains(&text) {
            continue;
        }
        ui::note(&format!("{}: {text}", places[*index].region()));
        for hint in error.hints() {
            ui::note(&format!("hint: {hint}"));
        }
        reported.push(text);
    }
}

fn filters(list: &List) -> Result<Vec<Filter>, Failure> {
    let mut filters = Vec::new();
    if let Some(name) = &list.name {
        filters.push(Filter::new("tag:Name", name));
    }
    for tag in &list.tag {
        filters.push(match tag.split_once('=') {
            Some((key, value)) if !key.is_empty() => Filter::new(format!("tag:{key}"), value),
            None if !tag.is_empty() => Filter::new("tag-key", tag),
            _ => return Err(Failure::Usage(format!("{tag:?} is no tag; write KEY=VALUE or KEY"))),
        });
    }
    if !list.all {
        filters.push(Filter::new("instance-state-name", "running"));
    }
    Ok(filters)
}

#[derive(Default)]
struct Found {
    instances: Vec<(usize, Instance)>,
    managed: HashMap<String, Managed>,
    failures: Vec<(usize, AwsError)>,
    /// Regions without an answer of Systems Manager: only the column for it is empty.
    unmanaged: Vec<(usize, AwsError)>,
}

impl Found {
    fn add(&mut self, update: Update) {
        match update {
            Update::Instances(place, page) => {
                self.instances.extend(page.into_iter().map(|found| (place, found)))
            }
            Update::Managed(page) => {
                self.managed.extend(page.into_iter().map(|found| (found.id.to_string(), found)));
            }
            Update::Failed(place, error) => self.failures.push((place, error)),
            Update::Unmanaged(place, error) => self.unmanaged.push((place, error)),
        }
    }
}

struct Row<'a> {
    place: &'a Place,
    instance: &'a Instance,
    managed: Option<&'a Managed>,
}

impl Row<'_> {
    fn key(&self) -> (Option<&str>, &str, &str) {
        (self.instance.name(), self.place.region(), self.instance.id.as_str())
    }
}

fn table(rows: &[Row<'_>], now: SystemTime) -> String {
    let profiles = rows.iter().any(|row| row.place.profile.is_some());
    let mut header = vec!["NAME", "ID", "STATE", "ADDRESS", "TYPE", "ZONE", "AGE", "SESSION MANAGER"];
    if profiles {
        header.push("PROFILE");
    }
    let mut cells: Vec<Vec<String>> = vec![header.into_iter().map(str::to_owned).collect()];
    for row in rows {
        let instance = row.instance;
        let or_dash = |text: Option<&str>| text.filter(|text| !text.is_empty()).unwrap_or("-").to_owned();
        let mut line = vec![
            ui::shorten(&ui::sanitise(&or_dash(instance.name())), NAME_WIDTH),
            instance.id.to_string(),
            instance.state.as_str().to_owned(),
            or_dash(instance.private_address.as_deref().or(instance.public_address.as_deref())),
            or_dash(Some(&instance.instance_type)),
            or_dash(Some(&instance.availability_zone)),
            instance.launched.map_or_else(|| "-".into(), |launched| Age::between(launched, now).to_string()),
            row.managed.map_or_else(|| "-".into(), |managed| managed.describe(now)),
        ];
        if profiles {
            line.push(or_dash(row.place.profile.as_deref()));
        }
        cells.push(line.iter().map(|cell| ui::sanitise(cell)).collect());
    }
    ui::align(&cells)
}

/// An instance in JSON. Fields are added, never renamed or removed.
#[derive(Serialize)]
struct Object<'a> {
    id: &'a str,
    name: Option<&'a str>,
    profile: Option<&'a str>,
    region: &'a str,
    availability_zone: &'a str,
    state: &'a str,
    #[serde(rename = "type")]
    instance_type: &'a str,
    private_address: Option<&'a str>,
    public_address: Option<&'a str>,
    launched: Option<String>,
    tags: BTreeMap<&'a str, &'a str>,
    /// Null if the instance is not registered with Systems Manager.
    session_manager: Option<SessionManager<'a>>,
}

#[derive(Serialize)]
struct SessionManager<'a> {
    online: bool,
    last_ping: Option<String>,
    platform: &'a str,
}

fn json(rows: &[Row<'_>]) -> Result<String, Failure> {
    let objects: Vec<_> = rows
        .iter()
        .map(|Row { place, instance, managed }| Object {
            id: instance.id.as_str(),
            name: instance.name(),
            profile: place.profile.as_deref(),
            region: place.region(),
            availability_zone: &instance.availability_zone,
            state: instance.state.as_str(),
            instance_type: &instance.instance_type,
            private_address: instance.private_address.as_deref(),
            public_address: instance.public_address.as_deref(),
            launched: instance.launched.map(timestamp),
            tags: instance.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
            session_manager: managed.map(|managed| SessionManager {
                online: managed.online,
                last_ping: managed.last_ping.map(timestamp),
                platform: &managed.platform,
            }),
        })
        .collect();
    let text = serde_json::to_string_pretty(&objects);
    text.map(|text| text + "\n")
        .map_err(|error| Failure::System { action: "write JSON", source: error.into() })
}

impl List {
    /// Whether all running instances are among what is listed.
    fn is_plain(&self) -> bool {
        self.name.is_none() && self.tag.is_empty()
    }
}

/// A Name tag may have 256 characters.
const NAME_WIDTH: usize = 60;
