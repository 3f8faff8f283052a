//! Triggers of a restored database: they may refuse or undo what the restore itself still has to do.
//!
//! `session_replication_role = replica` stops only the ordinary ones. So around a statement all of them are switched off,
//! and on again as they were, in its own transaction: whoever looks from outside never sees them off.

use super::error::Error;
use super::identifier::Quoting;
use super::session::Session;

/// What stands before and after statements in which no trigger is to fire.
#[derive(Debug, Default)]
pub struct Silence {
    pub before: String,
    pub after: String,
}

impl Silence {
    /// The statements for the event triggers that are there now; only a superuser may run them.
    pub async fn of(session: &Session, quoting: Quoting) -> Result<Self, Error> {
        let sql = "SELECT evtname::text, evtenabled::text FROM pg_catalog.pg_event_trigger
                    WHERE evtenabled <> 'D' ORDER BY 1";
        let rows = session.select("list the event triggers", sql, &[]).await?;
        let mut silence = Self::default();
        for row in rows {
            let alter = format!("ALTER EVENT TRIGGER {}", quoting.identifier(row.get(0)));
            silence.add(&alter, "", row.get(1));
        }
        Ok(silence)
    }

    /// Adds the triggers of a table, but for those that check foreign keys: rows that are loaded when the triggers are
    /// there already are none of their business.
    pub async fn add_table(
        &mut self,
        session: &Session,
        schema: &str,
        name: &str,
        quoting: Quoting,
    ) -> Result<(), Error> {
        let sql = "SELECT t.tgname::text, t.tgenabled::text
                     FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
                     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                    WHERE n.nspname = $1 AND c.relname = $2 AND NOT t.tgisinternal AND t.tgenabled <> 'D' ORDER BY 1";
        let rows = session
            .select("list the triggers of a table", sql, &[&schema, &name])
            .await?;
        let quoted = quoting.qualified(schema, name);
        for row in rows {
            self.add(
                &format!("ALTER TABLE ONLY {quoted}"),
                &format!("TRIGGER {}", quoting.identifier(row.get(0))),
                row.get(1),
            );
        }
        Ok(())
    }

    fn add(&mut self, alter: &str, trigger: &str, enabled: &str) {
        let enable = match enabled {
            "R" => "ENABLE REPLICA",
            "A" => "ENABLE ALWAYS",
            _ => "ENABLE",
        };
        self.before.push_str(&format!("{alter} DISABLE {trigger}; "));
        self.after.push_str(&format!("; {alter} {enable} {trigger}"));
    }

    /// There is anything to be kept quiet.
    pub fn is_needed(&self) -> bool {
        !self.before.is_empty()
    }

    /// This silence around another one.
    pub fn and(&self, inner: &Self) -> Self {
        Self {
            before: format!("{}{}", self.before, inner.before),
            after: format!("{}{}", inner.after, self.after),
        }
    }

    /// The statement with the silence around it: to be sent as one text, which is one transaction.
    pub fn around(&self, statement: &str) -> String {
        format!("{}{statement}{}", self.before, self.after)
    }
}
