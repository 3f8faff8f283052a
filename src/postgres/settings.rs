//! Settings, owner and comment stored with a database, as SQL for whatever the copy is called.

use crate::model::contents::DatabaseFacts;

use super::identifier::{quote_identifier, quote_literal};
use super::roles::setting_value;

/// Statements to run in the copy. They name no database: the copy may be called otherwise.
pub fn statements(database: &DatabaseFacts) -> Vec<String> {
    let mut statements = Vec::new();
    for setting in &database.settings {
        let assignment = format!(
            "SET {} TO {}",
            quote_identifier(&setting.name),
            setting_value(&setting.name, &setting.value)
        );
        statements.push(match &setting.role {
            None => in_this_database("ALTER DATABASE %I ", &assignment),
            Some(role) => in_this_database(
                &format!("ALTER ROLE {} IN DATABASE %I ", escape(&quote_identifier(role))),
                &assignment,
            ),
        });
    }
    if let Some(grants) = &database.grants {
        // The defaults first: a grant that was taken away must not come back.
        let everybody = format!(" FROM PUBLIC, {}", quote_identifier(&database.owner));
        statements.push(in_this_database("REVOKE ALL ON DATABASE %I", &everybody));
        for grant in grants {
            let grantee = grant
                .grantee
                .as_deref()
                .map_or_else(|| "PUBLIC".to_owned(), quote_identifier);
            let option = if grant.grantable { " WITH GRANT OPTION" } else { "" };
            let head = format!("GRANT {} ON DATABASE %I", grant.privilege);
            statements.push(in_this_database(&head, &format!(" TO {grantee}{option}")));
        }
    }
    if let Some(comment) = &database.comment {
        statements.push(in_this_database(
            "COMMENT ON DATABASE %I IS ",
            &quote_literal(comment),
        ));
    }
    statements
}

/// Whether a statement of [`statements`] is the one that sets the database's comment.
pub fn sets_the_comment(statement: &str) -> bool {
    let head = statement.split_once(" BEGIN EXECUTE pg_catalog.format(");
    head.is_some_and(|(_, rest)| {
        rest.trim_start_matches("U&")
            .starts_with("'COMMENT ON DATABASE %I IS ")
    })
}

/// A per cent sign is special to `format`.
fn escape(text: &str) -> String {
    text.replace('%', "%%")
}

/// Runs `head` with the current database's name for `%I`, followed by `tail`.
fn in_this_database(head: &str, tail: &str) -> String {
    let mut tag = "$ernstfall$".to_owned();
    while head.contains(&tag) || tail.contains(&tag) {
        tag.insert(tag.len() - 1, '_');
    }
    format!(
        "DO {tag} BEGIN EXECUTE pg_catalog.format({}, pg_catalog.current_database()); END {tag};",
        quote_literal(&format!("{head}{}", escape(tail)))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_of_the_comment_is_told_from_all_others() {
        let mut database: DatabaseFacts = serde_json::from_value(serde_json::json!({
            "name": "shop", "owner": "o", "bootstrap_role": "postgres", "encoding": "UTF8",
            "locale_provider": "libc", "collate": "C", "ctype": "C", "locale": null, "icu_rules": null,
            "collation_version": null, "server_version": "15.1", "server_version_num": 150001,
            "shared_preload_libraries": "", "size_bytes": 1,
            "settings": [{ "role": null, "name": "a.b",
                           "value": "x BEGIN EXECUTE pg_catalog.format('COMMENT ON DATABASE %I IS '" }],
            "grants": [], "comment": "plain"
        }))
        .unwrap();
        for comment in ["plain", "with a\nnew line"] {
            database.comment = Some(comment.to_owned());
            let found: Vec<bool> = statements(&database)
                .iter()
                .map(|statement| sets_the_comment(statement))
                .collect();
            assert_eq!(found, [false, false, true], "{comment}");
        }
    }

    #[test]
    fn a_per_cent_sign_in_a_value_stays_what_it_is() {
        assert_eq!(
            in_this_database("ALTER DATABASE %I ", "SET \"application_name\" TO '100%'"),
            "DO $ernstfall$ BEGIN EXECUTE pg_catalog.format('ALTER DATABASE %I SET \"application_name\" TO ''100%%''', \
             pg_catalog.current_database()); END $ernstfall$;"
        );
    }
}
