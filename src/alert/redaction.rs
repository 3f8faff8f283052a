//! What strangers wrote, made fit to be shown: in one line, short, without secrets.

use percent_encoding::percent_decode_str;
use reqwest::Url;

use crate::model::secret::Secret;

/// So much of what a receiver said is quoted.
const QUOTED_CHARACTERS: usize = 200;

/// Shorter parts of an address are words such as `api`, and would be starred out of every text.
const SECRET_PART_CHARACTERS: usize = 8;

/// Texts that must not be shown.
#[derive(Default)]
pub(super) struct Redaction(Vec<String>);

impl Redaction {
    pub(super) fn add(&mut self, secret: &Secret) {
        self.add_text(secret.expose());
    }

    /// Which part of an address is a token is unknown: each part long enough to be one counts.
    pub(super) fn add_url(&mut self, url: &Url) {
        self.add_text(url.as_str());
        let parts = url
            .path()
            .split('/')
            .chain(url.query().unwrap_or_default().split(['&', '=']));
        for part in parts.chain([url.username(), url.password().unwrap_or_default()]) {
            let decoded = percent_decode_str(part).decode_utf8_lossy().into_owned();
            for text in [part, &decoded] {
                if text.chars().count() >= SECRET_PART_CHARACTERS {
                    self.add_text(text);
                }
            }
        }
    }

    fn add_text(&mut self, text: &str) {
        if !text.is_empty() {
            self.0.push(text.to_owned());
            // A secret may hold a shorter one.
            self.0.sort_by_key(|text| std::cmp::Reverse(text.len()));
        }
    }

    /// The text with stars in place of secrets.
    pub(super) fn star_out(&self, text: &str) -> String {
        let secrets = self.0.iter();
        secrets.fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
    }

    /// The beginning of a stranger's text in one line; empty where there is nothing to see.
    pub(super) fn quote(&self, text: &str) -> String {
        let plain = in_one_line(&self.star_out(text));
        match plain.char_indices().nth(QUOTED_CHARACTERS) {
            Some((end, _)) => format!("{}…", &plain[..end]),
            None => plain,
        }
    }
}

/// Without control characters, and with one space where there were several.
pub(super) fn in_one_line(text: &str) -> String {
    let spaced: String = text
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_short_plain_and_without_secrets() {
        let mut redaction = Redaction::default();
        redaction.add(&Secret::new("hunter2"));
        let url = Url::parse("https://me:pass%20word@h/api/T0123456789/a%2Fb?key=abcdefgh1").unwrap();
        redaction.add_url(&url);
        for text in [
            "hunter2",
            url.as_str(),
            "/api/T0123456789",
            "pass word",
            "key=abcdefgh1",
        ] {
            let quoted = redaction.quote(&format!("no \u{1b}[1m\r\n {text} <"));
            assert!(
                quoted.starts_with("no [1m ") && quoted.ends_with(" <"),
                "{quoted}"
            );
            assert!(quoted.contains("***") && !quoted.contains(text), "{quoted}");
        }
        let long = redaction.quote(&format!("{}hunter2", "ä".repeat(198)));
        assert_eq!(long, format!("{}**…", "ä".repeat(198)));
    }
}
