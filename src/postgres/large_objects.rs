//! Large objects: data, owner, grants and comment, as SQL.

use crate::model::contents::LargeObjects;

use super::error::Error;
use super::identifier::{quote_identifier, quote_literal};
use super::session::Session;

/// Large objects are read and written in pieces of this size: one piece, as hexadecimal text, fits any buffer.
const PIECE_BYTES: i32 = 1 << 20;
/// A script is full from here on.
const SCRIPT_BYTES: usize = 16 << 20;
/// Restoring a script is one transaction, and each large object takes a lock in it.
const SCRIPT_OBJECTS: usize = 1000;

/// One large object, without its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LargeObject {
    pub oid: u32,
    pub owner: String,
    /// Grants as SQL, or `None` for the default ones.
    pub grants: Option<Vec<String>>,
    pub comment: Option<String>,
}

/// Lists the large objects in the session's snapshot.
pub async fn list(session: &Session) -> Result<Vec<LargeObject>, Error> {
    let sql = "SELECT m.oid, pg_catalog.pg_get_userbyid(m.lomowner)::text,
                      CASE WHEN m.lomacl IS NOT NULL THEN
                          (SELECT coalesce(pg_catalog.array_agg(DISTINCT
                               pg_catalog.format('%s ON LARGE OBJECT %s TO %s%s', x.privilege_type, m.oid,
                                   CASE WHEN x.grantee = 0 THEN 'PUBLIC'
                                        ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(x.grantee)) END,
                                   CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)), '{}')
                             FROM pg_catalog.aclexplode(m.lomacl) AS x) END,
                      pg_catalog.obj_description(m.oid, 'pg_largeobject')
                 FROM pg_catalog.pg_largeobject_metadata m ORDER BY m.oid";
    let rows = session.select("list the large objects", sql, &[]).await?;
    let large_object = |row: &tokio_postgres::Row| LargeObject {
        oid: row.get(0),
        owner: row.get(1),
        grants: row.get(2),
        comment: row.get(3),
    };
    Ok(rows.iter().map(large_object).collect())
}

/// Those that the session's role may not read: pg_read_all_data does not include large objects before PostgreSQL 19.
pub async fn unreadable(session: &Session) -> Result<Vec<u32>, Error> {
    let sql = "SELECT m.oid FROM pg_catalog.pg_largeobject_metadata m
                WHERE NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
                  AND pg_catalog.current_setting('lo_compat_privileges') = 'off'
                  AND NOT pg_catalog.pg_has_role(m.lomowner, 'USAGE')
                  AND NOT EXISTS (
                      SELECT FROM pg_catalog.pg_roles r
                       WHERE $1 AND r.rolname = 'pg_read_all_data' AND pg_catalog.pg_has_role(r.oid, 'USAGE'))
                  AND NOT EXISTS (
                      SELECT FROM pg_catalog.aclexplode(m.lomacl) AS x WHERE x.privilege_type = 'SELECT'
                         AND CASE x.grantee WHEN 0 THEN true ELSE pg_catalog.pg_has_role(x.grantee, 'USAGE') END)
                ORDER BY m.oid";
    let covered = session.server_version_num() >= 190_000;
    let rows = session
        .select("look for large objects without rights", sql, &[&covered])
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// SQL that makes large objects again: one statement a line.
pub struct Script {
    header: Vec<u8>,
    text: Vec<u8>,
    keeping: bool,
    objects: usize,
}

impl Script {
    pub fn new(header: Vec<u8>) -> Self {
        Self {
            text: header.clone(),
            header,
            keeping: true,
            objects: 0,
        }
    }

    /// Keeps nothing: for when only the summary is wanted.
    pub fn discarding() -> Self {
        Self {
            text: Vec::new(),
            header: Vec::new(),
            keeping: false,
            objects: 0,
        }
    }

    pub fn is_full(&self) -> bool {
        self.text.len() >= SCRIPT_BYTES || self.objects >= SCRIPT_OBJECTS
    }

    /// The script so far; the next one begins.
    pub fn take(&mut self) -> Vec<u8> {
        self.objects = 0;
        std::mem::replace(&mut self.text, self.header.clone())
    }

    fn line(&mut self, statement: &str) {
        if self.keeping {
            self.text.extend_from_slice(statement.as_bytes());
            self.text.push(b'\n');
        }
    }
}

/// Reads one large object, adds it to the script and to the summary. After each piece `heard` is told its bytes, and
/// waited for.
pub async fn read<Heard: Future<Output = ()>>(
    session: &Session,
    large_object: &LargeObject,
    script: &mut Script,
    summary: &mut LargeObjects,
    heard: impl Fn(u64) -> Heard,
) -> Result<(), Error> {
    let LargeObject {
        oid,
        owner,
        grants,
        comment,
    } = large_object;
    summary.count += 1;
    script.objects += 1;
    let owner_name = quote_identifier(owner);
    script.line(&format!("SELECT pg_catalog.lo_create({oid});"));
    script.line(&format!("ALTER LARGE OBJECT {oid} OWNER TO {owner_name};"));
    if let Some(grants) = grants {
        script.line(&format!(
            "REVOKE ALL ON LARGE OBJECT {oid} FROM PUBLIC, {owner_name};"
        ));
        grants
            .iter()
            .for_each(|grant| script.line(&format!("GRANT {grant};")));
    }
    if let Some(comment) = comment {
        script.line(&format!(
            "COMMENT ON LARGE OBJECT {oid} IS {};",
            quote_literal(comment)
        ));
    }
    summary
        .fingerprint
        .add_row(format!("{oid}\t{owner}\t{grants:?}\t{comment:?}").as_bytes());
    let mut offset: i64 = 0;
    loop {
        let row = session
            .select_one(
                &format!("read large object {oid}"),
                "SELECT pg_catalog.lo_get($1, $2, $3)",
                &[oid, &offset, &PIECE_BYTES],
            )
            .await?;
        let piece: &[u8] = row.get(0);
        if !piece.is_empty() {
            summary.bytes += piece.len() as u64;
            summary
                .fingerprint
                .add_row(&[format!("{oid}\t{offset}\t").as_bytes(), piece].concat());
            script.line(&format!(
                "SELECT pg_catalog.lo_put({oid}, {offset}, '\\x{}');",
                hexadecimal(piece)
            ));
        }
        heard(piece.len() as u64).await;
        if piece.len() < PIECE_BYTES as usize {
            return Ok(());
        }
        offset += i64::from(PIECE_BYTES);
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}
