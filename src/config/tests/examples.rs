//! The configurations that are shipped: complete, and read as they are.

use super::*;

const LOCAL: &str = include_str!("../../../config/local.toml");
const STAGING: &str = include_str!("../../../config/staging.toml");
const PRODUCTION: &str = include_str!("../../../config/production.toml");

/// A key that nobody knows. Its fault lists those that are known in its stead.
const STRANGER: &str = "stranger = 1";

#[test]
fn the_example_is_read_as_shipped_and_with_every_key_switched_on() {
    parse(EXAMPLE).unwrap_or_else(|error| panic!("{error}"));
    let config = parse(&uncommented(EXAMPLE)).unwrap_or_else(|error| panic!("{error}"));
    let target = config.target("shop").unwrap();
    assert_eq!(target.rto_overhead.total().as_secs(), 22 * 60);
    assert_eq!(target.scratch.isolation, Isolation::BestEffort);
    assert_eq!(
        target.scratch.skip_extensions,
        ["aws_s3"],
        "what a target does not say is as in [scratch]"
    );
    assert_eq!(target.checks.len(), 1);
    assert!(
        matches!(target.backup, Some(Schedule::Every(_)))
            && matches!(target.restore_test, Some(Schedule::Cron(_)))
    );
    assert_eq!(config.alert.channels.len(), 4);
    assert!(config.alert.evaluate);
}

#[test]
fn every_key_that_is_read_is_explained_in_the_example() {
    let with_strangers: String = uncommented(EXAMPLE)
        .replace("= { ", &format!("= {{ {STRANGER}, "))
        .lines()
        .map(|line| match line.starts_with('[') {
            true => format!("{line}\n{STRANGER}\n"),
            false => format!("{line}\n"),
        })
        .collect();
    let text = format!("{STRANGER}\n{with_strangers}");
    let Err(ConfigError::Faults { faults, .. }) = parse(&text) else {
        panic!("nobody noticed the strangers");
    };
    let mut missing = Vec::new();
    let mut known = 0;
    for fault in faults {
        let Some((_, keys)) = fault.message.split_once("Known here: ") else {
            continue;
        };
        // Said once: how secrets are fetched, what a scratch is, and what every channel has.
        let is_said_elsewhere = keys == "command, credential, env, file"
            || fault.key.ends_with("].scratch.stranger")
            || fault.key.starts_with("alert.channel[");
        let section = match is_said_elsewhere {
            true => text.clone(),
            false => section(&text, fault.line),
        };
        for key in keys.split(", ") {
            known += 1;
            let stands = section.lines().any(|line| mentions(line, key));
            let is_table = [format!("[{key}]"), format!(".{key}]]")]
                .iter()
                .any(|header| text.contains(header));
            if !stands && !is_table {
                missing.push(format!("{} {key}", fault.key));
            }
        }
    }
    assert!(known > 100, "only {known} keys were seen");
    assert_eq!(missing, [] as [String; 0]);
}

/// The lines from the header above a line to the one below it.
fn section(text: &str, line: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let is_header = |place: &usize| lines[*place].starts_with('[');
    let start = (0..line).rev().find(is_header).unwrap_or(0);
    let end = (line..lines.len()).find(is_header).unwrap_or(lines.len());
    lines[start..end].join("\n")
}

/// Whether the line has `key =`, also inside of an inline table or a comment.
fn mentions(line: &str, key: &str) -> bool {
    line.match_indices(&format!("{key} =")).any(|(place, _)| {
        let before = line[..place].chars().next_back();
        before.is_none_or(|letter| !letter.is_alphanumeric() && letter != '_')
    })
}

/// With what everybody fills in.
fn with_a_key(text: &str) -> String {
    text.replace("age1-YOUR-PUBLIC-KEY", SOMEBODYS_KEY)
}

#[test]
fn the_environments_are_read_as_shipped_and_say_purpose_access_and_owner() {
    for (environment, text) in [("local", LOCAL), ("staging", STAGING), ("production", PRODUCTION)] {
        let config = parse(&with_a_key(text)).unwrap_or_else(|error| panic!("{error}"));
        for word in ["# Purpose: ", "# Access: ", "# Owner: "] {
            assert!(text.contains(word), "{environment} does not say {word}");
        }
        assert!(
            text.starts_with(&format!("# Environment: {environment}\n")),
            "{environment}"
        );
        for target in &config.targets {
            assert_eq!(target.environment.as_deref(), Some(environment));
            assert!(target.owner.is_some(), "{environment}");
            assert!(
                target.backup.is_some() && target.restore_test.is_some(),
                "{environment}"
            );
            assert!(
                target.objectives.rpo.is_some() && target.objectives.rto.is_some(),
                "{environment}"
            );
        }
    }
}

#[test]
fn who_may_delete_has_a_retention_and_production_keeps_one_for_the_machine_that_prunes() {
    let has_retention = |text: &str| {
        let config = parse(text).unwrap_or_else(|error| panic!("{error}"));
        let targets = config.targets.iter();
        let have: Vec<bool> = targets.map(|target| target.retention.is_some()).collect();
        (config.repository.s3.read.is_none(), have)
    };
    assert_eq!(has_retention(&with_a_key(LOCAL)), (true, vec![true]));
    assert_eq!(has_retention(&with_a_key(STAGING)), (true, vec![true]));
    // Its first credentials may only write.
    assert_eq!(
        has_retention(&with_a_key(PRODUCTION)),
        (false, vec![false, false])
    );
    assert_eq!(has_retention(&uncommented(PRODUCTION)).1, [true, true]);
}

#[test]
fn outside_of_a_developers_machine_backups_are_encrypted_and_no_secret_stands_in_the_file() {
    for text in [STAGING, PRODUCTION] {
        let config = parse(&with_a_key(text)).unwrap_or_else(|error| panic!("{error}"));
        let encryption = config.encryption.expect("encryption");
        assert!(encryption.recipients.is_some());
        assert!(matches!(encryption.identity, Some(SecretSource::Credential(_))));
        assert_eq!(config.scratch.isolation, Isolation::Required);
        for target in &config.targets {
            assert!(
                matches!(target.url, SecretSource::Credential(_)),
                "{}",
                target.name
            );
        }
    }
}
