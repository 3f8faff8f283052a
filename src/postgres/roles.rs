//! The roles that a database's objects refer to, as SQL that makes them where they are missing.
//!
//! Owners, grantees and roles of policies, their groups and members, with positive attributes only: what a role must
//! not have is the default, and naming it would need a superuser on managed services.

use std::collections::BTreeMap;

use super::error::Error;
use super::identifier::{quote_identifier, quote_literal};
use super::session::Session;

/// The roles of one database, and the script that makes them.
pub struct Roles {
    pub names: Vec<String>,
    /// It may hold password hashes.
    pub sql: String,
}

/// Whether the script of the roles sets their passwords, as hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passwords {
    Included,
    /// They are not wanted.
    LeftOut,
    /// They are wanted, and the session's role may not read them.
    Unreadable,
}

/// Whether the session's role may read password hashes.
pub async fn passwords_are_readable(session: &Session) -> Result<bool, Error> {
    let sql = "SELECT pg_catalog.has_column_privilege('pg_catalog.pg_authid', 'rolname', 'SELECT')
                  AND pg_catalog.has_column_privilege('pg_catalog.pg_authid', 'rolpassword', 'SELECT')";
    let tried = "see whether passwords may be read";
    Ok(session.select_one(tried, sql, &[]).await?.get(0))
}

