//! The roles of a backup on a server that has roles of its own.
//!
//! Existing roles stay as they are: nothing is granted to them, and nothing of theirs is granted on. So a membership is
//! made only between two roles that bear our marker. What is made cannot log in, bears our marker from the moment it is
//! there, and goes when nothing needs it any more.

use std::collections::BTreeSet;

use crate::postgres::error::Error;
use crate::postgres::identifier::{quote_identifier, quote_literal};
use crate::postgres::roles::without_password;
use crate::postgres::session::Session;

use super::marker::{Kind, Maker, Marker};

/// What a backup says of its roles.
pub struct RolesWanted<'a> {
    pub names: &'a [String],
    /// The lines of its script: one for each role, then one for each membership.
    pub statements: &'a [String],
    /// The superuser that its server began with; it owns what others may not.
    pub bootstrap: &'a str,
}

/// What the connected role may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    pub role: String,
    pub superuser: bool,
    pub creates_roles: bool,
    pub creates_databases: bool,
}

/// Reads what the connected role may do.
pub(super) async fn rights(session: &Session) -> Result<Rights, Error> {
    let sql = "SELECT rolname::text, rolsuper, rolsuper OR rolcreaterole, rolsuper OR rolcreatedb
                 FROM pg_catalog.pg_roles WHERE rolname = current_user";
    let row = session.select_one("read the role's rights", sql, &[]).await?;
    Ok(Rights {
        role: row.get(0),
        superuser: row.get(1),
        creates_roles: row.get(2),
        creates_databases: row.get(3),
    })
}

/// Makes the roles that are missing. Returns the memberships that were left out, as SQL.
pub(super) async fn make(
    session: &Session,
    wanted: &RolesWanted<'_>,
    maker: &Maker,
) -> Result<Vec<String>, Error> {
    let rights = rights(session).await?;
    for name in wanted.names {
        let body = wanted
            .statements
            .iter()
            .find_map(|statement| creation(statement, name));
        // It cannot log in there, and whoever keeps that server need not learn its hash.
        let body = body.map(|body| without_password(body, name));
        make_one(session, name, body.as_deref(), maker, &rights).await?;
    }
    let bootstrap = match rights.superuser {
        true => Some(format!(
            "CREATE ROLE {} SUPERUSER;",
            quote_identifier(wanted.bootstrap)
        )),
        false => None,
    };
    make_one(session, wanted.bootstrap, bootstrap.as_deref(), maker, &rights).await?;
    memberships(session, wanted).await
}

/// Makes a role with what the source's has; where that is refused, a plain one. An existing role is left alone.
async fn make_one(
    session: &Session,
    name: &str,
    body: Option<&str>,
    maker: &Maker,
    rights: &Rights,
) -> Result<(), Error> {
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1)";
    let row = session.select_one("look for a role", sql, &[&name]).await?;
    if row.get(0) {
        return Ok(());
    }
    let quoted = quote_identifier(name);
    let plain = format!("CREATE ROLE {quoted};");
    // To give objects to a role, one that is no superuser must be a member of it. That ends with the role.
    let join = match (rights.superuser, session.server_version_num() >= 160_000) {
        (true, _) => String::new(),
        (false, true) => format!("; GRANT {quoted} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE"),
        (false, false) => format!("; GRANT {quoted} TO CURRENT_USER"),
    };
    let marker = Marker::new(Kind::ScratchRole, name, maker).statement();
    let mut failure = None;
    for body in body.into_iter().chain([plain.as_str()]) {
        // Statements in one message are one transaction: no role is ever there without its marker.
        let sql = format!("{body} ALTER ROLE {quoted} NOLOGIN; {marker}{join}");
        match session.batch(&format!("make the role {quoted}"), &sql).await {
            Ok(()) => return Ok(()),
            // Somebody else has made it in between: so it is theirs.
            Err(error) if matches!(error.sqlstate(), Some("42710" | "23505")) => return Ok(()),
            Err(error) if error.is_environment() => return Err(error),
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(()), Err)
}

