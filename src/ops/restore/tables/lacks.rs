//! What a database lacks for tables of a backup: found before anything is touched, and said all at once.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::contents::{Column, Contents, Table};
use crate::postgres::error::Error;
use crate::postgres::facts;
use crate::postgres::session::Session;

pub(super) async fn find(
    session: &Session,
    contents: &Contents,
    tables: &BTreeMap<usize, Table>,
    schema: &str,
) -> Result<Vec<String>, Error> {
    let mut lacks = Vec::new();
    let source = &contents.database;
    if session.server_version_num() / 10_000 < source.server_version_num / 10_000 {
        lacks.push(format!(
            "the server is PostgreSQL {}, older than the source's {}: restore into the same version or a newer one",
            session.server_version(),
            source.server_version
        ));
    }
    if session.in_recovery() {
        lacks.push("the server is a standby, which takes no writes: name its primary".to_owned());
    }
    lacks.extend(rights(session).await?);
    lacks.extend(publications(session).await?);
    let encoding = encoding(session, contents).await?;
    let converts = encoding.is_none();
    lacks.extend(encoding);
    if converts {
        lacks.extend(names(session, tables, schema).await?);
    }
    lacks.extend(types(session, contents, tables).await?);
    lacks.extend(collations(session, tables).await?);
    for table in tables.values() {
        let without = table
            .generated_columns
            .iter()
            .filter(|column| column.expression.is_none());
        lacks.extend(without.map(|column| {
            format!(
                "the backup does not say how the generated column {} of {} is computed: take a new one with this version",
                column.name, table.name
            )
        }));
    }
    Ok(lacks)
}

async fn rights(session: &Session) -> Result<Option<String>, Error> {
    let sql = "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'),
                      pg_catalog.format('GRANT CREATE ON DATABASE %I TO %I',
                          pg_catalog.current_database(), current_user)";
    let row = session.select_one("read the role's rights", sql, &[]).await?;
    Ok((!row.get::<_, bool>(0)).then(|| {
        let grant: String = row.get(1);
        format!("the role may not create a schema in this database: {grant}")
    }))
}

/// Whether the server can turn the source's text into its own. It turns none from or into SQL_ASCII, which says nothing
/// of what its bytes mean.
async fn encoding(session: &Session, contents: &Contents) -> Result<Option<String>, Error> {
    let own = facts::encoding(session).await?;
    let source = &contents.database.encoding;
    if own == *source {
        return Ok(None);
    }
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_conversion WHERE condefault
                  AND conforencoding = pg_catalog.pg_char_to_encoding($1)
                  AND contoencoding = pg_catalog.pg_char_to_encoding($2))";
    let row = session
        .select_one("look for a conversion", sql, &[source, &own])
        .await?;
    let known = row.get(0) && own != "SQL_ASCII" && source != "SQL_ASCII";
    Ok((!known).then(|| {
        format!(
            "the database's encoding is {own}, and nothing converts the backup's {source} into it exactly"
        )
    }))
}

/// A publication of all tables would take the new ones to subscribers, which do not have them and would stop.
async fn publications(session: &Session) -> Result<Option<String>, Error> {
    let sql = "SELECT pg_catalog.string_agg(pubname, ', ' ORDER BY pubname) FROM pg_catalog.pg_publication
                WHERE puballtables";
    let row = session
        .select_one("look for publications of all tables", sql, &[])
        .await?;
    let names: Option<String> = row.get(0);
    Ok(names.map(|names| {
        format!(
            "the database publishes all its tables ({names}), so the new ones too, and subscribers that lack them would stop: restore into another database"
        )
    }))
}

/// The server would cut a name that is too long, in silence.
async fn names(
    session: &Session,
    tables: &BTreeMap<usize, Table>,
    schema: &str,
) -> Result<Vec<String>, Error> {
    let mut names = BTreeSet::from([schema]);
    for table in tables.values() {
        names.insert(&table.name);
        names.extend(columns(table).map(|column| column.name.as_str()));
    }
    let names: Vec<&str> = names.into_iter().collect();
    let sql = "SELECT name FROM pg_catalog.unnest($1::text[]) AS name WHERE name::name::text <> name";
    let rows = session.select("look at the names", sql, &[&names]).await?;
    let long = rows.iter().map(|row| row.get::<_, String>(0));
    Ok(long
        .map(|name| format!("the name {name} is too long for this database"))
        .collect())
}

fn columns(table: &Table) -> impl Iterator<Item = &Column> {
    table.columns.iter().chain(&table.generated_columns)
}

/// Where a type or collation is used first.
fn used<'a>(
    tables: &'a BTreeMap<usize, Table>,
    what: impl Fn(&'a Column) -> Option<&'a str>,
) -> BTreeMap<&'a str, String> {
    let mut used = BTreeMap::new();
    for table in tables.values() {
        for column in columns(table) {
            if let Some(name) = what(column) {
                used.entry(name)
                    .or_insert_with(|| format!("column {} of {}", column.name, table.name));
            }
        }
    }
    used
}

async fn types(
    session: &Session,
    contents: &Contents,
    tables: &BTreeMap<usize, Table>,
) -> Result<Vec<String>, Error> {
    let used = used(tables, |column| Some(&column.type_name));
    let names: Vec<&str> = used.keys().copied().collect();
    let sql =
        "SELECT name FROM pg_catalog.unnest($1::text[]) AS name WHERE pg_catalog.to_regtype(name) IS NULL";
    let rows = session.select("look for the types", sql, &[&names]).await?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let installed = facts::extensions(session).await?;
    let missing = contents
        .extensions
        .iter()
        .filter(|wanted| !installed.iter().any(|found| found.name == wanted.name))
        .map(|extension| format!("{} in schema {}", extension.name, extension.schema));
    let missing: Vec<String> = missing.collect();
    let advice = if missing.is_empty() {
        String::new()
    } else {
        format!(
            " (of the source's extensions this database lacks {})",
            missing.join(", ")
        )
    };
    let lacking = rows.iter().map(|row| row.get::<_, String>(0));
    Ok(lacking
        .map(|name| {
            let place = used.get(name.as_str()).cloned().unwrap_or_default();
            format!("the type {name} is missing, for {place}{advice}")
        })
        .collect())
}

async fn collations(session: &Session, tables: &BTreeMap<usize, Table>) -> Result<Vec<String>, Error> {
    let used = used(tables, |column| column.collation.as_deref());
    let names: Vec<&str> = used.keys().copied().collect();
    let sql = "SELECT name FROM pg_catalog.unnest($1::text[]) AS name
                WHERE pg_catalog.to_regcollation(name) IS NULL";
    let rows = session.select("look for the collations", sql, &[&names]).await?;
    let lacking = rows.iter().map(|row| row.get::<_, String>(0));
    Ok(lacking
        .map(|name| {
            let place = used.get(name.as_str()).cloned().unwrap_or_default();
            format!("the collation {name} is missing, for {place}")
        })
        .collect())
}
