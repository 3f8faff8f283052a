//! Structure checks: what the compiler does not hold together. Each checker is a function from text to faults, and
//! is itself tried on text with the fault in it.
// Test code may stop at once where the product may not.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// A part may use parts of a lower level only; so parts of one level do not know each other.
const LEVELS: &[(&str, u32)] = &[
    ("model", 0),
    ("store", 1),
    ("postgres", 1),
    ("encryption", 1),
    ("scratch", 2),
    ("repository", 3),
    ("journal", 4),
    ("ops", 5),
    ("observe", 6),
    ("alert", 7),
    ("config", 7),
    ("daemon", 8),
    ("cli", 9),
];

/// A foreign crate is named in one place only, so that it can be replaced there. A place is the start of a path.
const PLACES: &[(&str, &[&str])] = &[
    ("age", &["src/encryption.rs"]),
    ("aws_config", &["src/store/s3/"]),
    ("aws_sdk_s3", &["src/store/s3.rs", "src/store/s3/"]),
    ("aws_smithy_http_client", &["src/store/s3/"]),
    ("axum", &["src/observe/http"]),
    ("clap", &["src/cli/"]),
    ("clap_complete", &["src/cli/"]),
    ("clap_mangen", &["src/cli/"]),
    ("comfy_table", &["src/cli/"]),
    ("cron", &["src/model/schedule.rs"]),
    ("hyper", &["src/observe/http"]),
    ("hyper_util", &["src/observe/http"]),
    ("indicatif", &["src/cli/"]),
    ("landlock", &["src/scratch/sandbox"]),
    ("lettre", &["src/alert/channel/"]),
    ("minijinja", &["src/alert/channel/"]),
    ("prometheus", &["src/observe/metrics"]),
    ("reqwest", &["src/alert/"]),
    // Only tests serve S3.
    ("s3s", &[]),
    ("sd_notify", &["src/daemon/"]),
    ("seccompiler", &["src/scratch/sandbox"]),
    ("tokio_postgres", &["src/postgres/", "src/scratch/"]),
    ("toml", &["src/config/"]),
    ("zstd", &["src/ops/packing.rs"]),
];

const FILE_LINES: usize = 400;
const FUNCTION_LINES: usize = 70;

/// What speaks of one machine or of how the work was done; in pieces, so that this file may stay too.
const FORBIDDEN_WORDS: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/fa", "rm/"),
    concat!("farm", "-bench"),
    concat!("farm", "-studio"),
    concat!(".lib", "rary"),
    concat!("sub", "agent"),
    concat!("C", "EO "),
];

const CRATES_IO: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";

#[test]
fn parts_use_only_parts_below_them() {
    check(&sources("src"), layering_faults);
}

#[test]
fn files_have_at_most_400_lines_without_their_tests() {
    check(&sources("src"), |_, text| file_length_faults(text));
}

#[test]
fn functions_have_at_most_70_lines() {
    check(&all_rust(), |_, text| function_length_faults(text));
}

#[test]
fn files_say_what_they_are() {
    check(&all_rust(), |_, text| opening_faults(text));
}

#[test]
fn foreign_crates_stay_in_their_place() {
    check(&sources("src"), place_faults);
    let manifest = read(Path::new("Cargo.toml"));
    for (name, _) in PLACES {
        let is_it = |line: &str| {
            line.split(" = ")
                .next()
                .is_some_and(|key| key.replace('-', "_") == *name)
        };
        assert!(
            manifest.lines().any(is_it),
            "the rule for {name} is dead: no such dependency"
        );
    }
}

#[test]
fn architecture_names_only_what_exists() {
    let page = Path::new("ARCHITECTURE.md");
    if root().join(page).exists() {
        check(&[page.to_owned()], |_, text| {
            missing_path_faults(text, |path| root().join(path).exists())
        });
    }
}

#[test]
fn nothing_speaks_of_one_machine() {
    let mut files = Vec::new();
    collect(Path::new(""), &mut files);
    check(&files, |_, text| forbidden_word_faults(text));
}

