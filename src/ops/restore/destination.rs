//! The database of a real restore: whether it is empty, and emptying what a broken restore of ours left.

use crate::postgres::error::Error;
use crate::postgres::identifier::quote_identifier;
use crate::postgres::session::Session;

use super::marker::{PUT_BACK, SCHEMA};

/// Roles by which managed services own what is in every database of theirs. What they own is no user's object.
const PLATFORM_ROLES: &str = include_str!("platform_roles.txt");

/// How many objects a refusal names.
const NAMED: usize = 5;

/// Objects that are neither the system's, nor an extension's, nor the platform's, nor the marker.
const USER_OBJECTS: &str = "
    WITH member AS (SELECT classid, objid FROM pg_catalog.pg_depend WHERE deptype = 'e'),
    place AS (SELECT oid, nspname FROM pg_catalog.pg_namespace
               WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', $2)),
    object(classid, oid, owner, name) AS (
        SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass::oid, n.oid, n.nspowner, 'schema ' || n.nspname
          FROM pg_catalog.pg_namespace n JOIN place USING (oid) WHERE n.nspname <> 'public'
        UNION ALL
        SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, c.oid, c.relowner, place.nspname || '.' || c.relname
          FROM pg_catalog.pg_class c JOIN place ON place.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c')
        UNION ALL
        SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, p.proowner,
               'function ' || place.nspname || '.' || p.proname
          FROM pg_catalog.pg_proc p JOIN place ON place.oid = p.pronamespace
        UNION ALL
        SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, t.typowner, 'type ' || place.nspname || '.' || t.typname
          FROM pg_catalog.pg_type t JOIN place ON place.oid = t.typnamespace WHERE t.typtype IN ('d', 'e', 'r')
        UNION ALL
        SELECT 'pg_catalog.pg_largeobject'::pg_catalog.regclass, m.oid, m.lomowner, 'large object ' || m.oid
          FROM pg_catalog.pg_largeobject_metadata m
        UNION ALL
        SELECT 'pg_catalog.pg_publication'::pg_catalog.regclass, p.oid, p.pubowner, 'publication ' || p.pubname
          FROM pg_catalog.pg_publication p
        UNION ALL
        SELECT 'pg_catalog.pg_subscription'::pg_catalog.regclass, 0, s.subowner, 'subscription ' || s.subname
          FROM pg_catalog.pg_subscription s
         WHERE s.subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
        UNION ALL
        SELECT 'pg_catalog.pg_default_acl'::pg_catalog.regclass, a.oid, a.defaclrole,
               'default privileges of ' || pg_catalog.pg_get_userbyid(a.defaclrole)
          FROM pg_catalog.pg_default_acl a
        UNION ALL
        SELECT classid, objid, owner, pg_catalog.pg_describe_object(classid, objid, 0) FROM (
            SELECT 'pg_catalog.pg_operator'::pg_catalog.regclass::oid, oid, oprowner, oprnamespace
              FROM pg_catalog.pg_operator
            UNION ALL SELECT 'pg_catalog.pg_opfamily'::pg_catalog.regclass, oid, opfowner, opfnamespace
              FROM pg_catalog.pg_opfamily
            UNION ALL SELECT 'pg_catalog.pg_collation'::pg_catalog.regclass, oid, collowner, collnamespace
              FROM pg_catalog.pg_collation
            UNION ALL SELECT 'pg_catalog.pg_conversion'::pg_catalog.regclass, oid, conowner, connamespace
              FROM pg_catalog.pg_conversion
            UNION ALL SELECT 'pg_catalog.pg_ts_config'::pg_catalog.regclass, oid, cfgowner, cfgnamespace
              FROM pg_catalog.pg_ts_config
            UNION ALL SELECT 'pg_catalog.pg_ts_dict'::pg_catalog.regclass, oid, dictowner, dictnamespace
              FROM pg_catalog.pg_ts_dict
            UNION ALL SELECT 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, oid, stxowner, stxnamespace
              FROM pg_catalog.pg_statistic_ext) n(classid, objid, owner, namespace)
          JOIN place ON place.oid = n.namespace
        UNION ALL
        SELECT classid, objid, owner, pg_catalog.pg_describe_object(classid, objid, 0) FROM (
            SELECT 'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass::oid, oid, fdwowner
              FROM pg_catalog.pg_foreign_data_wrapper
            UNION ALL SELECT 'pg_catalog.pg_foreign_server'::pg_catalog.regclass, oid, srvowner
              FROM pg_catalog.pg_foreign_server
            UNION ALL SELECT 'pg_catalog.pg_event_trigger'::pg_catalog.regclass, oid, evtowner
              FROM pg_catalog.pg_event_trigger
            UNION ALL SELECT 'pg_catalog.pg_language'::pg_catalog.regclass, oid, lanowner FROM pg_catalog.pg_language
            UNION ALL SELECT 'pg_catalog.pg_am'::pg_catalog.regclass, oid, 10 FROM pg_catalog.pg_am
            UNION ALL SELECT 'pg_catalog.pg_cast'::pg_catalog.regclass, oid, 10 FROM pg_catalog.pg_cast
        ) m(classid, objid, owner) WHERE objid >= 16384)
    SELECT o.name FROM object o JOIN pg_catalog.pg_roles r ON r.oid = o.owner
     WHERE NOT r.rolname::text = ANY ($1)
       AND NOT EXISTS (SELECT FROM member WHERE member.classid = o.classid AND member.objid = o.oid)
     ORDER BY 1";

/// Names the user's objects, if there are any: the first few, and how many more.
pub(in crate::ops) async fn user_objects(session: &Session) -> Result<Option<String>, Error> {
    let platform: Vec<&str> = PLATFORM_ROLES
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let rows = session
        .select(
            "see whether the database is empty",
            USER_OBJECTS,
            &[&platform, &SCHEMA],
        )
        .await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let named: Vec<String> = rows.iter().take(NAMED).map(|row| row.get(0)).collect();
    let more = rows.len().saturating_sub(NAMED);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    Ok(Some(format!("{}{more}", named.join(", "))))
}

/// Queries for statements that remove everything which is not the system's or the platform's, the marker excepted.
///
/// Schemas go before extensions: dropping an extension under a table that uses it makes the server stumble over indexes
/// with options of the extension's operator classes.
const EMPTYING: &[&str] = &[
    "SELECT 'DROP EVENT TRIGGER ' || quote_ident(evtname) || ' CASCADE' FROM pg_catalog.pg_event_trigger e
      JOIN pg_catalog.pg_roles r ON r.oid = e.evtowner WHERE NOT r.rolname::text = ANY ($1)",
    "SELECT 'DROP PUBLICATION ' || quote_ident(pubname) || ' CASCADE' FROM pg_catalog.pg_publication p
      JOIN pg_catalog.pg_roles r ON r.oid = p.pubowner WHERE NOT r.rolname::text = ANY ($1)",
    // Ours arrived disabled: the publisher's slot is not ours to drop. The server forgets to drop the comment.
    "SELECT pg_catalog.format('COMMENT ON SUBSCRIPTION %1$I IS NULL; ALTER SUBSCRIPTION %1$I DISABLE; ALTER SUBSCRIPTION %1$I SET (slot_name = NONE);
                               DROP SUBSCRIPTION %1$I', subname)
       FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_roles r ON r.oid = s.subowner
      WHERE NOT r.rolname::text = ANY ($1)
        AND subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())",
    "SELECT 'DROP SCHEMA IF EXISTS ' || quote_ident(nspname) || ' CASCADE' FROM pg_catalog.pg_namespace n
      JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner
     WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' AND d.objid = n.oid
               AND d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass)
       AND nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'ernstfall_restore')
       AND NOT r.rolname::text = ANY ($1)",
    "SELECT 'DROP EXTENSION IF EXISTS ' || quote_ident(extname) || ' CASCADE' FROM pg_catalog.pg_extension e
      JOIN pg_catalog.pg_roles r ON r.oid = e.extowner
     WHERE extname <> 'plpgsql' AND NOT r.rolname::text = ANY ($1)
       AND NOT EXISTS (SELECT FROM ernstfall_restore.step WHERE name = 'had extension ' || extname)",
    "SELECT 'DROP CAST IF EXISTS (' || castsource::pg_catalog.regtype || ' AS ' || casttarget::pg_catalog.regtype || ') CASCADE'
       FROM pg_catalog.pg_cast c WHERE oid >= 16384 AND $1::text[] IS NOT NULL AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' AND d.objid = c.oid
               AND d.classid = 'pg_catalog.pg_cast'::pg_catalog.regclass)",
    "SELECT 'DROP SERVER ' || quote_ident(srvname) || ' CASCADE' FROM pg_catalog.pg_foreign_server s
      JOIN pg_catalog.pg_roles r ON r.oid = s.srvowner WHERE NOT r.rolname::text = ANY ($1)",
    "SELECT 'DROP FOREIGN DATA WRAPPER ' || quote_ident(fdwname) || ' CASCADE'
       FROM pg_catalog.pg_foreign_data_wrapper f JOIN pg_catalog.pg_roles r ON r.oid = f.fdwowner
      WHERE NOT r.rolname::text = ANY ($1) AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' AND d.objid = f.oid
               AND d.classid = 'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass)",
    "SELECT 'DROP LANGUAGE ' || quote_ident(lanname) || ' CASCADE' FROM pg_catalog.pg_language l
      JOIN pg_catalog.pg_roles r ON r.oid = l.lanowner
     WHERE l.oid >= 16384 AND NOT r.rolname::text = ANY ($1) AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' AND d.objid = l.oid
               AND d.classid = 'pg_catalog.pg_language'::pg_catalog.regclass)",
    "SELECT 'DROP ACCESS METHOD ' || quote_ident(amname) || ' CASCADE' FROM pg_catalog.pg_am a
      WHERE oid >= 16384 AND $1::text[] IS NOT NULL AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' AND d.objid = a.oid
               AND d.classid = 'pg_catalog.pg_am'::pg_catalog.regclass)",
    // Back to the built-in ones, which the server then forgets.
    "SELECT pg_catalog.format('ALTER DEFAULT PRIVILEGES FOR ROLE %1$I REVOKE ALL ON %2$s FROM PUBLIC, %3$s;
                               ALTER DEFAULT PRIVILEGES FOR ROLE %1$I GRANT ALL ON %2$s TO %1$I%4$s',
                r.rolname, o.objects,
                (SELECT pg_catalog.string_agg(DISTINCT pg_catalog.quote_ident(g.rolname), ', ') FROM pg_catalog.pg_roles g
                  WHERE g.oid = r.oid OR g.oid IN (SELECT grantee FROM pg_catalog.aclexplode(d.defaclacl))),
                CASE WHEN o.to_all IS NOT NULL THEN pg_catalog.format(
                    '; ALTER DEFAULT PRIVILEGES FOR ROLE %I GRANT %s ON %s TO PUBLIC', r.rolname, o.to_all, o.objects) END)
       FROM pg_catalog.pg_default_acl d JOIN pg_catalog.pg_roles r ON r.oid = d.defaclrole
       JOIN (VALUES ('r', 'TABLES', NULL), ('S', 'SEQUENCES', NULL), ('f', 'FUNCTIONS', 'EXECUTE'),
                    ('T', 'TYPES', 'USAGE'), ('n', 'SCHEMAS', NULL)) AS o(kind, objects, to_all)
         ON o.kind = d.defaclobjtype::text
      WHERE d.defaclnamespace = 0 AND NOT r.rolname::text = ANY ($1)",
    "SELECT 'SELECT pg_catalog.lo_unlink(' || oid || ')' FROM pg_catalog.pg_largeobject_metadata
      WHERE $1::text[] IS NOT NULL",
];

/// Empties the database. Only where the marker stands: then it was empty before, and what is there is ours.
pub(super) async fn empty(session: &Session) -> Result<(), Error> {
    let platform: Vec<&str> = PLATFORM_ROLES
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    for query in EMPTYING {
        let rows = session
            .select("list what the broken restore left", query, &[&platform])
            .await?;
        for row in rows {
            session
                .batch("remove what the broken restore left", row.get(0))
                .await?;
        }
    }
    // The schema public first: extensions may lie in it.
    let sql = format!(
        "SELECT name FROM {SCHEMA}.step WHERE name LIKE '{PUT_BACK}%' ORDER BY name NOT LIKE '%CREATE SCHEMA%', name"
    );
    for row in session.select("read the marker", &sql, &[]).await? {
        let note: String = row.get(0);
        let statement = note.trim_start_matches(PUT_BACK);
        session.batch("put back what was there before", statement).await?;
    }
    let sql = format!(
        "DELETE FROM {}.step WHERE name NOT LIKE 'backup %' AND name NOT LIKE 'had extension %' \
         AND name NOT LIKE '{PUT_BACK}%'",
        quote_identifier(SCHEMA)
    );
    session.batch("reset the marker", &sql).await
}
