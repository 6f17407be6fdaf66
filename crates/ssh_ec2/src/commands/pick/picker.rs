//! A list that grows while the user chooses from it: rows, query, matches, selection, and the lines to draw.
//! (Pure.)
//!
//! Each word of the query must be in some cell of a row, whole or as letters in order that are close
//! together. The selection stays on its row while rows are added. The cells must be free of control
//! characters already.

use std::ops::Range;

use unicode_width::UnicodeWidthStr as _;

/// A row of the list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Row {
    /// Identifies the row: a new row with the same key replaces it.
    pub(super) key: String,
    /// The text of each column.
    pub(super) cells: Vec<String>,
    /// Drawn dim: a connection would most likely fail.
    pub(super) pale: bool,
}

/// A key press, by its effect on the list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Key {
    /// Appends a character to the query.
    Character(char),
    /// Removes the query's last character.
    Backspace,
    /// Removes the query's last word.
    DeleteWord,
    /// Removes the query.
    Clear,
    /// Moves the selection by rows.
    Move(isize),
    /// Moves it by screens.
    Page(isize),
    /// Moves it to the first row.
    First,
    /// Moves it to the last row.
    Last,
}

/// A line of the screen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Line {
    /// No wider than the screen.
    pub(super) text: String,
    pub(super) look: Look,
}

/// The attribute of a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Look {
    Plain,
    Heading,
    Pale,
    Selected,
}

pub(super) struct Picker {
    header: Vec<String>,
    rows: Vec<Row>,
    query: String,
    /// Indices of rows, the best match first; in the order of the rows while nothing is searched.
    matches: Vec<usize>,
    /// Index among the matches.
    selected: usize,
    /// Whether the user moved the selection: then it stays on its row.
    moved: bool,
    top: usize,
    height: usize,
}

impl Picker {
    pub(super) fn new(header: &[&str]) -> Self {
        Self {
            header: header.iter().map(|&title| title.to_owned()).collect(),
            rows: Vec::new(),
            query: String::new(),
            matches: Vec::new(),
            selected: 0,
            moved: false,
            top: 0,
            height: 1,
        }
    }

    /// Adds rows, and replaces those with the same key. Rows are in the order of their cells.
    pub(super) fn put(&mut self, rows: Vec<Row>) {
        let key = self.moved.then(|| self.selected().map(|row| row.key.clone())).flatten();
        let mut new: std::collections::HashMap<_, _> =
            rows.into_iter().map(|row| (row.key.clone(), row)).collect();
        for row in &mut self.rows {
            if let Some(newer) = new.remove(&row.key) {
                *row = newer;
            }
        }
        self.rows.extend(new.into_values());
        self.rows.sort_by(|a, b| a.cells.cmp(&b.cells).then_with(|| a.key.cmp(&b.key)));
        self.search();
        if let Some(key) = key {
            let at = self.matches.iter().position(|&index| self.rows[index].key == key);
            self.selected = at.unwrap_or(self.selected).min(self.matches.len().saturating_sub(1));
        }
    }

    pub(super) fn press(&mut self, key: Key) {
        let last = self.matches.len().saturating_sub(1);
        let page = isize::try_from(self.height).unwrap_or(1).max(1);
        let target = match key {
            Key::Character(character) => {
                self.query.push(character);
                return self.query_changed();
            }
            Key::Backspace => {
                self.query.pop();
                return self.query_changed();
            }
            Key::DeleteWord => {
                let kept = self.query.trim_end().rfind(' ').map_or(0, |at| at + 1);
                self.query.truncate(kept);
                return self.query_changed();
            }
            Key::Clear => {
                self.query.clear();
                return self.query_changed();
            }
            Key::Move(by) => self.selected.saturating_add_signed(by),
            Key::Page(by) => self.selected.saturating_add_signed(by.saturating_mul(page)),
            Key::First => 0,
            Key::Last => last,
        };
        self.moved = true;
        self.selected = target.min(last);
    }

    /// The row that would be chosen now.
    pub(super) fn selected(&self) -> Option<&Row> {
        self.matches.get(self.selected).map(|&index| &self.rows[index])
    }