/// The password hashes of these roles, by name.
async fn passwords_of(session: &Session, names: &[String]) -> Result<BTreeMap<String, String>, Error> {
    let sql = "SELECT rolname::text, rolpassword FROM pg_catalog.pg_authid
                WHERE rolname::text = ANY ($1) AND rolpassword IS NOT NULL";
    let rows = session
        .select("read the passwords of roles", sql, &[&names])
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Roles that are built in (below FirstNormalObjectId) exist everywhere; they are followed, but not made.
const NEEDED: &str = "
    WITH RECURSIVE here(oid) AS (
        SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()),
    named(oid) AS (
        SELECT s.refobjid FROM pg_catalog.pg_shdepend s, here
         WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
           AND (s.dbid = here.oid OR (s.dbid = 0 AND s.objid = here.oid
                AND s.classid = 'pg_catalog.pg_database'::pg_catalog.regclass))
        UNION SELECT setrole FROM pg_catalog.pg_db_role_setting, here
               WHERE setdatabase = here.oid AND setrole <> 0
        UNION SELECT datdba FROM pg_catalog.pg_database d, here WHERE d.oid = here.oid),
    members(oid) AS (
        SELECT oid FROM named WHERE oid >= 16384
        UNION SELECT m.member FROM pg_catalog.pg_auth_members m JOIN members ON m.roleid = members.oid),
    needed(oid) AS (
        SELECT oid FROM named UNION SELECT oid FROM members
        UNION SELECT m.roleid FROM pg_catalog.pg_auth_members m JOIN needed ON m.member = needed.oid)
    SELECT r.rolname::text, r.oid, r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, r.rolcanlogin,
           r.rolreplication, r.rolbypassrls, r.rolconnlimit, r.rolvaliduntil::text,
           (SELECT s.setconfig FROM pg_catalog.pg_db_role_setting s WHERE s.setrole = r.oid AND s.setdatabase = 0),
           pg_catalog.shobj_description(r.oid, 'pg_authid')
      FROM needed JOIN pg_catalog.pg_roles r USING (oid) ORDER BY r.rolname";

/// Membership among the needed roles, with its options where the version has them.
fn memberships_query(version: i32) -> String {
    let options = if version >= 160_000 {
        "m.admin_option, m.inherit_option, m.set_option"
    } else {
        "m.admin_option, NULL::boolean, NULL::boolean"
    };
    format!(
        "SELECT DISTINCT g.rolname::text, r.rolname::text, {options}
           FROM pg_catalog.pg_auth_members m
           JOIN pg_catalog.pg_roles g ON g.oid = m.roleid JOIN pg_catalog.pg_roles r ON r.oid = m.member
          WHERE r.rolname::text = ANY ($1) ORDER BY 1, 2"
    )
}

/// Reads the roles in the session's snapshot.
pub async fn read(session: &Session, passwords: Passwords) -> Result<Roles, Error> {
    let mut rows = session.select("read the roles", NEEDED, &[]).await?;
    // The bootstrap superuser (oid 10) and the built-in roles are there in every cluster.
    rows.retain(|row| row.get::<_, u32>(1) >= 16_384);
    let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let hashes = match passwords {
        Passwords::Included => passwords_of(session, &names).await?,
        Passwords::LeftOut | Passwords::Unreadable => BTreeMap::new(),
    };
    let statement = |row| create_statement(row, hashes.get(&row.get::<_, String>(0)).map(String::as_str));
    let mut sql: String = rows.iter().map(statement).collect();
    let query = memberships_query(session.server_version_num());
    for row in session
        .select("read the memberships of roles", &query, &[&names])
        .await?
    {
        let (group, member) = (quote_identifier(row.get(0)), quote_identifier(row.get(1)));
        sql.push_str(&format!(
            "GRANT {group} TO {member}{};\n",
            membership_options(&row)
        ));
    }
    Ok(Roles { names, sql })
}

fn membership_options(row: &tokio_postgres::Row) -> String {
    let (admin, inherit, set): (bool, Option<bool>, Option<bool>) = (row.get(2), row.get(3), row.get(4));
    match (admin, inherit, set) {
        (true, None, _) => " WITH ADMIN OPTION".to_owned(),
        (false, None, _) => String::new(),
        (admin, inherit, set) => {
            let text = |option: Option<bool>| if option.unwrap_or(true) { "TRUE" } else { "FALSE" };
            let admin = if admin { "ADMIN TRUE, " } else { "" };
            format!(" WITH {admin}INHERIT {}, SET {}", text(inherit), text(set))
        }
    }
}

/// One role, made only where it is missing; an existing one keeps what it has.
fn create_statement(row: &tokio_postgres::Row, password: Option<&str>) -> String {
    let name: String = row.get(0);
    let quoted = quote_identifier(&name);
    let password = password.map(|hash| format!("{PASSWORD}{}", quote_literal(hash)));
    let password = password.unwrap_or_default();
    let mut body = format!("CREATE ROLE {quoted}{password}{};", attributes(row));
    for entry in row.get::<_, Option<Vec<String>>>(11).unwrap_or_default() {
        if let Some((setting, value)) = entry.split_once('=') {
            body.push_str(&format!(
                " ALTER ROLE {quoted} SET {} TO {};",
                quote_identifier(setting),
                setting_value(setting, value)
            ));
        }
    }
    if let Some(comment) = row.get::<_, Option<String>>(12) {
        body.push_str(&format!(
            " COMMENT ON ROLE {quoted} IS {};",
            quote_literal(&comment)
        ));
    }
    let tag = dollar_tag(&body);
    format!(
        "DO {tag} BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {}) THEN {body} END IF; END {tag};\n",
        quote_literal(&name)
    )
}

/// Begins the password of a role, right behind the name.
const PASSWORD: &str = " PASSWORD ";

/// What makes a role, without its password: `body` begins with `CREATE ROLE` and the name.
pub fn without_password(body: &str, name: &str) -> String {
    let head = format!("CREATE ROLE {}", quote_identifier(name));
    let rest = body
        .strip_prefix(&head)
        .and_then(|rest| rest.strip_prefix(PASSWORD));
    // A hash has no quote in it.
    let rest = rest.and_then(|rest| rest.strip_prefix('\'')?.split_once('\''));
    rest.map_or_else(|| body.to_owned(), |(_, rest)| format!("{head}{rest}"))
}

fn attributes(row: &tokio_postgres::Row) -> String {
    let mut attributes = String::new();
    for (column, word) in [
        (2, "SUPERUSER"),
        (4, "CREATEROLE"),
        (5, "CREATEDB"),
        (6, "LOGIN"),
        (7, "REPLICATION"),
        (8, "BYPASSRLS"),
    ] {
        if row.get::<_, bool>(column) {
            attributes.push(' ');
            attributes.push_str(word);
        }
    }
    if !row.get::<_, bool>(3) {
        attributes.push_str(" NOINHERIT");
    }
    let limit: i32 = row.get(9);
    if limit >= 0 {
        attributes.push_str(&format!(" CONNECTION LIMIT {limit}"));
    }
    if let Some(until) = row.get::<_, Option<String>>(10) {
        attributes.push_str(&format!(" VALID UNTIL {}", quote_literal(&until)));
    }
    attributes
}

/// A dollar quote that the body does not contain.
fn dollar_tag(body: &str) -> String {
    let mut tag = "$ernstfall$".to_owned();
    let mut number = 0;
    while body.contains(&tag) {
        number += 1;
        tag = format!("$ernstfall{number}$");
    }
    tag
}

/// Settings that are lists of names: stored with their quotes, they must be written name by name.
const LISTS: &[&str] = &[
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// A stored setting's value as it must stand after `SET name TO`.
pub fn setting_value(name: &str, value: &str) -> String {
    if !LISTS.contains(&name.to_ascii_lowercase().as_str()) {
        return quote_literal(value);
    }
    let names: Vec<String> = split_names(value)
        .iter()
        .map(|name| quote_literal(name))
        .collect();
    if names.is_empty() {
        "''".to_owned()
    } else {
        names.join(", ")
    }
}

/// Splits `a, "b, c"` into its names.
fn split_names(value: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut name = String::new();
    let mut quoted = false;
    let mut seen = false;
    let mut characters = value.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                name.push('"');
            }
            '"' => {
                quoted = !quoted;
                seen = true;
            }
            ',' if !quoted => {
                names.push(std::mem::take(&mut name));
                seen = false;
            }
            space if !quoted && space.is_whitespace() => {}
            other => {
                name.push(other);
                seen = true;
            }
        }
    }
    if seen {
        names.push(name);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_settings_are_written_name_by_name_and_others_as_they_are() {
        assert_eq!(
            setting_value("search_path", r#""$user", public, "a, ""b""#),
            r#"'$user', 'public', 'a, "b'"#
        );
        assert_eq!(setting_value("search_path", ""), "''");
        assert_eq!(setting_value("search_path", r#""""#), "''");
        assert_eq!(setting_value("work_mem", "64MB"), "'64MB'");
    }

    #[test]
    fn a_role_can_be_made_without_its_password() {
        let made = "CREATE ROLE \"a b\" PASSWORD 'SCRAM-SHA-256$4096:x==$y=:z=' LOGIN; COMMENT ON ROLE \"a b\" IS ' PASSWORD ';";
        assert_eq!(
            without_password(made, "a b"),
            "CREATE ROLE \"a b\" LOGIN; COMMENT ON ROLE \"a b\" IS ' PASSWORD ';"
        );
        let without = "CREATE ROLE \"a\" LOGIN; COMMENT ON ROLE \"a\" IS ' PASSWORD ''x''';";
        assert_eq!(without_password(without, "a"), without);
    }

    #[test]
    fn a_dollar_tag_never_stands_in_the_body() {
        assert_eq!(dollar_tag("x $ernstfall$ y"), "$ernstfall1$");
    }
}
