//! The two acts: a good backup is proven good, and a damaged one is found bad.

use std::time::{Duration, Instant};

use anyhow::anyhow;

use crate::model::backup_id::BackupId;
use crate::model::check::{Check, Expectation};
use crate::model::record::{BackupRecord, Outcome, RestoreTestRecord, Trigger, Verdict};
use crate::ops::backup;
use crate::ops::restore::Choice;
use crate::ops::restore_test::{self, Afterwards};
use crate::ops::target::{OnBlockedDdl, SourceCount, Target};
use crate::postgres::conninfo::{ConnectionSettings, Environment};
use crate::repository::OtherIdentity;
use crate::scratch::{Embedded, IsolationWanted};

use super::super::exit::Failure;
use super::super::{backup as backup_command, print, restore_test as restore_test_command};
use super::shop::{self, LiveWrites};
use super::{Stage, Story, say};

pub(super) const TARGET: &str = "shop";
const DATABASE: &str = "shop";

/// What a small shop might agree on.
const RPO: Duration = Duration::from_secs(5 * 60);
const RTO: Duration = Duration::from_secs(10 * 60);

pub(super) async fn play(stage: &Stage<'_>) -> Result<Story, Failure> {
    let connection = connection(stage.source, DATABASE)?;
    let maintenance = self::connection(stage.source, "postgres")?;
    let began = Instant::now();
    let rows = tokio::select! {
        rows = shop::build(&maintenance, &connection) => rows.map_err(Failure::operation)?,
        () = stage.context.cancel.cancelled() => return Err(stopped()),
    };
    let took = print::seconds(Some(began.elapsed().as_secs_f64()));
    say(
        stage.global,
        &format!("the shop has {rows} rows (made in {took}), and customers who order all the time"),
    );
    let target = target(connection.clone(), stage)?;
    let writes = LiveWrites::start(&connection).await.map_err(Failure::operation)?;
    let told = both_acts(stage, &target, &writes).await;
    let (live_writes, slowest) = writes.stop().await.map_err(Failure::operation)?;
    let told = told?;
    say(
        stage.global,
        &format!(
            "meanwhile the shop went on: {live_writes} orders with their payments, the slowest took {} ms",
            slowest.as_millis()
        ),
    );
    Ok(Story {
        live_writes,
        slowest_live_write_seconds: slowest.as_secs_f64(),
        ..told
    })
}

async fn both_acts(stage: &Stage<'_>, target: &Target, writes: &LiveWrites) -> Result<Story, Failure> {
    headline(
        stage,
        "Act 1: back up the shop while it is written to, and prove the backup",
    );
    let before = writes.count();
    let backup = take_backup(stage, target).await?;
    say(
        stage.global,
        &format!("  {} orders came in while it was taken", writes.count() - before),
    );
    let restore_test = test(stage, target, &backup).await?;
    expect(&restore_test, Verdict::Passed)?;
    say(
        stage.global,
        "  every row, sequence, grant and large object is what the source sent, and no money was lost or made",
    );

    headline(stage, "Act 2: one bit of a second backup goes bad on disk");
    let second_backup = take_backup(stage, target).await?;
    let damaged_object = damage(stage, target, &second_backup).await?;
    say(stage.global, &format!("  flipped one bit in {damaged_object}"));
    let restore_test_of_damaged = test(stage, target, &second_backup).await?;
    expect(&restore_test_of_damaged, Verdict::Failed)?;
    say(
        stage.global,
        "  found, as it should be: from now on the backup before it counts as the newest good one",
    );
    Ok(Story {
        backup,
        restore_test,
        second_backup,
        damaged_object,
        restore_test_of_damaged,
        live_writes: 0,
        slowest_live_write_seconds: 0.0,
    })
}

fn headline(stage: &Stage<'_>, text: &str) {
    say(stage.global, "");
    say(stage.global, text);
}

fn stopped() -> Failure {
    Failure::operation(anyhow!("stopped by a signal"))
}

async fn take_backup(stage: &Stage<'_>, target: &Target) -> Result<BackupRecord, Failure> {
    let options = backup::Options {
        trigger: Trigger::Command,
        other_identity: OtherIdentity::Refuse,
    };
    let record = backup::backup(&stage.context, target, options)
        .await
        .map_err(Failure::operation)?;
    match record.outcome {
        Outcome::Succeeded => {
            if !stage.global.json {
                backup_command::show(&record);
            }
            Ok(record)
        }
        Outcome::Cancelled => Err(stopped()),
        Outcome::Failed => {
            let reason = record.reason.unwrap_or_default();
            Err(Failure::operation(anyhow!("the demo's backup failed: {reason}")))
        }
    }
}