    /// The whole screen: the query, `status` beside the count, the header, and as many rows as fit.
    pub(super) fn render(&mut self, width: usize, height: usize, status: &str) -> Vec<Line> {
        let line = |text: &str, look| Line { text: cut(text, width), look };
        let counts = format!("  {} of {}", self.matches.len(), self.rows.len());
        let status = if status.is_empty() { counts } else { format!("{counts}  {status}") };
        let mut lines = vec![line(&format!("> {}", self.query), Look::Plain), line(&status, Look::Pale)];
        let visible = self.scroll(height.saturating_sub(lines.len() + 1));
        // All rows count, so that columns do not move while one scrolls.
        let mut widths: Vec<usize> = self.header.iter().map(|title| title.width()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(&row.cells) {
                *width = (*width).max(cell.width());
            }
        }
        lines.push(line(&columns(&self.header, &widths), Look::Heading));
        for at in visible {
            let row = &self.rows[self.matches[at]];
            let look = match row.pale {
                _ if at == self.selected => Look::Selected,
                true => Look::Pale,
                false => Look::Plain,
            };
            lines.push(line(&columns(&row.cells, &widths), look));
        }
        lines.truncate(height);
        lines
    }

    fn query_changed(&mut self) {
        self.moved = false;
        self.selected = 0;
        self.top = 0;
        self.search();
    }

    fn search(&mut self) {
        let words: Vec<_> = self.query.split_whitespace().collect();
        let scored = self.rows.iter().enumerate().filter_map(|(index, row)| {
            let scores = words.iter().map(|word| row.cells.iter().filter_map(|cell| score(word, cell)).max());
            scores.sum::<Option<usize>>().map(|score| (score, index))
        });
        let mut scored: Vec<_> = scored.collect();
        // Stable: equals stay in the order of the rows.
        scored.sort_by(|(a, _), (b, _)| b.cmp(a));
        self.matches = scored.into_iter().map(|(_, index)| index).collect();
        self.selected = self.selected.min(self.matches.len().saturating_sub(1));
    }

    /// The matches to show, the selected one among them.
    fn scroll(&mut self, height: usize) -> Range<usize> {
        self.height = height;
        if self.selected < self.top {
            self.top = self.selected;
        } else if self.selected >= self.top + height {
            self.top = (self.selected + 1).saturating_sub(height);
        }
        self.top = self.top.min(self.matches.len().saturating_sub(height));
        self.top..self.matches.len().min(self.top + height)
    }
}

/// How well a cell matches a word: whole words better than parts, parts better than scattered letters, early
/// ones better than late ones. Capital letters in the word must be capital.
fn score(word: &str, cell: &str) -> Option<usize> {
    let folded;
    let cell = if word.chars().any(char::is_uppercase) {
        cell
    } else {
        folded = cell.to_lowercase();
        &folded
    };
    if let Some(start) = cell.find(word) {
        let begins = cell[..start].chars().next_back().is_none_or(|before| !before.is_alphanumeric());
        let whole = usize::from(cell.len() == word.len());
        return Some(WHOLE + 200 * whole + 100 * usize::from(begins) + LATE.saturating_sub(start));
    }
    // The letters in order, from the first place where all of them are: then from behind, for the shortest
    // piece.
    let letters: Vec<_> = word.chars().collect();
    let text: Vec<_> = cell.chars().collect();
    let mut wanted = letters.iter();
    let mut next = wanted.next()?;
    let end = text.iter().position(|letter| {
        letter == next
            && match wanted.next() {
                Some(letter) => {
                    next = letter;
                    false
                }
                None => true,
            }
    })?;
    let mut wanted = letters.iter().rev().peekable();
    let mut start = end;
    for (at, letter) in text[..=end].iter().enumerate().rev() {
        if wanted.next_if(|wanted| *wanted == letter).is_some() {
            start = at;
        }
        if wanted.peek().is_none() {
            break;
        }
    }
    let gaps = end + 1 - start - letters.len();
    (gaps <= letters.len()).then(|| LATE.saturating_sub(start) + (WHOLE / 2).saturating_sub(10 * gaps))
}

/// The score of a word that matches in one piece, more than scattered letters can have.
const WHOLE: usize = 1000;
/// From this position on, the position of a match does not matter.
const LATE: usize = 100;

fn columns(cells: &[String], widths: &[usize]) -> String {
    let mut text = String::from("  ");
    for (cell, width) in cells.iter().zip(widths) {
        text.push_str(cell);
        text.extend(std::iter::repeat_n(' ', (width + 2).saturating_sub(cell.width())));
    }
    text.trim_end().to_owned()
}

