//! Whole configurations: what is read, what is refused, and how faults are shown.

mod alert;
mod examples;
mod written;

use super::*;
use crate::model::schedule::Schedule;
use crate::model::secret::Secret;
use crate::model::target_name::TargetName;

const EXAMPLE: &str = include_str!("../../config/ernstfall.toml");

const SMALLEST: &str = r#"
[repository]
url = "backups"
[[target]]
name = "shop"
url = { env = "SHOP_URL" }
"#;

/// A fault of each kind.
const FAULTY: &str = r#"
state_dri = "/var/lib/ernstfall"
[repository]
url = "ftp://somewhere"
[[target]]
name = "Shop"
url = { evn = "SHOP_URL" }
rpo = "1 fortnight"
jobs = 100
backup = "every banana"
[[target]]
name = "crm"
restore_test = "after every backup"
time_zone = "Berlin"
split = "yes"
[[target.check]]
name = "orders"
sql = "select 1"
expect = "> many"
[[target]]
name = "crm"
url = "postgres://me:hunter2@db/crm"
"#;

fn environment() -> Environment {
    let variables = [("HOME".to_owned(), "/home/a".to_owned())].into();
    Environment {
        variables,
        is_root: false,
        current_directory: PathBuf::from("/etc/ernstfall"),
    }
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/ernstfall/ernstfall.toml"), &environment())
}