#[test]
fn dependencies_come_from_crates_io() {
    check(&[PathBuf::from("Cargo.lock")], |_, text| {
        foreign_source_faults(text)
    });
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    // Pictures and the like have no words.
    String::from_utf8_lossy(&fs::read(root().join(path)).unwrap()).into_owned()
}

fn sources(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    collect(Path::new(folder), &mut files);
    files.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    assert!(!files.is_empty(), "no Rust files below {folder}");
    files
}

fn all_rust() -> Vec<PathBuf> {
    [sources("src"), sources("tests")].concat()
}

/// Every file below a folder, relative to the root, without what is built and without git's own.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root().join(folder)).unwrap().flatten() {
        let path = folder.join(entry.file_name());
        if path == Path::new("target") || path == Path::new(".git") {
            continue;
        }
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => collect(&path, files),
            kind if kind.is_file() => files.push(path),
            _ => (),
        }
    }
}

/// Fails with all faults of all files at once.
fn check(files: &[PathBuf], faults: impl Fn(&str, &str) -> Vec<String>) {
    let mut found = Vec::new();
    for path in files {
        let name = path.to_str().unwrap();
        found.extend(
            faults(name, &read(path))
                .into_iter()
                .map(|fault| format!("{name}: {fault}")),
        );
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

fn layering_faults(path: &str, text: &str) -> Vec<String> {
    let inner = path.strip_prefix("src/").unwrap();
    let part = inner.split('/').next().unwrap().trim_end_matches(".rs");
    if part == "lib" || part == "main" {
        return Vec::new();
    }
    let Some(own) = level(part) else {
        return vec![format!("{part} has no level in tests/tidy.rs")];
    };
    let mut faults = Vec::new();
    let code = code_only(text);
    for used in used_parts(&code) {
        match level(&used) {
            _ if used == part => (),
            _ if used == "*" => faults.push("`use crate::*` hides what is used".to_owned()),
            None => faults.push(format!("crate::{used} has no level in tests/tidy.rs")),
            Some(level) if level < own => (),
            Some(_) => faults.push(format!("{part} must not use {used}")),
        }
    }
    // How many modules deep a file is; that many `super` lead to the root, past every check above.
    let is_folder_head = inner.ends_with("/mod.rs");
    let depth = inner.matches('/').count() + usize::from(!is_folder_head);
    if before_tests(&code).contains(&"super::".repeat(depth)) {
        faults.push("`super` up to the root: write `crate::`".to_owned());
    }
    faults
}

fn level(part: &str) -> Option<u32> {
    LEVELS
        .iter()
        .find(|(name, _)| *name == part)
        .map(|(_, level)| *level)
}

/// The first names behind every `crate::`, also of groups: `use crate::{model::id, store}`.
fn used_parts(code: &str) -> Vec<String> {
    let mut parts = Vec::new();
    for (position, found) in code.match_indices("crate::") {
        if code[..position].ends_with(is_word) {
            continue;
        }
        let rest = code[position + found.len()..].trim_start();
        match rest.strip_prefix('{') {
            Some(group) => parts.extend(group_heads(group)),
            None => parts.push(head(rest)),
        }
    }
    parts
}

/// The first names of the members of a group, up to its closing brace.
fn group_heads(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let (mut depth, mut member) = (0_usize, String::new());
    for letter in group.chars() {
        match letter {
            '}' if depth == 0 => break,
            ',' if depth == 0 => heads.push(head(std::mem::take(&mut member).trim())),
            _ => {
                depth = depth + usize::from(letter == '{') - usize::from(letter == '}');
                member.push(letter);
            }
        }
    }
    if !member.trim().is_empty() {
        heads.push(head(member.trim()));
    }
    heads
}

fn head(path: &str) -> String {
    let end = path.find(|letter| !is_word(letter)).unwrap_or(path.len());
    if path.starts_with('*') {
        "*".to_owned()
    } else {
        path[..end].to_owned()
    }
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn before_tests(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

fn file_length_faults(text: &str) -> Vec<String> {
    let lines = before_tests(text).lines().count();
    if lines <= FILE_LINES {
        return Vec::new();
    }
    vec![format!(
        "{lines} lines before the tests, at most {FILE_LINES}: what is the second idea in it?"
    )]
}

fn function_length_faults(text: &str) -> Vec<String> {
    let code = code_only(text);
    let mut faults = Vec::new();
    for (position, found) in code.match_indices("fn ") {
        if code[..position].ends_with(is_word) {
            continue;
        }
        let name = head(code[position + found.len()..].trim_start());
        let lines = body_lines(&code[position..]);
        if lines > FUNCTION_LINES {
            faults.push(format!("fn {name} has {lines} lines, at most {FUNCTION_LINES}"));
        }
    }
    faults
}

/// Lines from `fn` to the end of its body; 0 for a signature or a function pointer, which have no body.
fn body_lines(code: &str) -> usize {
    let (mut braces, mut brackets) = (0_usize, 0_usize);
    for (position, letter) in code.char_indices() {
        match letter {
            '(' | '[' => brackets += 1,
            // A function pointer as a parameter: the bracket that closes is not ours.
            ')' | ']' if brackets == 0 => return 0,
            ')' | ']' => brackets -= 1,
            ';' if braces == 0 && brackets == 0 => return 0,
            '{' => braces += 1,
            '}' if braces <= 1 => {
                return if braces == 0 {
                    0
                } else {
                    code[..=position].lines().count()
                };
            }
            '}' => braces -= 1,
            _ => (),
        }
    }
    0
}

fn opening_faults(text: &str) -> Vec<String> {
    if text.starts_with("//! ") {
        Vec::new()
    } else {
        vec!["does not open with `//! ` and what it is".to_owned()]
    }
}

fn place_faults(path: &str, text: &str) -> Vec<String> {
    let code = code_only(text);
    let is_outside = |places: &[&str]| !places.iter().any(|place| path.starts_with(place));
    let strays = PLACES
        .iter()
        .filter(|(name, places)| is_outside(places) && names_crate(&code, name));
    strays
        .map(|(name, places)| format!("{name} may be named only in {}", places.join(" and ")))
        .collect()
}

/// Whether the code has a path that begins with the crate: `name::`, `use name;`, `use name as`.
fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(position, _)| {
        let (before, after) = (&code[..position], &code[position + name.len()..]);
        let begins_path = !before.ends_with(is_word) && (!before.ends_with("::") || before.ends_with(" ::"));
        let is_used = before.ends_with("use ") && (after.starts_with(';') || after.starts_with(" as "));
        begins_path && (after.starts_with("::") || is_used)
    })
}

/// Backticked words that are paths of this repository and lead nowhere.
fn missing_path_faults(text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let is_path = |word: &str| {
        let in_folder = ["src/", "tests/", "config/", "scripts/", ".ci/"]
            .iter()
            .any(|start| word.starts_with(start));
        let is_file = [".rs", ".md", ".toml", ".sh"]
            .iter()
            .any(|end| word.ends_with(end));
        let is_plain = word
            .chars()
            .all(|letter| is_word(letter) || "./-".contains(letter));
        is_plain && !word.starts_with(['/', '.']) && (in_folder || is_file) || word.starts_with(".ci/")
    };
    let words = text.split('`').skip(1).step_by(2).filter(|word| is_path(word));
    let missing = words.filter(|word| !exists(word) && !exists(&format!("src/{word}")));
    missing
        .map(|word| format!("names {word}, which does not exist"))
        .collect()
}

fn forbidden_word_faults(text: &str) -> Vec<String> {
    let found = FORBIDDEN_WORDS.iter().filter(|word| text.contains(**word));
    found.map(|word| format!("says {word:?}")).collect()
}

fn foreign_source_faults(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| line.starts_with("source = ") && *line != CRATES_IO)
        .map(str::to_owned)
        .collect()
}

/// The text with every comment and literal blanked out and every line kept, so that words and braces count only
/// where they are code.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let previous_is_word = code.ends_with(is_word);
        let length = match letter {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment_length(rest),
            '"' => string_length(rest),
            'r' if !previous_is_word || code.ends_with('b') => raw_string_length(rest),
            '\'' => character_length(rest),
            _ => 0,
        };
        if length == 0 {
            code.push(letter);
            rest = &rest[letter.len_utf8()..];
        } else {
            code.extend(
                rest[..length]
                    .chars()
                    .map(|letter| if letter == '\n' { '\n' } else { ' ' }),
            );
            rest = &rest[length..];
        }
    }
    code
}

