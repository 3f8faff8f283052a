//! Every kind of object, and what is said of it.

use crate::model::contents::{IN_TABLESPACE, OF_THE_DATABASE};

use super::{Catalogue, grants, in_schema, owner, word};

const ENABLED: &[(&str, &str)] = &[
    ("O", "enabled"),
    ("D", "disabled"),
    ("R", "enabled in replicas"),
    ("A", "always enabled"),
    ("t", "enabled"),
    ("f", "disabled"),
];

/// An object that has nothing but a name, an owner and perhaps grants.
fn owned(
    catalogue: &'static str,
    kind: &str,
    name: String,
    joins: &'static str,
    owner_column: &str,
    acl: Option<(&str, char)>,
) -> Catalogue {
    let grants = acl.map(|(column, kind)| format!(" || {}", grants(column, kind, owner_column)));
    Catalogue {
        kind: format!("'{kind}'"),
        name,
        state: format!("{}{}", owner(owner_column), grants.unwrap_or_default()),
        catalogue,
        joins,
        relation: "0::oid",
        condition: "true",
        since: 13,
    }
}

/// Tables, views, sequences, indexes, and what hangs on them.
pub(super) fn of_relations() -> Vec<Catalogue> {
    let on_table = |name: &str| format!("{name} || ' on ' || n.nspname || '.' || c.relname");
    let kinds = [
        ("r", "table"),
        ("p", "partitioned table"),
        ("v", "view"),
        ("m", "materialized view"),
        ("f", "foreign table"),
        ("S", "sequence"),
    ];
    let lies_in = format!(
        "; {IN_TABLESPACE}' || coalesce((SELECT spcname FROM pg_catalog.pg_tablespace WHERE oid = o.reltablespace), '{OF_THE_DATABASE}')"
    );
    let options = " || coalesce('; options ' || (SELECT pg_catalog.string_agg(x COLLATE \"C\", ', ' ORDER BY x COLLATE \"C\") FROM pg_catalog.unnest(o.reloptions) AS x), '')";
    let grants = format!(
        "CASE o.relkind WHEN 'S' THEN {} ELSE {} END",
        grants("o.relacl", 's', "o.relowner"),
        grants("o.relacl", 'r', "o.relowner")
    );
    let relation = format!(
        "{} || {grants} || '{lies_in} || {} || {} || {} || CASE WHEN o.relkind = 'm' AND NOT o.relispopulated THEN '; not populated' ELSE '' END{options}",
        owner("o.relowner"),
        word("o.relpersistence", &[("p", ""), ("u", "; unlogged")]),
        "CASE WHEN o.relrowsecurity THEN '; row security' ELSE '' END || CASE WHEN o.relforcerowsecurity THEN ' forced' ELSE '' END",
        word(
            "o.relreplident",
            &[
                ("d", ""),
                ("n", "; replica identity nothing"),
                ("f", "; replica identity full"),
                ("i", "; replica identity by index")
            ]
        ),
    );
    let index = format!(
        "'valid ' || i.indisvalid || ', primary ' || i.indisprimary || ', unique ' || i.indisunique || ', clustered ' || i.indisclustered || ', replica identity ' || i.indisreplident || '{lies_in}{options}"
    );
    let constraint = "c.contype::text || CASE WHEN c.convalidated THEN ' valid' ELSE ' not valid' END || CASE WHEN c.condeferrable THEN ', deferrable' ELSE '' END || CASE WHEN c.condeferred THEN ', deferred' ELSE '' END";
    let plain = |catalogue, kind: &str, name, state, joins, relation, condition| Catalogue {
        kind: kind.to_owned(),
        name,
        state,
        catalogue,
        joins,
        relation,
        condition,
        since: 13,
    };
    vec![
        plain(
            "pg_class",
            &word("o.relkind", &kinds),
            in_schema("o.relname"),
            relation,
            "JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace",
            // A sequence of a column belongs to the column's table.
            "coalesce((SELECT s.refobjid FROM pg_catalog.pg_depend s WHERE o.relkind = 'S' AND s.objid = o.oid AND s.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND s.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND s.deptype IN ('a', 'i') LIMIT 1), o.oid)",
            "o.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')",
        ),
        // An invalid index is not dumped, and is named as not covered; a partitioned one is dumped as it is.
        plain(
            "pg_class",
            "'index'",
            in_schema("o.relname"),
            index,
            "JOIN pg_catalog.pg_index i ON i.indexrelid = o.oid JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace",
            "i.indrelid",
            "i.indisvalid OR o.relkind = 'I'",
        ),
        // Those that a foreign key to a partitioned table has for each partition get names of their own in a copy.
        plain(
            "pg_constraint",
            "'constraint'",
            "o.conname || ' on ' || CASE WHEN o.conrelid <> 0 THEN o.conrelid::pg_catalog.regclass::text ELSE o.contypid::pg_catalog.regtype::text END".to_owned(),
            constraint.replace("c.", "o."),
            "JOIN pg_catalog.pg_namespace n ON n.oid = o.connamespace",
            "o.conrelid",
            "(o.contype <> 'f' OR o.conparentid = 0) AND o.contype <> 't'",
        ),
        plain(
            "pg_trigger",
            "'trigger'",
            on_table("o.tgname"),
            word("o.tgenabled", ENABLED),
            "JOIN pg_catalog.pg_class c ON c.oid = o.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace",
            "o.tgrelid",
            "NOT o.tgisinternal",
        ),
        plain(
            "pg_rewrite",
            "'rule'",
            on_table("o.rulename"),
            word("o.ev_enabled", ENABLED),
            "JOIN pg_catalog.pg_class c ON c.oid = o.ev_class JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace",
            "o.ev_class",
            "o.rulename <> '_RETURN'",
        ),
        plain(
            "pg_policy",
            "'policy'",
            on_table("o.polname"),
            "CASE WHEN o.polpermissive THEN 'permissive' ELSE 'restrictive' END || ' for ' || o.polcmd::text || ' to ' || (SELECT pg_catalog.string_agg(CASE r WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(r)::text END COLLATE \"C\", ', ' ORDER BY CASE r WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(r)::text END COLLATE \"C\") FROM pg_catalog.unnest(o.polroles) AS r)".to_owned(),
            "JOIN pg_catalog.pg_class c ON c.oid = o.polrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace",
            "o.polrelid",
            "true",
        ),
        plain(
            "pg_statistic_ext",
            "'statistics'",
            in_schema("o.stxname"),
            format!("{} || '; kinds ' || o.stxkind::text || '; target ' || coalesce(o.stxstattarget, -1)", owner("o.stxowner")),
            "JOIN pg_catalog.pg_namespace n ON n.oid = o.stxnamespace",
            "o.stxrelid",
            "true",
        ),
    ]
}

