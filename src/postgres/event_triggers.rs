//! Event triggers of a restored database: they may refuse or undo what the restore itself still has to do.
//!
//! `session_replication_role = replica` stops only the ordinary ones. So around a statement all of them are switched off,
//! and on again as they were, in its own transaction: whoever looks from outside never sees them off.

use super::error::Error;
use super::identifier::quote_identifier;
use super::session::Session;

/// What stands before and after a statement in which no event trigger is to fire.
#[derive(Debug, Default)]
pub struct Silence {
    pub before: String,
    pub after: String,
}

impl Silence {
    /// The statements for the event triggers that are there now; only a superuser may run them.
    pub async fn of(session: &Session) -> Result<Self, Error> {
        let sql = "SELECT evtname::text, evtenabled::text FROM pg_catalog.pg_event_trigger
                    WHERE evtenabled <> 'D' ORDER BY 1";
        let rows = session.select("list the event triggers", sql, &[]).await?;
        let mut silence = Self::default();
        for row in rows {
            let name = quote_identifier(row.get(0));
            let enabled = match row.get(1) {
                "R" => "ENABLE REPLICA",
                "A" => "ENABLE ALWAYS",
                _ => "ENABLE",
            };
            silence
                .before
                .push_str(&format!("ALTER EVENT TRIGGER {name} DISABLE; "));
            silence
                .after
                .push_str(&format!("; ALTER EVENT TRIGGER {name} {enabled}"));
        }
        Ok(silence)
    }

    /// The statement with the silence around it: to be sent as one text, which is one transaction.
    pub fn around(&self, statement: &str) -> String {
        format!("{}{statement}{}", self.before, self.after)
    }
}
