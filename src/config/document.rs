//! A typed reader over a TOML document that keeps places and collects faults instead of stopping at the first.
//!
//! With its part for secrets, the only file that names the `toml` crate. A key is known because somebody asks for it: [`Table::finish`] reports
//! those that nobody asked for, so that no list of known keys can fall behind.

mod secrets;

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Fault, Faults, syntax_fault};
use crate::model::human_duration::HumanDuration;
use crate::model::suggestion::nearest;

/// Parses the text and hands its root to `walk`. Ok: what `walk` made, and the paths of the keys present.
pub(super) fn read<T>(
    source: &str,
    walk: impl FnOnce(&Table<'_>) -> Option<T>,
) -> Result<(T, Vec<String>), Vec<Fault>> {
    let document = DeTable::parse(source).map_err(|error| {
        vec![syntax_fault(
            source,
            error.span().unwrap_or(0..0),
            error.message(),
        )]
    })?;
    let faults = Faults::new(source);
    let present = RefCell::default();
    let root = Table {
        table: document.get_ref(),
        // What is missing from the whole file is reported at its first line.
        span: 0..0,
        path: String::new(),
        asked: RefCell::default(),
        context: Context {
            faults: &faults,
            present: &present,
        },
    };
    let made = walk(&root);
    drop(root);
    let faults = faults.into_vec();
    match made {
        Some(made) if faults.is_empty() => Ok((made, present.into_inner())),
        _ => Err(faults),
    }
}

#[derive(Clone, Copy)]
struct Context<'a> {
    faults: &'a Faults<'a>,
    present: &'a RefCell<Vec<String>>,
}

pub(super) struct Table<'a> {
    table: &'a DeTable<'a>,
    span: Range<usize>,
    path: String,
    asked: RefCell<Vec<&'static str>>,
    context: Context<'a>,
}

/// A value with the place it stands at.
#[derive(Clone)]
struct Entry<'a> {
    value: &'a DeValue<'a>,
    span: Range<usize>,
    path: String,
}

impl<'a> Table<'a> {
    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn entry(&self, key: &'static str) -> Option<Entry<'a>> {
        self.asked.borrow_mut().push(key);
        let value: &'a Spanned<DeValue<'a>> = self.table.get(key)?;
        let path = self.path_of(key);
        self.context.present.borrow_mut().push(path.clone());
        Some(Entry {
            value: value.get_ref(),
            span: value.span(),
            path,
        })
    }

    pub(super) fn has(&self, key: &'static str) -> bool {
        self.table.contains_key(key)
    }

    /// A text that may be faulty otherwise, for comparing only.
    pub(super) fn peek_text(&self, key: &str) -> Option<&'a str> {
        self.table.get(key).and_then(|value| value.get_ref().as_str())
    }

    /// Makes a key known that is asked for only sometimes.
    pub(super) fn known(&self, key: &'static str) {
        self.asked.borrow_mut().push(key);
    }

    /// Stars a key's value out of all excerpts.
    pub(super) fn hide(&self, key: &str) {
        if let Some(value) = self.table.get(key) {
            self.hide_all_in(value);
        }
    }

    /// Stars out all values of a table that is given up unread: some may be secrets.
    pub(super) fn hide_all(&self) {
        self.table.iter().for_each(|(_, value)| self.hide_all_in(value));
    }

    /// A table made by dotted keys has only its key's place: so each value is starred out by itself.
    fn hide_all_in(&self, value: &Spanned<DeValue<'_>>) {
        self.hide_value(value.get_ref(), value.span());
    }

    fn hide_value(&self, value: &DeValue<'_>, span: Range<usize>) {
        match value {
            DeValue::Table(table) => table.iter().for_each(|(_, value)| self.hide_all_in(value)),
            DeValue::Array(array) => array.iter().for_each(|value| self.hide_all_in(value)),
            _ => self.context.faults.hide(span),
        }
    }

    /// Reports a fault at a key's value, or at the table if the key is absent.
    pub(super) fn fault(&self, key: &str, message: impl Into<String>) {
        let span = self.table.get(key).map_or(self.span.clone(), Spanned::span);
        self.context.faults.report(span, self.path_of(key), message);
    }

    /// Reports that a key must be given.
    pub(super) fn missing(&self, key: &str, advice: &str) {
        self.context
            .faults
            .report(self.span.clone(), self.path_of(key), format!("missing: {advice}"));
    }