/// What lies in a schema and is no relation.
pub(super) fn in_schemas() -> Vec<Catalogue> {
    const FUNCTIONS: &[(&str, &str)] = &[
        ("f", "function"),
        ("p", "procedure"),
        ("a", "aggregate"),
        ("w", "window function"),
    ];
    const TYPES: &[(&str, &str)] = &[
        ("b", "type"),
        ("c", "composite type"),
        ("d", "domain"),
        ("e", "enum"),
        ("r", "range type"),
    ];
    let functions = owned(
        "pg_proc",
        "",
        format!(
            "{} || '(' || pg_catalog.pg_get_function_identity_arguments(o.oid) || ')'",
            in_schema("o.proname")
        ),
        "JOIN pg_catalog.pg_namespace n ON n.oid = o.pronamespace",
        "o.proowner",
        Some(("o.proacl", 'f')),
    );
    let types = owned(
        "pg_type",
        "",
        in_schema("o.typname"),
        "JOIN pg_catalog.pg_namespace n ON n.oid = o.typnamespace",
        "o.typowner",
        Some(("o.typacl", 'T')),
    );
    let collations = owned(
        "pg_collation",
        "collation",
        in_schema("o.collname"),
        "JOIN pg_catalog.pg_namespace n ON n.oid = o.collnamespace",
        "o.collowner",
        None,
    );
    let operator_class = |catalogue, kind, name: &str, method: &str, joins, owner| {
        owned(
            catalogue,
            kind,
            format!("{} || ' for ' || {method}", in_schema(name)),
            joins,
            owner,
            None,
        )
    };
    vec![
        Catalogue {
            kind: word("o.prokind", FUNCTIONS),
            ..functions
        },
        Catalogue {
            kind: word("o.typtype", TYPES),
            condition: "o.typtype IN ('b', 'd', 'e', 'r', 'c') AND NOT EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.typarray = o.oid) AND (o.typrelid = 0 OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = o.typrelid AND c.relkind = 'c'))",
            ..types
        },
        Catalogue {
            state: format!("{} || '; provider ' || o.collprovider::text || ', deterministic ' || o.collisdeterministic", collations.state),
            ..collations
        },
        owned(
            "pg_operator",
            "operator",
            "n.nspname || '.' || o.oprname || ' (' || CASE o.oprleft WHEN 0 THEN '' ELSE o.oprleft::pg_catalog.regtype::text END || ', ' || o.oprright::pg_catalog.regtype::text || ')'".to_owned(),
            "JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace",
            "o.oprowner",
            None,
        ),
        operator_class(
            "pg_opclass",
            "operator class",
            "o.opcname",
            "m.amname",
            "JOIN pg_catalog.pg_namespace n ON n.oid = o.opcnamespace JOIN pg_catalog.pg_am m ON m.oid = o.opcmethod",
            "o.opcowner",
        ),
        operator_class(
            "pg_opfamily",
            "operator family",
            "o.opfname",
            "m.amname",
            "JOIN pg_catalog.pg_namespace n ON n.oid = o.opfnamespace JOIN pg_catalog.pg_am m ON m.oid = o.opfmethod",
            "o.opfowner",
        ),
        owned(
            "pg_conversion",
            "conversion",
            in_schema("o.conname"),
            "JOIN pg_catalog.pg_namespace n ON n.oid = o.connamespace",
            "o.conowner",
            None,
        ),
        owned(
            "pg_ts_config",
            "text search configuration",
            in_schema("o.cfgname"),
            "JOIN pg_catalog.pg_namespace n ON n.oid = o.cfgnamespace",
            "o.cfgowner",
            None,
        ),
        owned(
            "pg_ts_dict",
            "text search dictionary",
            in_schema("o.dictname"),
            "JOIN pg_catalog.pg_namespace n ON n.oid = o.dictnamespace",
            "o.dictowner",
            None,
        ),
    ]
}