/// Block comments nest.
fn block_comment_length(rest: &str) -> usize {
    let (mut depth, mut position) = (0_usize, 0);
    while position < rest.len() {
        let tail = &rest.as_bytes()[position..];
        if tail.starts_with(b"/*") {
            depth += 1;
            position += 2;
        } else if tail.starts_with(b"*/") {
            depth -= 1;
            position += 2;
            if depth == 0 {
                return position;
            }
        } else {
            position += 1;
        }
    }
    rest.len()
}

fn string_length(rest: &str) -> usize {
    let mut letters = rest.char_indices().skip(1);
    while let Some((position, letter)) = letters.next() {
        match letter {
            '\\' => drop(letters.next()),
            '"' => return position + 1,
            _ => (),
        }
    }
    rest.len()
}

/// `r"…"` and `r#"…"#` with any number of `#`; 0 when it is another word with an r.
fn raw_string_length(rest: &str) -> usize {
    let hashes = rest[1..].len() - rest[1..].trim_start_matches('#').len();
    let Some(content) = rest[1 + hashes..].strip_prefix('"') else {
        return 0;
    };
    let end = format!("\"{}", "#".repeat(hashes));
    content
        .find(&end)
        .map_or(rest.len(), |found| 1 + hashes + 1 + found + end.len())
}

