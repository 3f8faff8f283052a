//! What pg_dump and our own queries leave out without a word: named, so that nothing is left out in silence.

use crate::model::contents::NotCovered;

use super::error::Error;
use super::roles::Passwords;
use super::session::Session;

/// Each query returns kind, name and reason.
const QUERIES: &[&str] = &[
    // Only the mapping's own role and the server's owner see its options; pg_dump writes the mapping without them.
    "SELECT 'user mapping options'::text, m.srvname || ' for ' || m.usename,
            'only a superuser may read them'::text
       FROM pg_catalog.pg_user_mappings m
      WHERE m.umoptions IS NULL
        AND NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)",
    "SELECT 'index'::text, n.nspname || '.' || c.relname, 'it is invalid, and pg_dump leaves it out'::text
       FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
       JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      WHERE NOT i.indisvalid AND c.relkind = 'i' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_toast'",
    "SELECT 'disabled triggers of a foreign key'::text,
            c.conname || ' on ' || t.tgrelid::pg_catalog.regclass::text,
            'pg_dump does not write that they are disabled: the copy enforces the key'::text
       FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_constraint c ON c.oid = t.tgconstraint
      WHERE t.tgisinternal AND t.tgenabled <> 'O' GROUP BY 2",
    "SELECT 'replica identity'::text, n.nspname || '.' || c.relname, 'the index that it named was dropped'::text
       FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relkind IN ('r', 'p') AND c.relreplident = 'i'
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisreplident)",
    "SELECT 'temporary table'::text, n.nspname || '.' || c.relname, 'it ends with its session'::text
       FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relpersistence = 't' AND c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_toast'",
    "SELECT 'prepared transaction'::text, x.gid,
            'it was neither committed nor rolled back: what it changed is in no snapshot'::text
       FROM pg_catalog.pg_prepared_xacts x WHERE x.database = pg_catalog.current_database()",
    "SELECT 'setting of all roles'::text, pg_catalog.split_part(entry, '=', 1),
            'it belongs to the server, not to the database'::text
       FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) AS entry
      WHERE s.setdatabase = 0 AND s.setrole = 0",
    "SELECT 'connection limit of the database'::text, d.datname::text, 'it is set when a database is made'::text
       FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database() AND d.datconnlimit >= 0",
    "SELECT 'mark of the database'::text, d.datname || ' is a template'::text, 'it is set when a database is made'::text
       FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database() AND d.datistemplate",
    "SELECT 'logical replication slot'::text, s.slot_name::text, 'it belongs to the server, not to the database'::text
       FROM pg_catalog.pg_replication_slots s
      WHERE s.database = pg_catalog.current_database() AND NOT s.temporary",
    // Whoever restores owns it: a superuser, or the database's owner.
    "SELECT 'owner of an extension'::text, e.extname || ': ' || pg_catalog.pg_get_userbyid(e.extowner),
            'pg_dump does not write it: whoever restores owns the extension'::text
       FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database()
       JOIN pg_catalog.pg_roles r ON r.oid = e.extowner
      WHERE NOT r.rolsuper AND e.extowner <> d.datdba",
];

/// Lists what is left out, as the session's snapshot shows it. `roles` are those that the backup makes.
pub async fn list(
    session: &Session,
    roles: &[String],
    passwords: Passwords,
) -> Result<Vec<NotCovered>, Error> {
    let mut found = Vec::new();
    for query in QUERIES {
        for row in session.select("list what is not covered", query, &[]).await? {
            found.push(NotCovered {
                kind: row.get(0),
                name: row.get(1),
                reason: row.get(2),
            });
        }
    }
    let reason = match passwords {
        Passwords::Included => return Ok(found),
        Passwords::LeftOut => "passwords are not stored without encryption: set it after a recovery",
        Passwords::Unreadable => "the role that takes the backup may not read it: set it after a recovery",
    };
    let sql = "SELECT rolname::text FROM pg_catalog.pg_roles
                WHERE rolcanlogin AND rolname::text = ANY ($1) ORDER BY 1";
    for row in session
        .select("list the roles with passwords", sql, &[&roles])
        .await?
    {
        found.push(NotCovered {
            kind: "password".to_owned(),
            name: row.get(0),
            reason: reason.to_owned(),
        });
    }
    Ok(found)
}
