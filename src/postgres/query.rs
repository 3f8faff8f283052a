//! Running statements on a session, with errors that say what was tried and on what.

use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, SimpleQueryMessage, SimpleQueryRow};

use super::error::Error;
use super::session::Session;

impl Session {
    /// Runs statements that return nothing, in one round trip.
    pub async fn batch(&self, tried: &str, sql: &str) -> Result<(), Error> {
        self.batch_execute(sql)
            .await
            .map_err(|source| Error::query(tried, self.description(), source))
    }

    /// Runs a query with parameters.
    pub async fn select(
        &self,
        tried: &str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        self.query(sql, parameters)
            .await
            .map_err(|source| Error::query(tried, self.description(), source))
    }

    /// Runs a query that returns one row.
    pub async fn select_one(
        &self,
        tried: &str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, Error> {
        self.query_one(sql, parameters)
            .await
            .map_err(|source| Error::query(tried, self.description(), source))
    }

    /// The same for somebody else's SQL, which must be one statement: a second one could leave our transaction.
    pub async fn select_text_alone(&self, tried: &str, sql: &str) -> Result<Vec<SimpleQueryRow>, Error> {
        // The server refuses to prepare several.
        self.prepare(sql)
            .await
            .map_err(|source| Error::query(tried, self.description(), source))?;
        self.select_text(tried, sql).await
    }

    /// Runs a query in one message, without a look-up of types before it; all values come back as text.
    pub async fn select_text(&self, tried: &str, sql: &str) -> Result<Vec<SimpleQueryRow>, Error> {
        let messages = self
            .simple_query(sql)
            .await
            .map_err(|source| Error::query(tried, self.description(), source))?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        Ok(rows.collect())
    }
}