fn faults(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

const SOMEBODYS_KEY: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

/// Switches on every key that is commented out: lines that begin with `#` and no space.
fn uncommented(text: &str) -> String {
    let switched_on = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    // Keys of the whole file come before all tables anyhow.
    let text: String = text.lines().map(switched_on).collect();
    // No key that works stands in an example: somebody might switch it on.
    text.replace("age1-YOUR-PUBLIC-KEY", SOMEBODYS_KEY)
}

#[test]
fn the_smallest_configuration_has_the_documented_defaults() {
    let config = parse(SMALLEST).unwrap();
    assert_eq!(config.state_dir, PathBuf::from("/home/a/.local/state/ernstfall"));
    assert_eq!(
        config.repository.location,
        RepositoryLocation::Directory(PathBuf::from("/etc/ernstfall/backups"))
    );
    assert_eq!(
        config.limits,
        Limits {
            max_backups: 2,
            max_restore_tests: 1,
            jitter: "30s".parse().unwrap(),
            max_rate: None
        }
    );
    assert_eq!(
        (&config.scratch.kind, config.scratch.isolation),
        (&ScratchKind::Embedded, Isolation::Required)
    );
    let target = config.target("shop").unwrap();
    assert_eq!(
        (target.jobs, target.split, target.source_count),
        (2, true, SourceCount::Daily)
    );
    assert_eq!((target.environment.as_ref(), target.objectives.rpo), (None, None));
    assert_eq!(target.time_zone.name(), "UTC");
    assert_eq!(target.max_snapshot_age.to_string(), "6h");
    assert!(target.backup.is_none() && target.restore_test.is_none() && target.heartbeat.is_none());
    assert!(!config.alert.evaluate && config.not_yet_acted_upon().is_empty());
}

#[test]
fn several_faults_are_reported_at_once_with_their_places() {
    let shown = faults(FAULTY);
    assert!(!shown.contains("hunter2"));
    insta::assert_snapshot!(shown, @r#"
    /etc/ernstfall/ernstfall.toml has 12 faults; correct the file and try again

    2:1: state_dri: unknown key: did you mean `state_dir`? Known here: alert, bin_dir, encryption, http, limits, repository, scratch, state_dir, target
      2 | state_dri = "******************"
        | ^^^^^^^^^

    4:7: repository.url: not a place for a repository: write "file:///DIRECTORY" or "s3://bucket/prefix"
      4 | url = "ftp://somewhere"
        |       ^^^^^^^^^^^^^^^^^

    6:8: target[Shop].name: "Shop" cannot be a target's name: use 1 to 63 lower-case letters, digits, `-` and `_`, and begin with a letter or digit
      6 | name = "Shop"
        |        ^^^^^^

    7:9: target[Shop].url.evn: unknown key: did you mean `env`? Known here: command, credential, env, file
      7 | url = { evn = "********" }
        |         ^^^

    8:7: target[Shop].rpo: "1 fortnight" is not a duration: write numbers with units, such as "90s", "30m", "1h30m" or "7d"
      8 | rpo = "1 fortnight"
        |       ^^^^^^^^^^^^^

    9:8: target[Shop].jobs: must be between 1 and 64
      9 | jobs = 100
        |        ^^^

    10:10: target[Shop].backup: "every banana" has no usable interval: write "every" and a duration of at least one second, such as "every 30m"
      10 | backup = "every banana"
         |          ^^^^^^^^^^^^^^

    11:1: target[crm].url: missing: say where the database is, such as { env = "SHOP_DATABASE_URL" }
      11 | [[target]]
         | ^^^^^^^^^^

    14:13: target[crm].time_zone: "Berlin" is not a time zone: did you mean "Europe/Berlin"?
      14 | time_zone = "Berlin"
         |             ^^^^^^^^

    15:9: target[crm].split: must be true or false, without quotes, but is a text
      15 | split = "yes"
         |         ^^^^^

    19:10: target[crm].check[orders].expect: `> many` needs a number after its sign, such as `> 0`
      19 | expect = "> many"
         |          ^^^^^^^^

    21:8: target[crm].name: another target is called "crm" too: names must differ
      21 | name = "crm"
         |        ^^^^^
    "#);
}

#[test]
fn excerpts_never_show_a_secret() {
    let with = |line: &str| SMALLEST.replace("name = \"shop\"", &format!("name = \"shop\"\n{line}"));
    for line in [
        "pasword = \"hunter2\"",
        "heartbeat = { every = \"hunter\", url = \"hunter2\" }",
        "heartbeat = { every = 5, url = \"hunter2\" }",
        "heartbeat = { every = \"1s\", url = { evn = \"hunter2\" } }",
        "heartbeat = { every = \"x\", url = { command = [\"vault\", \"hunter2\"] } }",
        "owner = \"postgres://me:hunter2@db\" x",
        "environment = hunter2",
        "rpo = \"postgres://me:hunter2@db\"",
        "heratbeat.url = \"hunter2\"",
        "heartbeat.evry.url = \"hunter2\"",
        "jobs = { token = \"hunter2\" }",
        "rto_overhead = \"hunter2\"",
        "check = { name = \"hunter2\" }",
    ] {
        let shown = faults(&with(line));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    for addition in [
        "alert.channel = [{ token = \"hunter2\" }]",
        "alert.channel = { token = \"hunter2\" }",
        "http = { listen = \"x\", token = \"hunter2\" }",
    ] {
        let shown = faults(&format!("{addition}\n{SMALLEST}"));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let as_name = faults(&SMALLEST.replace("\"shop\"", "\"postgres://me:hunter2@db\""));
    assert!(!as_name.contains("hunter2"), "{as_name}");
    let identity = SMALLEST.to_owned() + "[encryption]\nrecipients = [\"AGE-SECRET-KEY-1HUNTER2\"]";
    let shown = faults(&identity);
    assert!(
        shown.contains("this is a secret key") && !shown.contains("HUNTER2"),
        "{shown}"
    );
    let as_text = SMALLEST.to_owned() + "[encryption]\nrecipients = \"AGE-SECRET-KEY-1HUNTER2\"";
    assert!(!faults(&as_text).contains("HUNTER2"));
}

#[test]
fn a_syntax_error_is_one_fault_with_its_place() {
    insta::assert_snapshot!(faults("[repository]\nurl = \"a\"\nurl = \"b\"\n"), @r#"
    /etc/ernstfall/ernstfall.toml has 1 fault; correct the file and try again

    3:1: not valid TOML: duplicate key
      3 | url = "*"
        | ^^^
    "#);
}

#[test]
fn an_empty_file_says_what_it_needs() {
    insta::assert_snapshot!(faults(""), @r"
    /etc/ernstfall/ernstfall.toml has 2 faults; correct the file and try again

    1:1: repository: missing: add [repository] with the url where backups shall live
      1 |
        | ^

    1:1: target: missing: there is nothing to protect: add a [[target]] with a name and a url
      1 |
        | ^
    ");
}

#[test]
fn pages_beyond_loopback_need_tls_and_a_token_or_the_word_for_it() {
    let tls = "tls = { cert = \"a.pem\", key = \"b.pem\" }";
    let token = "token = { env = \"HTTP_TOKEN\" }";
    let accepts = |lines: &[&str]| {
        let text = format!(
            "{SMALLEST}\n[http]\nlisten = \"0.0.0.0:9810\"\n{}\n",
            lines.join("\n")
        );
        match parse(&text) {
            Ok(_) => true,
            Err(faults) => {
                assert!(faults.to_string().contains("beyond loopback"), "{faults}");
                false
            }
        }
    };
    assert!(accepts(&[tls, token]));
    assert!(accepts(&["allow_unprotected = true"]));
    assert!(accepts(&[token, "allow_unprotected = true"]));
    assert!(!accepts(&[]));
    assert!(!accepts(&[tls]));
    assert!(!accepts(&[token]));
    assert!(!accepts(&["allow_unprotected = false"]));
}

#[test]
fn what_would_be_dangerous_is_refused() {
    for (addition, part_of_message) in [
        (
            "[http]\nlisten = \"0.0.0.0:9810\"",
            "beyond loopback needs `tls` and `token`",
        ),
        (
            "[scratch]\nkind = \"server\"\nurl = \"postgres://x\"",
            "isolation = \"none\"",
        ),
        (
            "[scratch]\nkind = \"server\"\nisolation = \"none\"",
            "needs the URL",
        ),
        ("[scratch]\nurl = \"postgres://x\"", "only used with kind"),
        ("[encryption]\nrecipients = []", "lists nobody"),
        (
            "[encryption]\nrecipients = [\"age1x\", \"ssh-ed25519 AAAA\"]",
            "number 1 of 2: this begins like an age recipient",
        ),
        (
            "[encryption]\nrecipients = [\"age1x\", \"ssh-ed25519 AAAA\"]",
            "number 2 of 2: this is an SSH key",
        ),
        ("[limits]\nmax_backups = 0", "between 1 and 64"),
        ("[limits]\nmax_rate = \"0MB/s\"", "more than zero"),
        (
            "[[target]]\nname = \"b\"\nurl = \"x\"\nheartbeat = \"500ms\"",
            "must be at least 1s",
        ),
        (
            "[[target]]\nname = \"b\"\nurl = \"x\"\nheartbeat = { every = \"500ms\" }",
            "must be at least 1s",
        ),
        (
            "[[target]]\nname = \"b\"\nurl = { env = \"A\", file = \"b\" }",
            "exactly one",
        ),
        (
            "[[target]]\nname = \"b\"\nurl = \"x\"\nbackup = \"after every backup\"",
            "cannot follow itself",
        ),
        (
            "[[target]]\nname = \"b\"\nurl = \"x\"\nrpo = \"0s\"",
            "more than zero",
        ),
        (
            "[[target]]\nname = \"b\"\nurl = \"x\"\nretention = { daily = 0 }",
            "retention: keeps no backup",
        ),
        ("[[target]]\nname = \"b\"\nurl = {}", "exactly one"),
        ("[target]\nname = \"b\"", "not valid TOML"),
    ] {
        let shown = faults(&format!("{SMALLEST}\n{addition}\n"));
        assert!(shown.contains(part_of_message), "{addition}\n{shown}");
    }
}

#[test]
fn an_identity_alone_reads_earlier_backups_and_the_examples_key_is_refused() {
    let alone = parse(&format!(
        "{SMALLEST}\n[encryption]\nidentity = {{ file = \"age.key\" }}\n"
    ))
    .unwrap();
    assert!(alone.encryption.unwrap().recipients.is_none());
    let shown = faults(&format!(
        "{SMALLEST}\n[encryption]\nrecipients = [\"age1-YOUR-PUBLIC-KEY\"]\n"
    ));
    assert!(
        shown.contains("begins like an age recipient, and is damaged"),
        "{shown}"
    );
}

#[test]
fn what_is_only_parsed_is_named() {
    let named = parse(&uncommented(EXAMPLE)).unwrap().not_yet_acted_upon();
    assert_eq!(named, ["repository.object_lock"]);
    let on_s3 = parse(&SMALLEST.replace("\"backups\"", "\"s3://bucket/a/b/\"")).unwrap();
    let location = RepositoryLocation::S3 {
        bucket: "bucket".to_owned(),
        prefix: "a/b".to_owned(),
    };
    assert_eq!(on_s3.repository.location, location);
    assert!(on_s3.not_yet_acted_upon().is_empty());
    let server = "[target.scratch]\nkind = \"server\"\nurl = \"postgres://x\"\nisolation = \"none\"";
    let on_server = parse(&format!("{SMALLEST}{server}")).unwrap();
    assert!(on_server.not_yet_acted_upon().is_empty());
}

#[test]
fn a_missing_file_says_how_to_get_one() {
    let message = Config::load(Path::new("/no/such.toml"), &environment())
        .unwrap_err()
        .to_string();
    assert!(message.contains("ernstfall init"), "{message}");
    let directory = tempfile::tempdir().unwrap();
    let mut environment = environment();
    environment.current_directory = directory.path().to_owned();
    let message = Config::find(None, &environment).map(|path| path.display().to_string());
    // A machine may have one in /etc.
    if let Err(error) = message {
        assert!(error.to_string().contains("ernstfall init"), "{error}");
    }
    let here = directory.path().join("ernstfall.toml");
    std::fs::write(&here, SMALLEST).unwrap();
    assert_eq!(Config::find(None, &environment).unwrap(), here);
    assert_eq!(
        Config::find(Some(Path::new("other.toml")), &environment).unwrap(),
        directory.path().join("other.toml")
    );
}