/// What belongs to the database as a whole.
pub(super) fn of_database() -> Vec<Catalogue> {
    let schemas = owned(
        "pg_namespace",
        "schema",
        "o.nspname::text".to_owned(),
        "",
        "o.nspowner",
        Some(("o.nspacl", 'n')),
    );
    let event_triggers = owned(
        "pg_event_trigger",
        "event trigger",
        "o.evtname::text".to_owned(),
        "",
        "o.evtowner",
        None,
    );
    let publications = owned(
        "pg_publication",
        "publication",
        "o.pubname::text".to_owned(),
        "",
        "o.pubowner",
        None,
    );
    let subscriptions = owned(
        "pg_subscription",
        "subscription",
        "o.subname::text".to_owned(),
        "",
        "o.subowner",
        None,
    );
    let default_grants = grants("o.defaclacl", 'r', "o.defaclrole");
    vec![
        Catalogue {
            condition: "o.nspname !~ '^pg_'",
            ..schemas
        },
        Catalogue {
            state: format!("{} || '; ' || {} || ' on ' || o.evtevent", event_triggers.state, word("o.evtenabled", ENABLED)),
            ..event_triggers
        },
        Catalogue {
            state: format!("{} || '; all tables ' || o.puballtables || '; publishes' || CASE WHEN o.pubinsert THEN ' insert' ELSE '' END || CASE WHEN o.pubupdate THEN ' update' ELSE '' END || CASE WHEN o.pubdelete THEN ' delete' ELSE '' END || CASE WHEN o.pubtruncate THEN ' truncate' ELSE '' END", publications.state),
            ..publications
        },
        Catalogue {
            kind: "'publication of table'".to_owned(),
            name: "p.pubname || ': ' || n.nspname || '.' || c.relname".to_owned(),
            state: "'published'".to_owned(),
            catalogue: "pg_publication_rel",
                joins: "JOIN pg_catalog.pg_publication p ON p.oid = o.prpubid JOIN pg_catalog.pg_class c ON c.oid = o.prrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace",
            relation: "o.prrelid",
            condition: "true",
            since: 13,
        },
        Catalogue {
            kind: "'publication of schema'".to_owned(),
            name: "p.pubname || ': ' || n.nspname".to_owned(),
            state: "'published'".to_owned(),
            catalogue: "pg_publication_namespace",
                joins: "JOIN pg_catalog.pg_publication p ON p.oid = o.pnpubid JOIN pg_catalog.pg_namespace n ON n.oid = o.pnnspid",
            relation: "0::oid",
            condition: "true",
            since: 15,
        },
        // Only a superuser's dump has them. They arrive disabled, so whether they were enabled is not compared.
        Catalogue {
            condition: "o.subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) AND (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)",
            ..subscriptions
        },
        owned("pg_language", "language", "o.lanname::text".to_owned(), "", "o.lanowner", Some(("o.lanacl", 'l'))),
        owned("pg_foreign_data_wrapper", "foreign data wrapper", "o.fdwname::text".to_owned(), "", "o.fdwowner", Some(("o.fdwacl", 'F'))),
        owned("pg_foreign_server", "foreign server", "o.srvname::text".to_owned(), "", "o.srvowner", Some(("o.srvacl", 'S'))),
        Catalogue {
            kind: "'cast'".to_owned(),
            name: "o.castsource::pg_catalog.regtype || ' to ' || o.casttarget::pg_catalog.regtype".to_owned(),
            state: "'context ' || o.castcontext::text || ', method ' || o.castmethod::text".to_owned(),
            catalogue: "pg_cast",
                joins: "",
            relation: "0::oid",
            condition: "true",
            since: 13,
        },
        Catalogue {
            kind: "'default privileges'".to_owned(),
            name: "'of ' || pg_catalog.pg_get_userbyid(o.defaclrole) || ' on ' || o.defaclobjtype::text || coalesce(' in ' || n.nspname, '')".to_owned(),
            state: default_grants,
            catalogue: "pg_default_acl",
                joins: "LEFT JOIN pg_catalog.pg_namespace n ON n.oid = o.defaclnamespace",
            relation: "0::oid",
            condition: "true",
            since: 13,
        },
    ]
}
