//! `RECOVERY.md`, followed to the letter: a backup can be restored without this program.

use std::fs;
use std::process::Command;

use crate::shop::{Shop, content};
use crate::support::account::Account;
use crate::support::cluster::Cluster;
use crate::support::process::run_or_panic;
use crate::support::skip::require;

/// The commands of the guide's only block of shell.
fn commands(guide: &str) -> String {
    let blocks: Vec<&str> = guide
        .split("```")
        .filter(|part| part.starts_with("sh\n"))
        .collect();
    let [block] = blocks.as_slice() else {
        panic!("{guide}")
    };
    block.strip_prefix("sh\n").unwrap().to_owned()
}

/// The guide's commands, where the backup lies, with another server as the destination.
pub(crate) fn shell(shop: &Shop, id: &str, guide: &str, other: &Cluster) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("bash");
    shell
        .args(["-c", &commands(guide)])
        .current_dir(shop.target_directory().join("backups").join(id))
        .env_clear()
        .env("PATH", format!("{}:{path}", other.programs().bin_dir.display()))
        .env("PGHOST", other.socket_directory())
        .env("PGPORT", other.port().to_string())
        .env("PGUSER", "postgres");
    shell
}

#[test]
fn the_guides_commands_restore_the_backup_on_another_server() {
    require!(
        Command::new("zstd").arg("--version").output().is_ok(),
        "there is no zstd: scripts/install-debian.sh zstd installs it"
    );
    let shop = Shop::open();
    let id = shop.backup();
    let manifest = shop.manifest(&id);
    let guide = fs::read_to_string(shop.object_file(&manifest["recovery_guide"])).unwrap();
    let other = Cluster::start();
    let mut shell = shell(&shop, &id, &guide, &other);
    run_or_panic(Account::unprivileged().run_as(&mut shell));
    let restored = other.existing_database("restored");
    // Its rows are refreshed by hand, as the guide says.
    assert!(guide.contains("REFRESH MATERIALIZED VIEW"));
    restored.execute("refresh materialized view totals");
    assert_eq!(content(&restored), content(&shop.database));
    assert_eq!(
        restored.dump_schema().replace("restored", "NAME"),
        shop.database.dump_schema().replace(shop.database.name(), "NAME")
    );
}

#[test]
fn the_guides_commands_stop_at_a_damaged_object() {
    require!(
        Command::new("zstd").arg("--version").output().is_ok(),
        "there is no zstd: scripts/install-debian.sh zstd installs it"
    );
    let shop = Shop::open();
    let id = shop.backup();
    let manifest = shop.manifest(&id);
    let guide = fs::read_to_string(shop.object_file(&manifest["recovery_guide"])).unwrap();
    let file = shop.object_file(&manifest["data"][0]);
    let mut bytes = fs::read(&file).unwrap();
    bytes.truncate(bytes.len() * 6 / 10);
    crate::shop::overwrite(&file, &bytes);
    let other = Cluster::start();
    let mut shell = shell(&shop, &id, &guide, &other);
    let output = Account::unprivileged().run_as(&mut shell).output().unwrap();
    assert!(
        !output.status.success(),
        "half of the rows were loaded in silence"
    );
}
