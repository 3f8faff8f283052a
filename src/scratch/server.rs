//! The programs of an embedded scratch: initdb and the server, how they are started, waited for and stopped.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;

use super::embedded::Embedded;
use super::error::{self, ScratchError};
use super::launch::Sandboxed;
use super::sandbox::spec::{Answer, Specification};
use super::server_log;
use super::settings::{self, Phase, Places};

/// initdb takes a second; on a slow disk it may take many.
const INITDB_DEADLINE: Duration = Duration::from_secs(120);

/// An empty cluster starts at once; after a restart there may be recovery of nothing to do.
const START_DEADLINE: Duration = Duration::from_secs(120);

const LOOK: Duration = Duration::from_millis(20);

impl Embedded {
    pub(super) async fn initialise(&self, cancel: &CancellationToken) -> Result<Answer, ScratchError> {
        let arguments = [
            "--username",
            &self.settings.superuser,
            // The socket lies in a directory that is closed to everybody else.
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "-D",
        ];
        self.run_initdb(arguments.map(str::to_owned).to_vec(), INITDB_DEADLINE, cancel)
            .await
    }

    /// Runs initdb; the arguments end with the switch for the data directory.
    pub(super) async fn run_initdb(
        &self,
        mut arguments: Vec<String>,
        deadline: Duration,
        cancel: &CancellationToken,
    ) -> Result<Answer, ScratchError> {
        arguments.push(self.place().data().display().to_string());
        let mut initdb = self.launch("initdb", arguments, cancel).await?;
        let status = tokio::select! {
            status = initdb.wait(deadline) => status,
            () = cancel.cancelled() => return Err(ScratchError::Cancelled),
        };
        match status {
            Some(0) => Ok(initdb.answer.clone()),
            Some(status) => Err(self.ended(initdb.name(), status)),
            None => Err(self.too_slow(initdb.name(), deadline)),
        }
    }

    async fn launch(
        &self,
        program: &str,
        arguments: Vec<String>,
        cancel: &CancellationToken,
    ) -> Result<Sandboxed, ScratchError> {
        let place = self.place();
        let own_binary = self
            .settings
            .own_binary
            .clone()
            .or_else(|| std::env::current_exe().ok());
        let specification = Specification {
            program: self.settings.programs.program(program),
            arguments,
            isolation: self.settings.isolation,
            identity: self.identity.clone(),
            writable: place.run(),
            readable: vec![place.settings_file()],
            new_root: place.new_root(),
            own_binary: own_binary.unwrap_or_default(),
            statistics_collector: self.settings.programs.major < 15,
        };
        Sandboxed::start(
            &specification,
            self.settings.own_binary.as_deref(),
            &place.output(),
            cancel,
        )
        .await
    }

    pub(super) async fn start(
        &mut self,
        phase: Phase,
        private_shared_memory: bool,
        cancel: &CancellationToken,
    ) -> Result<(), ScratchError> {
        let text = settings::file(&self.settings, phase, private_shared_memory);
        self.place().write_settings(&text, self.identity.as_ref())?;
        let server = self.launch("postgres", self.server_arguments(), cancel).await?;
        let process = server.process();
        self.isolation.layers = server.answer.layers.clone();
        self.isolation.missing = server.answer.missing.clone();
        self.server = Some(server);
        let place = self.place_mut();
        place.owner.server = process;
        place.write_owner()?;
        self.wait_until_it_answers(cancel).await
    }

    fn server_arguments(&self) -> Vec<String> {
        let place = self.place();
        let mut arguments = vec!["-D".to_owned(), place.data().display().to_string()];
        let file = (
            "config_file".to_owned(),
            place.settings_file().display().to_string(),
        );
        let places = Places {
            socket_directory: &place.run(),
            logs: &place.logs(),
        };
        for (name, value) in std::iter::once(file).chain(settings::fixed(&self.settings, &places)) {
            arguments.extend(["-c".to_owned(), format!("{name}={value}")]);
        }
        arguments
    }

    async fn wait_until_it_answers(&mut self, cancel: &CancellationToken) -> Result<(), ScratchError> {
        let until = Instant::now() + START_DEADLINE;
        loop {
            if let Ok(client) = self.connect().await {
                let row = client.query_one("show server_version", &[]).await;
                self.server_version = row
                    .map_err(|source| self.query_failed("ask for the version", source))?
                    .get(0);
                return Ok(());
            }
            if let Some(server) = &mut self.server
                && let Some(status) = server.exited()
            {
                return Err(self.ended("postgres", status));
            }
            if Instant::now() > until {
                return Err(self.too_slow("postgres", START_DEADLINE));
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = cancel.cancelled() => return Err(ScratchError::Cancelled),
            }
        }
    }

    pub(super) async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.connection("postgres").connect(NoTls).await?;
        // Ends with the client.
        tokio::spawn(connection);
        Ok(client)
    }

    /// A clean stop by the child's handle.
    pub(super) async fn stop(
        &mut self,
        deadline: Duration,
        cancel: &CancellationToken,
    ) -> Result<(), ScratchError> {
        let Some(mut server) = self.server.take() else {
            return Ok(());
        };
        server.signal(Signal::SIGINT);
        let status = tokio::select! {
            status = server.wait(deadline) => status,
            () = cancel.cancelled() => return Err(ScratchError::Cancelled),
        };
        match status {
            Some(0) => Ok(()),
            Some(status) => Err(self.ended(server.name(), status)),
            None => Err(self.too_slow(server.name(), deadline)),
        }
    }

    pub(super) fn start_command(&self) -> String {
        let place = self.place();
        let quote = |text: String| format!("'{}'", text.replace('\'', "'\\''"));
        let program = quote(self.settings.programs.program("postgres").display().to_string());
        let (data, socket) = (quote(place.data().display().to_string()), place.run());
        let file = quote(format!("config_file={}", place.settings_file().display()));
        let socket = quote(format!("unix_socket_directories={}", socket.display()));
        let server = format!("{program} -D {data} -c {file} -c listen_addresses= -c {socket}");
        match &self.identity {
            Some(identity) => format!("runuser -u {} -- {server}", identity.name),
            None => server,
        }
    }

    fn ended(&self, program: &str, status: i32) -> ScratchError {
        let place = self.place();
        let log = server_log::quote(&place.output(), &place.run());
        let advice = error::advice(&log, &place.directory);
        ScratchError::Ended {
            program: program.to_owned(),
            status,
            log,
            advice,
        }
    }

    fn too_slow(&self, program: &str, deadline: Duration) -> ScratchError {
        let place = self.place();
        let log = server_log::quote(&place.output(), &place.run());
        let advice = error::advice(&log, &place.directory);
        ScratchError::TooSlow {
            program: program.to_owned(),
            seconds: deadline.as_secs(),
            log,
            advice,
        }
    }

    pub(super) fn query_failed(&self, action: &'static str, source: tokio_postgres::Error) -> ScratchError {
        ScratchError::Query {
            action,
            log: self.log_directory(),
            source,
        }
    }
}
