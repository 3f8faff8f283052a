//! What is read of `[alert]`, and refused there.

use super::*;

#[test]
fn the_daemon_watches_by_itself_where_it_could_tell_somebody() {
    let alert = |lines: &str| {
        parse(&format!("{SMALLEST}\n[alert]\n{lines}\n"))
            .unwrap_or_else(|error| panic!("{error}"))
            .alert
    };
    let nobody = alert("");
    assert!(!nobody.evaluate);
    assert_eq!(nobody.repeat.to_string(), "4h");
    assert!(
        nobody.runbook_url.starts_with("file:///"),
        "{}",
        nobody.runbook_url
    );
    assert!(alert("ping_url = \"https://x\"").evaluate);
    assert!(alert("channel = [{ kind = \"command\", command = [\"a\"] }]").evaluate);
    assert!(!alert("evaluate = false\nping_url = \"https://x\"").evaluate);
}

#[test]
fn a_password_may_go_in_the_clear_to_this_machine_only() {
    for (server, host) in [
        ("localhost:25", "localhost"),
        ("127.0.0.1:25", "127.0.0.1"),
        ("[::1]:25", "::1"),
    ] {
        let config = parse(&format!(
            "{SMALLEST}\n[[alert.channel]]\nkind = \"email\"\nserver = \"{server}\"\nfrom = \"a@b\"\nto = [\"a@b\"]\nusername = \"a\"\npassword = \"b\"\nencryption = \"none\"\n"
        ));
        let config = config.unwrap_or_else(|error| panic!("{error}"));
        let ChannelKind::Email { server, .. } = &config.alert.channels[0].kind else {
            panic!("not a mail server");
        };
        assert_eq!((server.host.as_str(), server.port), (host, 25));
        assert!(server.login.is_some());
    }
}

#[test]
fn a_channel_that_cannot_work_is_refused() {
    for (addition, part_of_message) in [
        (
            "[[alert.channel]]\nkind = \"pigeon\"",
            "\"alertmanager\" or \"webhook\"",
        ),
        (
            "[[alert.channel]]\nkind = \"email\"\nto = []",
            "nobody would get the alert",
        ),
        (
            "[[alert.channel]]\nkind = \"command\"\nname = \"On Call\"\ncommand = [\"a\"]",
            "cannot be a channel's name",
        ),
        (
            "[[alert.channel]]\nkind = \"webhook\"\nurl = \"x\"\nvalues = { a = \"b\" }",
            "only a template uses them",
        ),
        (
            "[[alert.channel]]\nkind = \"email\"\nserver = \"mail.example.org\"\nfrom = \"a@b\"\nto = [\"a@b\"]",
            "is not a server: write HOST:PORT",
        ),
        (
            "[[alert.channel]]\nkind = \"email\"\nserver = \"mail:25\"\nfrom = \"a@b\"\nto = [\"a@b\"]\nusername = \"a\"",
            "needs `password` as well",
        ),
        (
            "[[alert.channel]]\nkind = \"email\"\nserver = \"mail:25\"\nfrom = \"a@b\"\nto = [\"a@b\"]\nusername = \"a\"\npassword = \"b\"\nencryption = \"none\"",
            "would cross the network in the clear",
        ),
        (
            "[alert]\nprometheus = { token = \"b\" }",
            "such as \"http://127.0.0.1:9090\"",
        ),
        (
            "[[alert.channel]]\nkind = \"command\"\ncommand = [\"a\"]\nurl = \"x\"",
            "unknown key",
        ),
    ] {
        let shown = faults(&format!("{SMALLEST}\n{addition}\n"));
        assert!(shown.contains(part_of_message), "{addition}\n{shown}");
    }
}