/// `'a'` and `'\n'`; 0 for a lifetime.
fn character_length(rest: &str) -> usize {
    let mut letters = rest.char_indices().skip(1);
    match letters.next() {
        Some((_, '\\')) => rest[3..].find('\'').map_or(0, |found| 3 + found + 1),
        Some(_) => letters
            .next()
            .filter(|(_, letter)| *letter == '\'')
            .map_or(0, |(position, _)| position + 1),
        None => 0,
    }
}

/// Each checker must be able to fail, and must let pass what is right.
mod checkers {
    use super::*;

    #[test]
    fn layering_sees_upward_sideward_hidden_and_unknown_uses() {
        let faults = |path: &str, text: &str| layering_faults(path, text).len();
        assert_eq!(
            faults(
                "src/ops/backup.rs",
                "use crate::model::id;\nuse crate::{repository, store::{fs, s3}};"
            ),
            0
        );
        assert_eq!(
            faults(
                "src/ops/backup.rs",
                "use super::lock;\nfn f() { crate::ops::run() }"
            ),
            0
        );
        assert_eq!(faults("src/ops/backup.rs", "use crate::observe::status;"), 1);
        assert_eq!(faults("src/ops/backup.rs", "fn f() { crate::config::load() }"), 1);
        assert_eq!(
            faults("src/observe/status.rs", "use crate::{model::{a, b}, cli};"),
            1
        );
        assert_eq!(faults("src/observe/status.rs", "use crate::config;"), 1);
        assert_eq!(faults("src/store/fs.rs", "use crate::postgres::Server;"), 1);
        assert_eq!(faults("src/postgres/mod.rs", "use crate::store;"), 1);
        assert_eq!(faults("src/repository.rs", "use crate::journal;"), 1);
        assert_eq!(faults("src/cli/mod.rs", "use crate::*;"), 1);
        assert_eq!(faults("src/cli/mod.rs", "use crate::{*};"), 1);
        assert_eq!(faults("src/cli/mod.rs", "use crate::utils;"), 1);
        assert_eq!(faults("src/utils.rs", ""), 1);
        assert_eq!(faults("src/store/fs.rs", "use super::super::postgres;"), 1);
        assert_eq!(faults("src/store/mod.rs", "use super::postgres;"), 1);
        assert_eq!(
            faults("src/store/mod.rs", "#[cfg(test)] mod tests { use super::*; }"),
            0
        );
        assert_eq!(faults("src/journal.rs", "use super::ops;"), 1);
        assert_eq!(
            faults(
                "src/store/fs.rs",
                "// use crate::cli;\nconst A: &str = \"crate::cli\";"
            ),
            0
        );
    }

