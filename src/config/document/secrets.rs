//! Reading secrets: wherever one may stand, it is starred out of all excerpts.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::DeValue;

use super::{Entry, Table};
use crate::config::secret_source::SecretSource;
use crate::model::secret::Secret;

impl<'a> Table<'a> {
    /// A secret as text or as the table that says where it is. Its text is starred out of all excerpts.
    pub(in crate::config) fn secret(&self, key: &'static str) -> Option<SecretSource> {
        self.secret_of(&self.entry(key)?)
    }

    fn secret_of(&self, entry: &Entry<'a>) -> Option<SecretSource> {
        let DeValue::Table(_) = entry.value else {
            self.context.faults.hide(entry.span.clone());
            if entry.value.as_str().is_none() {
                self.wrong_type(
                    entry,
                    "a text, or one of { env = \"NAME\" }, { file = \"PATH\" }, { credential = \"NAME\" }, { command = [\"…\"] }",
                );
                return None;
            }
            return self
                .text_of(entry)
                .map(|text| SecretSource::Text(Secret::new(text)));
        };
        let table = self.sub_table(entry)?;
        let command = table.entry("command").map(|entry| {
            // An argument may be a token.
            self.context.faults.hide(entry.span.clone());
            SecretSource::Command(table.texts_of(&entry))
        });
        let sources = [
            table.text("env").map(SecretSource::Env),
            table.path("file").map(SecretSource::File),
            table.text("credential").map(SecretSource::Credential),
            command,
        ];
        let mut given: Vec<SecretSource> = sources.into_iter().flatten().collect();
        let named = table.table.len();
        table.finish();
        match given.pop() {
            Some(SecretSource::Command(words)) if words.is_empty() => {
                self.at(entry, "the command is empty: name a program and its arguments");
                None
            }
            Some(source) if given.is_empty() => Some(source),
            None if named > 0 => None,
            _ => {
                self.at(
                    entry,
                    "a secret has one source: give exactly one of env, file, credential and command",
                );
                None
            }
        }
    }

    /// Pairs of names and secrets that the operator chooses freely, such as HTTP headers.
    pub(in crate::config) fn secrets_by_name(&self, key: &'static str) -> Vec<(String, SecretSource)> {
        let Some(table) = self.table(key) else {
            return Vec::new();
        };
        let pair = |(name, value): (&'a Spanned<Cow<'a, str>>, &'a Spanned<DeValue<'a>>)| {
            let path = table.path_of(name.get_ref());
            let entry = Entry {
                value: value.get_ref(),
                span: value.span(),
                path,
            };
            Some((name.get_ref().to_string(), table.secret_of(&entry)?))
        };
        table.table.iter().filter_map(pair).collect()
    }
}
