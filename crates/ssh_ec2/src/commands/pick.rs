//! `ssh_ec2` without a target, on a terminal: the user chooses from all instances.
//!
//! The search runs while the user types; instances are shown as they are found. The screen is drawn on
//! standard error, and is restored however this ends.

mod picker;

use std::collections::HashMap;
use std::io;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::style::{Attribute, Print, SetAttribute};
use crossterm::terminal::{
    self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use crossterm::{Command, queue};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::interval;

use crate::aws::{AwsError, Filter, Instance, InstanceState, Managed, Settings};
use crate::cli::{Common, Connect, Pick, Shape};
use crate::commands::connect;
use crate::commands::pick::picker::{Key, Line, Look, Picker, Row};
use crate::commands::runtime::{network, on_runtime};
use crate::commands::signals::{Signal, Signals};
use crate::environment::Environment;
use crate::error::{ExitCode, Failure};
use crate::instances::cache::Cache;
use crate::instances::inventory::{Place, Update, places, remember, search};
use crate::net::network::Network;
use crate::ssh::client::Invocation;
use crate::system::age::Age;
use crate::system::memory;
use crate::target::InstanceId;
use crate::ui;

#[derive(Debug)]
struct Chosen {
    instance: InstanceId,
    /// The profile with which it was found.
    profile: Option<String>,
    region: String,
}

pub(super) fn start(pick: &Pick) -> Result<ExitCode, Failure> {
    // Set before the choice, which may take long, and during which credentials are in memory.
    memory::forbid_dumps();
    let environment = Environment::read()?;
    let first = Settings { profile: pick.profiles.first().cloned(), ..Settings::default() };
    let chosen = on_runtime(async { run(pick, &network(&first).await?, &environment.cache).await })?;
    let Some(Chosen { instance, profile, region }) = chosen else { return Ok(ExitCode::Interrupted) };
    let common = Common { profile, region: Some(region), ..pick.common.clone() };
    let (options, destination) = (pick.options.clone(), instance.as_str().into());
    let shape = Shape::Ssh(Invocation { options, destination, command: Vec::new() });
    connect::start(&Connect { common, dry_run: false, shape })
}

/// Lets the user choose; none if the user leaves.
///
/// # Errors
///
/// When the terminal cannot be used, or no region could be searched.
async fn run(pick: &Pick, network: &Network, cache: &Cache) -> Result<Option<Chosen>, Failure> {
    // Before the screen is taken: a prompt would be overwritten, and the answer would be read as a search.
    let settings =
        Settings { region: pick.common.region.clone(), batch: pick.common.batch, ..Settings::default() };
    places(&pick.profiles, &settings, false, network).await?;
    let (tell, mut told) = mpsc::unbounded_channel();
    let mut searching = pin!(find(pick, network, cache, tell));
    let mut list = List::new();
    let mut events = EventStream::new();
    // On this screen Ctrl-C is a key; later it ends the look-up of the instance, or ssh.
    let handle = |source| Failure::System { action: "handle signals", source };
    let mut signals = Signals::without(&[Signal::Interrupt]).map_err(handle)?;
    let terminal = |source| Failure::System { action: "use the terminal", source };
    let mut screen = Screen::open().map_err(terminal)?;
    let mut clock = interval(REFRESH);
    let mut is_over = false;
    loop {
        screen.draw(&mut list).map_err(terminal)?;
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => match list.handle(&event) {
                    Some(Action::Leave) => return Ok(None),
                    Some(Action::Choose(chosen)) => return Ok(Some(chosen)),
                    None => {}
                },
                Some(Err(error)) => return Err(terminal(error)),
                None => return Ok(None),
            },
            () = &mut searching, if !is_over => is_over = true,
            Some(news) = told.recv() => {
                list.learn(news);
                // A burst of pages is drawn once.
                while let Ok(news) = told.try_recv() {
                    list.learn(news);
                }
            }
            _ = clock.tick() => {}
            // The screen is restored first.
            _ = signals.next() => return Ok(None),
        }
        if is_over && told.is_empty() {
            list.searching = false;
            if let Some(error) = list.hopeless() {
                return Err(error.into());
            }
        }
    }
}

/// What the search has found.
enum News {
    /// The profiles and regions that are searched.
    Places(Vec<(Option<String>, String)>),
    Update(Update),
    /// The regions are not known.
    Failed(AwsError),
}

