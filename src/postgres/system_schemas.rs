//! Objects that somebody has made in the system's own schemas, where pg_dump takes everything for the server's.

use crate::model::archive_list::ObjectId;
use crate::model::contents::NotCovered;

use super::error::Error;
use super::session::Session;

/// Objects below 16384 belong to the system (FirstNormalObjectId). What is internal to another goes with it: row types,
/// arrays, constructors of ranges.
const OBJECTS: &str = "
    SELECT o.class::oid, o.oid, i.type, i.identity, 'pg_dump never dumps what lies in ' || o.schema
      FROM (SELECT 'pg_class'::regclass, c.oid, c.relnamespace::regnamespace FROM pg_class c
             WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
                OR c.relkind = 'i' AND (SELECT indrelid FROM pg_index WHERE indexrelid = c.oid) < 16384
            UNION ALL SELECT 'pg_trigger'::regclass, t.oid, c.relnamespace::regnamespace
              FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE t.tgrelid < 16384 AND NOT t.tgisinternal
            UNION ALL SELECT 'pg_rewrite'::regclass, r.oid, c.relnamespace::regnamespace
              FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class WHERE r.ev_class < 16384 AND r.rulename <> '_RETURN'
            UNION ALL SELECT 'pg_policy'::regclass, p.oid, c.relnamespace::regnamespace
              FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE p.polrelid < 16384
            UNION ALL SELECT 'pg_proc'::regclass, oid, pronamespace::regnamespace FROM pg_proc
            UNION ALL SELECT 'pg_type'::regclass, oid, typnamespace::regnamespace FROM pg_type
            UNION ALL SELECT 'pg_operator'::regclass, oid, oprnamespace::regnamespace FROM pg_operator
            UNION ALL SELECT 'pg_opclass'::regclass, oid, opcnamespace::regnamespace FROM pg_opclass
            UNION ALL SELECT 'pg_opfamily'::regclass, oid, opfnamespace::regnamespace FROM pg_opfamily
            UNION ALL SELECT 'pg_collation'::regclass, oid, collnamespace::regnamespace FROM pg_collation
            UNION ALL SELECT 'pg_conversion'::regclass, oid, connamespace::regnamespace FROM pg_conversion
            UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, stxnamespace::regnamespace FROM pg_statistic_ext
            UNION ALL SELECT 'pg_ts_config'::regclass, oid, cfgnamespace::regnamespace FROM pg_ts_config
            UNION ALL SELECT 'pg_ts_dict'::regclass, oid, dictnamespace::regnamespace FROM pg_ts_dict
            UNION ALL SELECT 'pg_ts_parser'::regclass, oid, prsnamespace::regnamespace FROM pg_ts_parser
            UNION ALL SELECT 'pg_ts_template'::regclass, oid, tmplnamespace::regnamespace FROM pg_ts_template
           ) AS o(class, oid, schema)
     CROSS JOIN LATERAL pg_identify_object(o.class, o.oid, 0) AS i
     WHERE o.oid >= 16384 AND o.schema IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = o.class AND d.objid = o.oid AND d.objsubid = 0
                          AND (d.deptype = 'e' OR d.deptype = 'i' AND o.class <> 'pg_rewrite'::regclass))
     ORDER BY 3, 4";

/// Lists them, each with what it is in this server.
pub async fn list(session: &Session) -> Result<Vec<(ObjectId, NotCovered)>, Error> {
    let rows = session.select("look for objects in the system's schemas", OBJECTS, &[]);
    let object = |row: &tokio_postgres::Row| {
        let id = ObjectId {
            class: row.get(0),
            oid: row.get(1),
        };
        // Dropped meanwhile: the backup starts over.
        let (kind, name) = (row.get::<_, Option<_>>(2)?, row.get::<_, Option<_>>(3)?);
        Some((
            id,
            NotCovered {
                kind,
                name,
                reason: row.get(4),
            },
        ))
    };
    Ok(rows.await?.iter().filter_map(object).collect())
}
