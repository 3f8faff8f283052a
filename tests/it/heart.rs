//! A heart of the library, beating from a test: the daemon's part without the daemon.

use std::time::Duration;

use ernstfall::ops::heartbeat::{Beat, Heart, HeartError, Writer};
use ernstfall::ops::target::{Heartbeat, OnBlockedDdl, SourceCount, Target};
use ernstfall::postgres::conninfo::{ConnectionSettings, Environment};
use ernstfall::scratch::IsolationWanted;
use tokio::runtime::Runtime;

pub(crate) struct Beating {
    runtime: Runtime,
    heart: Heart,
}

impl Beating {
    /// The heartbeat of the target `shop`, written there every second by the installation `here`.
    pub(crate) fn at(url: &str) -> Self {
        Self::of("shop", url, "here", Duration::from_secs(1))
    }

    pub(crate) fn of(name: &str, url: &str, installation: &str, every: Duration) -> Self {
        let writer = Writer {
            installation: installation.to_owned(),
            host: format!("host of {installation}"),
        };
        let heart = Heart::new(&target(name, url, every), writer, chrono::Utc::now);
        Self {
            // Several threads, as the product has: what a connection hears is heard between beats too.
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
            heart: heart.unwrap().expect("a heartbeat"),
        }
    }

    pub(crate) fn within(self, limit: Duration) -> Self {
        Self {
            heart: self.heart.within(limit),
            ..self
        }
    }

    pub(crate) fn try_beat(&mut self) -> Result<Beat, HeartError> {
        self.runtime.block_on(self.heart.beat())
    }

    #[track_caller]
    pub(crate) fn beat(&mut self) -> Beat {
        self.try_beat().unwrap_or_else(|error| panic!("{error}"))
    }

    /// What a beat that is refused says.
    #[track_caller]
    pub(crate) fn refusal(&mut self) -> String {
        self.try_beat().expect_err("no heartbeat").to_string()
    }
}

fn target(name: &str, url: &str, every: Duration) -> Target {
    Target {
        name: name.parse().unwrap(),
        environment: None,
        owner: None,
        connection: ConnectionSettings::resolve(url, &Environment::default()).unwrap(),
        heartbeat: Some(Heartbeat {
            every,
            elsewhere: None,
        }),
        rpo: None,
        rto: None,
        rto_overhead: Vec::new(),
        jobs: 1,
        max_rate: None,
        split: false,
        exclude_data: Vec::new(),
        exclude: Vec::new(),
        may_shrink: Vec::new(),
        retention: None,
        lock_timeout: Duration::from_secs(10),
        max_snapshot_age: Duration::from_secs(3600),
        on_blocked_ddl: OnBlockedDdl::Continue,
        source_count: SourceCount::Never,
        checks: Vec::new(),
        isolation: IsolationWanted::Required,
        neighbours: Vec::new(),
        scratch_directory: "/nowhere".into(),
        scratch_user: None,
        skip_extensions: Vec::new(),
        scratch_server: None,
    }
}