async fn test(
    stage: &Stage<'_>,
    target: &Target,
    backup: &BackupRecord,
) -> Result<RestoreTestRecord, Failure> {
    let options = restore_test::Options {
        trigger: Trigger::Command,
        choice: Choice::Exactly(id_of(backup)?),
        afterwards: Afterwards::Remove,
    };
    let record = restore_test::restore_test(&stage.context, target, &options)
        .await
        .map_err(Failure::operation)?;
    if stage.context.cancel.is_cancelled() {
        return Err(stopped());
    }
    if !stage.global.json {
        restore_test_command::show(&record);
    }
    Ok(record)
}

fn id_of(backup: &BackupRecord) -> Result<BackupId, Failure> {
    let id = backup.backup.clone();
    id.ok_or_else(|| {
        Failure::operation(anyhow!(
            "the backup has no id: this is a fault of ernstfall, please report it"
        ))
    })
}

/// The demo shows what happens, and that is not always what it promises.
fn expect(record: &RestoreTestRecord, verdict: Verdict) -> Result<(), Failure> {
    if record.verdict == verdict {
        return Ok(());
    }
    Err(Failure::operation(anyhow!(
        "the demo expected the verdict {}, and got {}: {}",
        verdict.as_str(),
        record.verdict.as_str(),
        record.reason.as_deref().unwrap_or("no reason was given")
    )))
}

/// Flips a bit in the middle of the largest object that holds rows.
async fn damage(stage: &Stage<'_>, target: &Target, backup: &BackupRecord) -> Result<String, Failure> {
    let manifest = stage
        .context
        .repository
        .manifest(&target.name, &id_of(backup)?)
        .await
        .map_err(Failure::operation)?;
    let object = manifest.data.iter().max_by_key(|object| object.size_bytes);
    let object = object.ok_or_else(|| Failure::operation(anyhow!("the demo's backup holds no rows")))?;
    let path = stage.place.repository().join(&object.key);
    let flip = || {
        let mut bytes = std::fs::read(&path)?;
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 1;
        }
        std::fs::write(&path, bytes)
    };
    flip().map_err(|error: std::io::Error| {
        Failure::operation(anyhow::Error::new(error).context(format!("damage {}", path.display())))
    })?;
    Ok(object.key.clone())
}

fn connection(source: &Embedded, database: &str) -> Result<ConnectionSettings, Failure> {
    let dsn = format!(
        "host='{}' port={} user='{}' dbname={database} sslmode=disable",
        source.socket_directory().display(),
        source.port(),
        source.superuser()
    );
    ConnectionSettings::resolve(&dsn, &Environment::default()).map_err(Failure::operation)
}

fn target(connection: ConnectionSettings, stage: &Stage<'_>) -> Result<Target, Failure> {
    let check = |name: &str, sql: &str, expect: Expectation| Check {
        name: name.to_owned(),
        sql: sql.to_owned(),
        expect,
    };
    Ok(Target {
        name: TARGET.parse().map_err(Failure::operation)?,
        environment: Some("demo".to_owned()),
        owner: None,
        connection,
        heartbeat: None,
        rpo: Some(RPO),
        rto: Some(RTO),
        rto_overhead: Vec::new(),
        jobs: 2,
        max_rate: None,
        split: true,
        exclude_data: Vec::new(),
        exclude: Vec::new(),
        may_shrink: Vec::new(),
        retention: None,
        lock_timeout: Duration::from_secs(10),
        max_snapshot_age: Duration::from_secs(3600),
        on_blocked_ddl: OnBlockedDdl::Continue,
        source_count: SourceCount::Always,
        checks: vec![
            check(
                "no money was lost or made",
                shop::MONEY_IS_WHOLE,
                Expectation::Boolean(true),
            ),
            check(
                "every order has its lines",
                shop::ORDERS_ARE_WHOLE,
                Expectation::Boolean(true),
            ),
        ],
        isolation: IsolationWanted::BestEffort,
        neighbours: Vec::new(),
        scratch_directory: stage.place.scratch(),
        scratch_user: None,
        skip_extensions: Vec::new(),
        scratch_server: None,
    })
}