/// What fits into `width` columns.
fn cut(text: &str, width: usize) -> String {
    use unicode_width::UnicodeWidthChar as _;
    let mut used = 0;
    let fits = |character: &char| {
        used += character.width().unwrap_or(0);
        used <= width
    };
    text.chars().take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, pale: bool) -> Row {
        Row { key: name.into(), cells: vec![name.into(), format!("id-of-{name}")], pale }
    }

    fn picker(names: &[&str]) -> Picker {
        let mut picker = Picker::new(&["NAME", "ID"]);
        picker.put(names.iter().map(|name| row(name, false)).collect());
        picker
    }

    fn shown(picker: &mut Picker) -> Vec<String> {
        picker.render(80, 24, "").into_iter().skip(3).map(|line| line.text).collect()
    }

    fn type_in(picker: &mut Picker, text: &str) {
        text.chars().for_each(|character| picker.press(Key::Character(character)));
    }

    #[test]
    fn letters_in_order_match_and_the_best_match_comes_first() {
        let mut picker = picker(&["production-web", "prod-db", "web-prod-1", "staging"]);
        type_in(&mut picker, "webp");
        assert_eq!(picker.selected().unwrap().key, "web-prod-1");
        picker.press(Key::DeleteWord);
        type_in(&mut picker, "prod web");
        assert_eq!(shown(&mut picker).len(), 2);
        picker.press(Key::Clear);
        type_in(&mut picker, "Prod");
        assert_eq!(picker.selected(), None, "capital letters are meant");
        picker.press(Key::Clear);
        type_in(&mut picker, "zzz");
        assert_eq!(picker.selected(), None);
        picker.press(Key::Clear);
        assert_eq!(shown(&mut picker).len(), 4);
    }

    #[test]
    fn matches_are_scored_by_how_much_they_look_like_the_word() {
        let order = ["web", "web-1", "a-web", "aweb", "xweyb", "w-e-b"];
        let scores: Vec<_> = order.iter().map(|cell| score("web", cell).unwrap()).collect();
        assert!(scores.is_sorted_by(|a, b| a > b), "{scores:?}");
        for cell in ["wb", "bew", "w0123e4567b", ""] {
            assert_eq!(score("web", cell), None, "{cell}");
        }
        assert!(score("größe", "Größe").is_some());
    }

    #[test]
    fn the_selection_stays_on_its_row_while_others_come() {
        let mut picker = picker(&["b", "d"]);
        picker.press(Key::Move(1));
        assert_eq!(picker.selected().unwrap().key, "d");
        picker.put(vec![row("a", false), row("c", false), row("d", true)]);
        assert_eq!(picker.selected().unwrap(), &row("d", true), "replaced, not doubled");
        assert_eq!(shown(&mut picker).len(), 4);
    }

    #[test]
    fn the_best_match_is_selected_until_the_user_moves() {
        let mut picker = picker(&["b"]);
        picker.put(vec![row("a", false)]);
        assert_eq!(picker.selected().unwrap().key, "a");
    }

    #[test]
    fn the_screen_scrolls_with_the_selection() {
        let names: Vec<_> = (0..50).map(|number| format!("n{number:02}")).collect();
        let mut picker = picker(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let first = |picker: &mut Picker| picker.render(80, 13, "")[3].text.trim().to_owned();
        assert!(first(&mut picker).starts_with("n00"));
        picker.press(Key::Page(1));
        picker.press(Key::Move(5));
        assert!(first(&mut picker).starts_with("n06"), "{}", first(&mut picker));
        picker.press(Key::Last);
        assert!(first(&mut picker).starts_with("n40"));
        picker.press(Key::Move(-100));
        assert!(first(&mut picker).starts_with("n00"));
        assert_eq!(picker.render(80, 2, "").len(), 2, "a tiny screen");
        assert_eq!(picker.render(0, 0, "").len(), 0);
    }

    #[test]
    fn lines_fit_and_columns_are_aligned() {
        let mut picker = picker(&["字字", "web"]);
        let lines = picker.render(14, 10, "searching");
        let texts: Vec<_> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, ["> ", "  2 of 2  sear", "  NAME  ID", "  web   id-of-", "  字字  id-of-"]);
        let looks: Vec<_> = lines.iter().map(|line| line.look).collect();
        assert_eq!(looks, [Look::Plain, Look::Pale, Look::Heading, Look::Selected, Look::Plain]);
    }
}