    #[test]
    fn lengths_count_code_lines_and_spare_tests() {
        let lines = |count: usize| "x\n".repeat(count);
        assert_eq!(file_length_faults(&lines(400)).len(), 0);
        assert_eq!(file_length_faults(&lines(401)).len(), 1);
        assert_eq!(
            file_length_faults(&format!("{}#[cfg(test)]\n{}", lines(400), lines(900))).len(),
            0
        );
        let function = |count: usize| {
            format!(
                "fn long(a: [u8; 4]) -> u8 {{\n{}}}\nfn short() {{}}\n",
                lines(count)
            )
        };
        assert_eq!(function_length_faults(&function(68)), [""; 0]);
        assert_eq!(
            function_length_faults(&function(69)),
            ["fn long has 71 lines, at most 70"]
        );
        assert_eq!(
            function_length_faults(&format!("trait T {{ fn f(&self); {} }}", lines(100))),
            [""; 0]
        );
        let brace_in_text = format!(
            "fn long() {{ let a = '}}'; let b = \"}}\"; /* }} */\n{}}}",
            lines(90)
        );
        assert_eq!(function_length_faults(&brace_in_text).len(), 1);
    }

    #[test]
    fn openings_places_words_and_sources_are_told_apart() {
        assert_eq!(opening_faults("//! What it is.\n").len(), 0);
        assert_eq!(opening_faults("use std::fs;\n").len(), 1);
        assert_eq!(
            place_faults("src/ops/backup.rs", "use tokio_postgres::Client;").len(),
            1
        );
        assert_eq!(
            place_faults("src/postgres/copy.rs", "use tokio_postgres::Client;").len(),
            0
        );
        assert_eq!(
            place_faults("src/ops/mod.rs", "fn f() { ::toml::from_str() }").len(),
            1
        );
        assert_eq!(
            place_faults("src/ops/mod.rs", "use zstd as z; use cron;").len(),
            2
        );
        assert_eq!(
            place_faults(
                "src/ops/mod.rs",
                "use crate::model::cron::next; // toml::x\nmy_toml::f()"
            )
            .len(),
            0
        );
        assert_eq!(
            place_faults("src/cli/mod.rs", "use clap_complete::Shell;").len(),
            0
        );
        for word in FORBIDDEN_WORDS {
            assert_eq!(forbidden_word_faults(&format!("see {word} for more")).len(), 1);
        }
        assert_eq!(forbidden_word_faults("plain words").len(), 0);
        assert_eq!(
            foreign_source_faults(&format!("name = \"a\"\n{CRATES_IO}\n")).len(),
            0
        );
        assert_eq!(
            foreign_source_faults("source = \"git+https://example.org/a\"").len(),
            1
        );
    }

    #[test]
    fn missing_paths_are_those_that_look_like_paths() {
        let page =
            "See `src/here.rs`, `src/gone.rs`, `here.rs`, `gone.md`, `fn main`, `/etc/x.toml` and `a<b>.rs`.";
        let faults = missing_path_faults(page, |path| path == "src/here.rs");
        assert_eq!(
            faults,
            [
                "names src/gone.rs, which does not exist",
                "names gone.md, which does not exist"
            ]
        );
    }

    #[test]
    fn code_is_told_from_comments_and_literals() {
        let text = "a /* b /* c */ d */ e // f\n\"g\\\"h\" i 'j' k '\\'' l<'m> r#\"n\"o\"# p br\"q\" r2";
        let words: Vec<_> = code_only(text).split_whitespace().map(str::to_owned).collect();
        assert_eq!(words, ["a", "e", "i", "k", "l<'m>", "p", "b", "r2"]);
        assert_eq!(code_only(text).lines().count(), text.lines().count());
    }
}
