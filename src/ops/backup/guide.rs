//! `RECOVERY.md` beside each backup: how to restore it by hand, without this program.

use crate::model::backup_id::BackupId;
use crate::model::contents::DatabaseFacts;
use crate::model::target_name::TargetName;

/// Whether only some entries of the schema's archive are part of the backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SchemaList {
    Stored,
    NotNeeded,
}

/// Writes the guide. It names no table and no role: the guide is never encrypted.
pub(super) fn recovery_guide(
    target: &TargetName,
    id: &BackupId,
    database: &DatabaseFacts,
    pg_dump_major: u32,
    schema_list: SchemaList,
) -> String {
    let server_major = database.server_version_num / 10_000;
    let DatabaseFacts {
        encoding,
        collate,
        ctype,
        locale_provider,
        ..
    } = database;
    let (unpack, listed) = match schema_list {
        SchemaList::Stored => (
            "zstd -dc schema.list.zst > schema.list    # all but what `exclude` leaves out\n",
            " --use-list=schema.list",
        ),
        SchemaList::NotNeeded => ("", ""),
    };
    format!(
        r#"# Restoring backup {id} of target {target} by hand

You need `zstd`, `psql` and `pg_restore` of PostgreSQL {pg_dump_major} or newer, and a server of PostgreSQL
{server_major} or newer. The commands run in this directory, as a superuser or the owner of the new database;
the connection comes from PGHOST, PGPORT, PGUSER and PGPASSWORD.

The source was PostgreSQL {version}, encoding {encoding}, collation {collate}, character type {ctype},
locale provider {locale_provider}. A database that sorts otherwise holds the same rows.

```sh
set -eu
find . -name '*.zst' -exec zstd -qt {{}} +    # stops here when an object is damaged
export PGDATABASE=restored
createdb --template=template0 --encoding={encoding} --lc-collate='{collate}' --lc-ctype='{ctype}' "$PGDATABASE"
zstd -dc roles.sql.zst | psql -X -q -v ON_ERROR_STOP=1
zstd -dc schema.dump.zst > schema.dump
{unpack}pg_restore --exit-on-error --section=pre-data{listed} --dbname="$PGDATABASE" schema.dump
for object in data/*.sql.zst; do
    zstd -dc "$object" | psql -X -q -v ON_ERROR_STOP=1
done
pg_restore --exit-on-error --section=post-data{listed} --dbname="$PGDATABASE" schema.dump
for object in large-objects/*.sql.zst; do
    [ -e "$object" ] && zstd -dc "$object" | psql -X -q -v ON_ERROR_STOP=1
done
zstd -dc sequences.sql.zst | psql -X -q -v ON_ERROR_STOP=1
psql -X -q -c 'ANALYZE'
```

Tables with columns that name indexes (type `regclass`) may be refused before `post-data`: load their objects after it.
Materialised views come without their rows: `REFRESH MATERIALIZED VIEW` those that were populated.
`contents.json.zst` lists every table with its number of rows, and what is not in this backup, with the reason.
"#,
        version = database.server_version,
    )
}
