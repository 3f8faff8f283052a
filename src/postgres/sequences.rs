//! Where sequences stand. They are not part of any snapshot: what is read is not earlier than the snapshot.

use crate::model::contents::Sequence;

use super::error::Error;
use super::identifier::{Quoting, qualified};
use super::session::Session;

/// Sequences read in one statement.
const BATCH: usize = 200;

/// Reads the given sequences, named by schema and name.
pub async fn read(session: &Session, names: &[(String, String)]) -> Result<Vec<Sequence>, Error> {
    let mut sequences = Vec::with_capacity(names.len());
    for batch in names.chunks(BATCH) {
        let selects: Vec<String> = batch
            .iter()
            .enumerate()
            .map(|(index, (schema, name))| {
                format!(
                    "SELECT {index}::int, last_value, is_called FROM {}",
                    qualified(schema, name)
                )
            })
            .collect();
        for row in session
            .select("read the sequences", &selects.join(" UNION ALL "), &[])
            .await?
        {
            let index = usize::try_from(row.get::<_, i32>(0)).unwrap_or(usize::MAX);
            if let Some((schema, name)) = batch.get(index) {
                sequences.push(Sequence {
                    schema: schema.clone(),
                    name: name.clone(),
                    last_value: row.get(1),
                    is_called: row.get(2),
                });
            }
        }
    }
    sequences.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
    Ok(sequences)
}

/// The statement that sets a sequence to where it stood.
pub fn set_statement(sequence: &Sequence, quoting: Quoting) -> String {
    let name = quoting.qualified(&sequence.schema, &sequence.name);
    let (last_value, is_called) = (sequence.last_value, sequence.is_called);
    if !name.contains("U&") {
        return format!(
            "SELECT pg_catalog.setval({}, {last_value}, {is_called});",
            quoting.literal(&name)
        );
    }
    // regclass input knows no U& names, so the catalogue is asked for the sequence instead.
    format!(
        "SELECT pg_catalog.setval(c.oid::pg_catalog.regclass, {last_value}, {is_called}) \
           FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
          WHERE n.nspname = {} AND c.relname = {};",
        quoting.literal(&sequence.schema),
        quoting.literal(&sequence.name)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_control_character_is_looked_up_rather_than_parsed() {
        let mut sequence = Sequence {
            schema: "public".into(),
            name: "o'x".into(),
            last_value: 7,
            is_called: true,
        };
        assert_eq!(
            set_statement(&sequence, Quoting::Utf8),
            r#"SELECT pg_catalog.setval('"public"."o''x"', 7, true);"#
        );
        sequence.name = "a\nb".into();
        assert!(set_statement(&sequence, Quoting::Utf8).contains(r"c.relname = U&'a\000ab'"));
    }
}