/// What makes this role, out of the script's line that makes it where it is missing.
fn creation<'a>(statement: &'a str, name: &str) -> Option<&'a str> {
    let condition = format!(
        " BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {}) THEN ",
        quote_literal(name)
    );
    let (tag, rest) = statement.strip_prefix("DO ")?.split_once(&condition)?;
    let (body, end) = rest.rsplit_once(" END IF; END ")?;
    (!tag.contains(' ') && end == format!("{tag};")).then_some(body)
}

/// Makes the memberships between roles that bear our marker.
async fn memberships(session: &Session, wanted: &RolesWanted<'_>) -> Result<Vec<String>, Error> {
    let sql = "SELECT rolname::text, pg_catalog.shobj_description(oid, 'pg_authid') FROM pg_catalog.pg_roles
                WHERE rolname::text = ANY ($1)";
    let rows = session
        .select("look which roles are ours", sql, &[&wanted.names])
        .await?;
    let ours: BTreeSet<String> = rows
        .iter()
        .map(|row| (row.get::<_, String>(0), row.get::<_, Option<String>>(1)))
        .filter(|(name, comment)| Marker::read(Kind::ScratchRole, name, comment.as_deref()).is_some())
        .map(|(name, _)| quote_identifier(&name))
        .collect();
    let mut left_out = Vec::new();
    for statement in wanted.statements {
        let Some((group, member)) = membership(statement) else {
            continue;
        };
        let made = match ours.contains(group) && ours.contains(member) {
            true => session.batch("make a role a member of another", statement).await,
            false => {
                left_out.push(statement.clone());
                continue;
            }
        };
        match made {
            Ok(()) => {}
            Err(error) if error.is_environment() => return Err(error),
            Err(_) => left_out.push(statement.clone()),
        }
    }
    Ok(left_out)
}

/// Group and member of a line `GRANT "group" TO "member"…;`, both as they are written there.
fn membership(statement: &str) -> Option<(&str, &str)> {
    let (group, rest) = quoted_name(statement.strip_prefix("GRANT ")?)?;
    let (member, _) = quoted_name(rest.strip_prefix(" TO ")?)?;
    Some((group, member))
}

/// A quoted identifier at the beginning of a text, with its quotes, and what follows it.
fn quoted_name(text: &str) -> Option<(&str, &str)> {
    let start = if text.starts_with("U&\"") { 3 } else { 1 };
    let inner = text.get(start..).filter(|_| text[..start].ends_with('"'))?;
    let mut characters = inner.char_indices().peekable();
    while let Some((position, character)) = characters.next() {
        if character != '"' {
            continue;
        }
        if characters.next_if(|(_, next)| *next == '"').is_none() {
            return Some(text.split_at(start + position + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_a_role_is_taken_out_of_its_line() {
        let line = "DO $ernstfall$ BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'it''s') \
                    THEN CREATE ROLE \"it's\" LOGIN; COMMENT ON ROLE \"it's\" IS 'x END IF; END y'; END IF; END $ernstfall$;";
        assert_eq!(
            creation(line, "it's"),
            Some("CREATE ROLE \"it's\" LOGIN; COMMENT ON ROLE \"it's\" IS 'x END IF; END y';")
        );
        assert_eq!(creation(line, "its"), None);
        assert_eq!(creation("GRANT \"a\" TO \"b\";", "a"), None);
    }

    #[test]
    fn a_membership_is_read_whatever_the_names_are() {
        assert_eq!(
            membership("GRANT \"a \"\" TO \"\"b\" TO \"c\" WITH ADMIN OPTION;"),
            Some(("\"a \"\" TO \"\"b\"", "\"c\""))
        );
        assert_eq!(
            membership("GRANT U&\"a\\000a\" TO \"c\";"),
            Some(("U&\"a\\000a\"", "\"c\""))
        );
        assert_eq!(membership("DO $x$ BEGIN END $x$;"), None);
        assert_eq!(membership("GRANT \"a"), None);
    }
}
