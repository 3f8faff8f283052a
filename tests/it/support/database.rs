//! A database on a test server, and connections to it that block like a function call.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_postgres::{Client, Config, Error, NoTls, SimpleQueryMessage};

use super::cluster::{PASSWORD, SUPERUSER};
use super::process::run_or_panic;
use super::programs::Programs;

/// No statement of a test takes this long unless it waits for something that will not come.
const STATEMENT_DEADLINE: Duration = Duration::from_secs(120);

pub(crate) type Row = Vec<Option<String>>;

pub(crate) struct Database {
    name: String,
    port: u16,
    socket_directory: PathBuf,
    programs: Programs,
}

impl Database {
    pub(crate) fn new(name: &str, port: u16, socket_directory: &Path, programs: &Programs) -> Self {
        let (name, socket_directory) = (name.to_owned(), socket_directory.to_owned());
        Self {
            name,
            port,
            socket_directory,
            programs: programs.clone(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Over TCP, as the superuser, with the password in it.
    pub(crate) fn url(&self) -> String {
        self.url_as(SUPERUSER, PASSWORD)
    }

    pub(crate) fn url_as(&self, role: &str, password: &str) -> String {
        self.url_at(self.port, role, password)
    }

    /// The same database through another port, as of a proxy.
    pub(crate) fn url_at(&self, port: u16, role: &str, password: &str) -> String {
        format!("postgresql://{role}:{password}@127.0.0.1:{port}/{}", self.name)
    }

    /// Through the Unix socket, where every role is trusted.
    pub(crate) fn socket_url(&self) -> String {
        self.socket_url_as(SUPERUSER)
    }

    pub(crate) fn socket_url_as(&self, role: &str) -> String {
        let directory = self.socket_directory.display();
        format!(
            "postgresql://{role}@/{}?host={directory}&port={}",
            self.name, self.port
        )
    }

    /// Runs statements, separated by semicolons, in one implicit transaction.
    pub(crate) fn execute(&self, sql: &str) {
        self.session().execute(sql);
    }

    /// The only column of the only row, as text.
    pub(crate) fn query_one_text(&self, sql: &str) -> String {
        self.session().query_one_text(sql)
    }

    /// All rows, as text; nothing is null.
    pub(crate) fn query_rows(&self, sql: &str) -> Vec<Row> {
        self.session().query_rows(sql)
    }

    /// A connection of its own, for a transaction that stays open.
    pub(crate) fn session(&self) -> Session {
        self.session_as(SUPERUSER)
    }

    pub(crate) fn session_as(&self, role: &str) -> Session {
        self.connect(role)
            .unwrap_or_else(|error| panic!("connect to {} as {role}: {}", self.name, chain(&error)))
    }

    pub(crate) fn try_session(&self) -> Result<Session, Error> {
        self.connect(SUPERUSER)
    }

    /// What `pg_dump --schema-only` says, without comments and without what differs each time.
    pub(crate) fn dump_schema(&self) -> String {
        self.dump_with(&[])
    }

    /// The same, one schema left out.
    pub(crate) fn dump_schema_without(&self, schema: &str) -> String {
        self.dump_with(&["--exclude-schema", schema])
    }

    fn dump_with(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(self.programs.path("pg_dump"));
        command
            .args(["--schema-only", "--encoding=UTF8", "--dbname", &self.socket_url()])
            .args(arguments)
            .env("LC_ALL", "C");
        let is_noise = |line: &str| line.is_empty() || line.starts_with("--") || line.contains("restrict ");
        let dump = run_or_panic(&mut command);
        dump.lines()
            .filter(|line| !is_noise(line))
            .flat_map(|line| [line, "\n"])
            .collect()
    }

    fn connect(&self, role: &str) -> Result<Session, Error> {
        let mut config = Config::new();
        config
            .host_path(&self.socket_directory)
            .port(self.port)
            .dbname(&self.name)
            .user(role);
        config
            .application_name("ernstfall-test")
            .connect_timeout(Duration::from_secs(30));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (client, connection) = runtime.block_on(config.connect(NoTls))?;
        runtime.spawn(connection);
        Ok(Session { client, runtime })
    }
}

/// One connection. It is served only while one of these functions runs.
pub(crate) struct Session {
    client: Client,
    runtime: Runtime,
}

impl Session {
    pub(crate) fn execute(&self, sql: &str) {
        self.try_execute(sql)
            .unwrap_or_else(|error| panic!("{sql}: {}", chain(&error)));
    }

    pub(crate) fn try_execute(&self, sql: &str) -> Result<(), Error> {
        self.wait(sql, self.client.batch_execute(sql))
    }

    pub(crate) fn query_one_text(&self, sql: &str) -> String {
        let mut rows = self.query_rows(sql);
        assert!(
            rows.len() == 1 && rows[0].len() == 1,
            "{sql}: expected one value, got {rows:?}"
        );
        rows.remove(0)
            .remove(0)
            .unwrap_or_else(|| panic!("{sql}: the value is null"))
    }

    pub(crate) fn query_rows(&self, sql: &str) -> Vec<Row> {
        self.try_query_rows(sql)
            .unwrap_or_else(|error| panic!("{sql}: {}", chain(&error)))
    }

    pub(crate) fn try_query_rows(&self, sql: &str) -> Result<Vec<Row>, Error> {
        let messages = self.wait(sql, self.client.simple_query(sql))?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        Ok(rows
            .map(|row| {
                (0..row.len())
                    .map(|column| row.get(column).map(str::to_owned))
                    .collect()
            })
            .collect())
    }

    /// The server process behind this connection.
    pub(crate) fn backend_pid(&self) -> u32 {
        self.query_one_text("select pg_backend_pid()").parse().unwrap()
    }

    fn wait<T>(&self, sql: &str, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let answer = async { tokio::time::timeout(STATEMENT_DEADLINE, answer).await };
        self.runtime
            .block_on(answer)
            .unwrap_or_else(|_| panic!("{sql}: no answer within {STATEMENT_DEADLINE:?}"))
    }
}

/// tokio-postgres says "db error" and keeps the reason in the source.
fn chain(error: &Error) -> String {
    let reason = std::error::Error::source(error).map(|source| format!(": {source}"));
    format!("{error}{}", reason.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::cluster::Cluster;
    use super::super::process::run_or_panic;
    use super::*;

    #[test]
    fn session_keeps_a_transaction_open_beside_others() {
        let cluster = Cluster::start();
        let database = cluster.database("shop");
        database.execute(
            "create table orders (id int primary key, note text); insert into orders values (1, null)",
        );
        let session = database.session();
        session.execute(
            "begin; lock table orders in access exclusive mode; insert into orders values (2, 'new')",
        );
        let other = database.session();
        let refused = other
            .try_execute("set lock_timeout = '50ms'; select * from orders")
            .unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "55P03");
        session.execute("rollback");
        assert_eq!(
            database.query_rows("select * from orders"),
            [[Some("1".to_owned()), None]]
        );
        let schema = database.dump_schema();
        assert!(
            schema.contains("CREATE TABLE public.orders (\n") && !schema.contains("--"),
            "{schema}"
        );
        assert_eq!(schema, database.dump_schema());
    }

    #[test]
    fn urls_lead_to_the_database_and_tcp_wants_the_password() {
        let cluster = Cluster::start();
        let database = cluster.database("shop");
        database.execute("create role clerk login password 'till'");
        for url in [
            database.url(),
            database.socket_url(),
            database.url_as("clerk", "till"),
        ] {
            let mut command = Command::new("psql");
            command.args(["-XAtc", "select current_database()", &url]);
            assert_eq!(run_or_panic(&mut command), "shop_1\n");
        }
        let mut command = Command::new("psql");
        command.args(["-XAtc", "select 1", &database.url_as("clerk", "wrong")]);
        assert!(!command.output().unwrap().status.success());
    }
}