    fn wrong_type(&self, entry: &Entry<'_>, expected: &str) {
        // What was meant is unknown; a single value is shown, since it is easier to correct when seen.
        if matches!(entry.value, DeValue::Table(_) | DeValue::Array(_)) || expected.contains("table") {
            self.hide_value(entry.value, entry.span.clone());
        }
        let found = match entry.value {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.at(entry, format!("must be {expected}, but is {found}"));
    }

    fn at(&self, entry: &Entry<'_>, message: impl Into<String>) {
        self.context
            .faults
            .report(entry.span.clone(), entry.path.clone(), message);
    }

    fn text_of(&self, entry: &Entry<'a>) -> Option<&'a str> {
        let Some(text) = entry.value.as_str() else {
            self.wrong_type(entry, "a text in quotes");
            return None;
        };
        if text.trim().is_empty() {
            self.at(entry, "must not be empty");
            return None;
        }
        Some(text)
    }

    pub(super) fn text(&self, key: &'static str) -> Option<String> {
        let entry = self.entry(key)?;
        self.text_of(&entry).map(str::to_owned)
    }

    /// A text that a type reads; the type's error is the fault.
    pub(super) fn parsed_with<T, E: Display>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let entry = self.entry(key)?;
        let text = self.text_of(&entry)?;
        parse(text)
            .map_err(|error| self.at(&entry, error.to_string()))
            .ok()
    }

    pub(super) fn parsed<T: FromStr<Err: Display>>(&self, key: &'static str) -> Option<T> {
        self.parsed_with(key, str::parse)
    }

    /// A duration above zero.
    pub(super) fn duration(&self, key: &'static str) -> Option<HumanDuration> {
        self.parsed_with(key, |text| {
            let duration: HumanDuration = text.parse().map_err(|error| format!("{error}"))?;
            if duration.is_zero() {
                Err("must be more than zero".to_owned())
            } else {
                Ok(duration)
            }
        })
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        self.parsed_with(key, |text| {
            choices
                .iter()
                .find(|(word, _)| *word == text)
                .map(|(_, choice)| *choice)
                .ok_or_else(|| {
                    let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
                    format!("{text:?} is not known here: write {}", words.join(" or "))
                })
        })
    }

    pub(super) fn integer(&self, key: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        let entry = self.entry(key)?;
        let Some(integer) = entry.value.as_integer() else {
            self.wrong_type(&entry, "a whole number without quotes");
            return None;
        };
        let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            self.at(
                &entry,
                format!("must be between {} and {}", range.start(), range.end()),
            );
        }
        number
    }

    pub(super) fn boolean(&self, key: &'static str) -> Option<bool> {
        let entry = self.entry(key)?;
        let boolean = entry.value.as_bool();
        if boolean.is_none() {
            self.wrong_type(&entry, "true or false, without quotes");
        }
        boolean
    }

    /// What an expectation may be written as: a text, or a bare number or boolean.
    pub(super) fn scalar<T: FromStr<Err: Display>>(&self, key: &'static str) -> Option<T> {
        let entry = self.entry(key)?;
        let text = match entry.value {
            DeValue::Integer(integer) => integer.to_string(),
            DeValue::Float(float) => float.to_string(),
            DeValue::Boolean(boolean) => boolean.to_string(),
            _ => self.text_of(&entry)?.to_owned(),
        };
        text.parse()
            .map_err(|error: T::Err| self.at(&entry, error.to_string()))
            .ok()
    }

    pub(super) fn path(&self, key: &'static str) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    /// A list of texts; absent is empty.
    pub(super) fn texts(&self, key: &'static str) -> Vec<String> {
        self.entry(key)
            .map(|entry| self.texts_of(&entry))
            .unwrap_or_default()
    }

    fn texts_of(&self, entry: &Entry<'a>) -> Vec<String> {
        let DeValue::Array(array) = entry.value else {
            self.wrong_type(entry, "a list of texts, such as [\"a\", \"b\"]");
            return Vec::new();
        };
        let item = |(index, value): (usize, &'a Spanned<DeValue<'a>>)| {
            let path = format!("{}[{index}]", entry.path);
            self.text_of(&Entry {
                value: value.get_ref(),
                span: value.span(),
                path,
            })
            .map(str::to_owned)
        };
        array.iter().enumerate().filter_map(item).collect()
    }

    fn sub_table(&self, entry: &Entry<'a>) -> Option<Table<'a>> {
        let DeValue::Table(table) = entry.value else {
            self.wrong_type(entry, "a table");
            return None;
        };
        let (span, path) = (entry.span.clone(), entry.path.clone());
        Some(Table {
            table,
            span,
            path,
            asked: RefCell::default(),
            context: self.context,
        })
    }

    pub(super) fn table(&self, key: &'static str) -> Option<Table<'a>> {
        self.entry(key).and_then(|entry| self.sub_table(&entry))
    }

    /// Whether a key holds a table rather than a plain value.
    pub(super) fn is_table(&self, key: &str) -> bool {
        matches!(self.table.get(key).map(Spanned::get_ref), Some(DeValue::Table(_)))
    }

    /// A list of tables, as `[[key]]` makes it. Each is known by its name, if it has one, else by its number.
    pub(super) fn tables(&self, key: &'static str) -> Vec<Table<'a>> {
        let Some(entry) = self.entry(key) else {
            return Vec::new();
        };
        let DeValue::Array(array) = entry.value else {
            self.wrong_type(
                &entry,
                &format!("a list of tables, each under its own [[{}]]", self.path_of(key)),
            );
            return Vec::new();
        };
        let item = |(index, value): (usize, &'a Spanned<DeValue<'a>>)| {
            let name = value
                .get_ref()
                .get("name")
                .and_then(|name| name.get_ref().as_str());
            let known_by = name.map_or_else(|| format!("#{}", index + 1), str::to_owned);
            let path = format!("{}[{known_by}]", entry.path);
            self.sub_table(&Entry {
                value: value.get_ref(),
                span: value.span(),
                path,
            })
        };
        array.iter().enumerate().filter_map(item).collect()
    }

    /// Reports the keys that nobody asked for. What they hold may be a misspelt secret, and is not shown.
    pub(super) fn finish(&self) {
        let asked = self.asked.borrow();
        for (key, value) in self.table.iter() {
            let name: &str = key.get_ref();
            if asked.contains(&name) {
                continue;
            }
            self.hide_all_in(value);
            let mut known: Vec<&str> = asked.to_vec();
            known.sort_unstable();
            known.dedup();
            let message = match nearest(name, &known) {
                Some(near) => format!(
                    "unknown key: did you mean `{near}`? Known here: {}",
                    known.join(", ")
                ),
                None => format!("unknown key. Known here: {}", known.join(", ")),
            };
            self.context
                .faults
                .report(key.span(), self.path_of(name), message);
        }
    }
}