async fn find(pick: &Pick, network: &Network, cache: &Cache, tell: mpsc::UnboundedSender<News>) {
    let say = |news| {
        // It fails when the user has left.
        let _ = tell.send(news);
    };
    let settings = Settings { region: pick.common.region.clone(), batch: true, ..Settings::default() };
    let places = match places(&pick.profiles, &settings, pick.all_regions, network).await {
        Ok(places) => places,
        Err(error) => return say(News::Failed(error)),
    };
    let names = |place: &Place| (place.profile.clone(), place.region().to_owned());
    say(News::Places(places.iter().map(names).collect()));
    let found = std::cell::RefCell::new(vec![Some(Vec::new()); places.len()]);
    // Without terminated ones, which AWS lists for another hour.
    let filter = Filter {
        name: "instance-state-name".into(),
        values: ["pending", "running", "stopping", "stopped"].map(str::to_owned).to_vec(),
    };
    search(&places, &[filter], |update| {
        match &update {
            Update::Instances(index, page) => {
                if let Some(found) = &mut found.borrow_mut()[*index] {
                    found.extend(page.iter().cloned());
                }
            }
            Update::Failed(index, _) => found.borrow_mut()[*index] = None,
            Update::Managed(..) | Update::Unmanaged(..) => {}
        }
        say(News::Update(update));
    })
    .await;
    for (place, instances) in places.iter().zip(found.into_inner()) {
        if let Some(instances) = instances {
            remember(place, instances.iter(), cache).await;
        }
    }
}

enum Action {
    Choose(Chosen),
    Leave,
}

/// The instances found, and the list that shows them.
struct List {
    picker: Picker,
    places: Vec<(Option<String>, String)>,
    instances: HashMap<String, (usize, Instance)>,
    managed: HashMap<String, Managed>,
    /// For each account and region, whether EC2 has answered, be it with an error.
    answered: Vec<bool>,
    errors: Vec<AwsError>,
    searching: bool,
    /// Why Enter did nothing.
    refusal: Option<String>,
}

impl List {
    fn new() -> Self {
        Self {
            picker: Picker::new(&HEADER),
            places: Vec::new(),
            instances: HashMap::new(),
            managed: HashMap::new(),
            answered: Vec::new(),
            errors: Vec::new(),
            searching: true,
            refusal: None,
        }
    }

    fn learn(&mut self, news: News) {
        match news {
            News::Places(places) => {
                self.answered = vec![false; places.len()];
                self.places = places;
            }
            News::Failed(error) => self.errors.push(error),
            News::Update(Update::Failed(place, error)) => {
                self.answered[place] = true;
                self.errors.push(error);
            }
            // Then the column for Session Manager stays empty.
            News::Update(Update::Unmanaged(..)) => {}
            News::Update(Update::Instances(place, page)) => {
                self.answered[place] = true;
                let rows = page.iter().map(|instance| self.row(place, instance)).collect();
                self.picker.put(rows);
                let keyed = page.into_iter().map(|instance| (instance.id.to_string(), (place, instance)));
                self.instances.extend(keyed);
            }
            News::Update(Update::Managed(page)) => {
                let keys: Vec<_> = page.iter().map(|managed| managed.id.to_string()).collect();
                self.managed.extend(keys.iter().cloned().zip(page));
                let known = keys.iter().filter_map(|key| self.instances.get(key));
                let rows = known.map(|(place, instance)| self.row(*place, instance)).collect();
                self.picker.put(rows);
            }
        }
    }

    fn row(&self, place: usize, instance: &Instance) -> Row {
        let now = SystemTime::now();
        let managed = self.managed.get(instance.id.as_str());
        let online = managed.map_or_else(String::new, |managed| managed.describe(now));
        let (profile, region) = &self.places[place];
        let address = instance.private_address.as_deref().or(instance.public_address.as_deref());
        let zone = if instance.availability_zone.is_empty() { region } else { &instance.availability_zone };
        let mut cells = vec![
            ui::shorten(&ui::sanitise(instance.name().unwrap_or_default()), NAME_WIDTH),
            instance.id.to_string(),
            address.unwrap_or_default().to_owned(),
            instance.instance_type.clone(),
            zone.clone(),
            instance.launched.map(|launched| Age::between(launched, now).to_string()).unwrap_or_default(),
            instance.state.as_str().to_owned(),
            online,
        ];
        cells.extend(profile.clone());
        Row {
            key: instance.id.to_string(),
            cells: cells.iter().map(|cell| ui::sanitise(cell)).collect(),
            pale: instance.state != InstanceState::Running || managed.is_some_and(|managed| !managed.online),
        }
    }

    fn handle(&mut self, event: &Event) -> Option<Action> {
        let Event::Key(KeyEvent { code, modifiers, kind, .. }) = event else { return None };
        if *kind == KeyEventKind::Release {
            return None;
        }
        self.refusal = None;
        let control = modifiers.contains(KeyModifiers::CONTROL);
        let alt = modifiers.contains(KeyModifiers::ALT);
        let key = match code {
            KeyCode::Esc => return Some(Action::Leave),
            KeyCode::Char('c' | 'd' | 'g') if control => return Some(Action::Leave),
            KeyCode::Enter => return self.choose(),
            KeyCode::Char('h') if control => Key::Backspace,
            KeyCode::Char('n' | 'j') if control => Key::Move(1),
            KeyCode::Char('p' | 'k') if control => Key::Move(-1),
            KeyCode::Char('u') if control => Key::Clear,
            KeyCode::Char('w') if control => Key::DeleteWord,
            KeyCode::Char(_) if control || alt => return None,
            KeyCode::Char(character) => Key::Character(*character),
            KeyCode::Backspace => Key::Backspace,
            KeyCode::Down => Key::Move(1),
            KeyCode::Up => Key::Move(-1),
            KeyCode::PageDown => Key::Page(1),
            KeyCode::PageUp => Key::Page(-1),
            KeyCode::Home => Key::First,
            KeyCode::End => Key::Last,
            _ => return None,
        };
        self.picker.press(key);
        None
    }

    fn choose(&mut self) -> Option<Action> {
        let (place, instance) = self.instances.get(&self.picker.selected()?.key)?;
        if let InstanceState::Other(state) = &instance.state {
            self.refusal = Some(format!("{} is {state}", instance.id));
            return None;
        }
        let (profile, region) = self.places[*place].clone();
        Some(Action::Choose(Chosen { instance: instance.id.clone(), profile, region }))
    }

    /// The state of the search, or what went wrong.
    fn status(&self) -> String {
        if let Some(refusal) = &self.refusal {
            return refusal.clone();
        }
        let mut parts = Vec::new();
        let answered = self.answered.iter().filter(|answered| **answered).count();
        match self.places.len() {
            _ if !self.searching => {}
            0 => parts.push("looking for regions …".into()),
            places if answered < places => {
                parts.push(format!("searching, {answered} of {places} regions answered …"))
            }
            _ => parts.push("searching …".into()),
        }
        if let Some(error) = self.errors.last() {
            parts.push(ui::sanitise(&error.to_string()));
        }
        parts.join("; ")
    }

    /// The error to end with: all searches failed, and there is nothing to choose from.
    fn hopeless(&mut self) -> Option<AwsError> {
        let failed = self.instances.is_empty() && self.errors.len() >= self.places.len().max(1);
        if failed { self.errors.pop() } else { None }
    }
}

/// The terminal in raw mode, on its alternate screen.
struct Screen;

impl Screen {
    fn open() -> io::Result<Self> {
        enable_raw_mode()?;
        let screen = Self;
        show(&[&EnterAlternateScreen as &dyn Ansi, &Hide])?;
        Ok(screen)
    }

    #[expect(clippy::unused_self, reason = "there is a screen to draw on only while one is open")]
    fn draw(&mut self, list: &mut List) -> io::Result<()> {
        let (width, height) = terminal::size()?;
        let status = list.status();
        let lines = list.picker.render(usize::from(width), usize::from(height), &status);
        let mut text = Vec::new();
        for (row, Line { text: line, look }) in (0..).zip(&lines) {
            let (before, after) = match look {
                Look::Plain => (Attribute::Reset, Attribute::Reset),
                Look::Heading => (Attribute::Bold, Attribute::Reset),
                Look::Pale => (Attribute::Dim, Attribute::Reset),
                Look::Selected => (Attribute::Reverse, Attribute::Reset),
            };
            queue!(text, MoveTo(0, row), SetAttribute(before), Print(line), SetAttribute(after))?;
            queue!(text, Clear(ClearType::UntilNewLine))?;
        }
        queue!(text, Clear(ClearType::FromCursorDown))?;
        ui::explain(&String::from_utf8_lossy(&text));
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = show(&[&Show as &dyn Ansi, &LeaveAlternateScreen]);
        let _ = disable_raw_mode();
    }
}

/// Any command for the terminal. crossterm's own trait is not dyn-compatible.
trait Ansi {
    fn write(&self, text: &mut String) -> std::fmt::Result;
}

impl<C: Command> Ansi for C {
    fn write(&self, text: &mut String) -> std::fmt::Result {
        self.write_ansi(text)
    }
}

fn show(commands: &[&dyn Ansi]) -> io::Result<()> {
    let mut text = String::new();
    commands.iter().try_for_each(|command| command.write(&mut text)).map_err(io::Error::other)?;
    ui::explain(&text);
    Ok(())
}

const HEADER: [&str; 8] = ["NAME", "ID", "ADDRESS", "TYPE", "ZONE", "AGE", "STATE", "SESSION MANAGER"];
const NAME_WIDTH: usize = 40;
/// How often the screen is drawn again, so that the ages on it are right.
const REFRESH: Duration = Duration::from_secs(30);
