//! What does a pool thread do with a job?
//!
//! It reads one TCP client's queries until that closes, or it runs an attempt to connect to a resolver. Threads start when
//! a job finds none free, and end when they were idle for a while.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;

use crate::client::connection::Connection;
use crate::forward::forwarder::Forwarder;
use crate::message::framing::Frames;
use crate::server::reader::Reader;
use crate::system::executor::{self, Executor};
use crate::system::thread::{self, Pulse};
use crate::telemetry::log::warn;
use crate::upstream::MAX_CONNECT_ATTEMPTS;

/// Threads that stay though nothing is to be done.
const KEPT: usize = 2;
/// How long the others wait for a job.
const LINGER: Duration = Duration::from_secs(10);

/// What there is to do.
pub enum Job {
    /// Read this client's queries, the first of which may have begun to arrive.
    Client(Connection, Frames),
    /// Something else that may take long: connect to a resolver.
    Other(executor::Job),
}

/// The workers, as many as there is work, never more than the clients' places and a reserve.
pub struct Pool {
    reader: Reader,
    jobs: Receiver<Job>,
    most: usize,
    state: Mutex<State>,
}

struct State {
    /// None once the pool has been told to stop.
    jobs: Option<Sender<Job>>,
    threads: usize,
    /// Jobs that were taken on and have not ended. Each holds a thread all its life, so there must be as many.
    unfinished: usize,
}

impl Pool {
    /// A pool for so many clients at a time.
    pub fn new(forwarder: Arc<Forwarder>, clients: usize) -> Arc<Self> {
        let most = clients + MAX_CONNECT_ATTEMPTS;
        // Room for every job, and for as many that have given their place back and not quite ended.
        let (sender, jobs) = bounded(2 * most);
        let state = State {
            jobs: Some(sender),
            threads: 0,
            unfinished: 0,
        };
        Arc::new(Self {
            reader: Reader::new(forwarder),
            jobs,
            most,
            state: Mutex::new(state),
        })
    }

    /// Has a thread do `job`. One that finds none ends: a client's connection closes, an attempt fails.
    pub fn submit(self: &Arc<Self>, job: Job) {
        let mut state = self.state.lock();
        // With all threads there may be, one of them is about to end its job: places are fewer than threads.
        let wanted = state.unfinished >= state.threads && state.threads < self.most;
        if wanted {
            let pool = Arc::clone(self);
            if let Err(cause) = thread::spawn("worker", move || pool.work()) {
                drop(state);
                if let Job::Client(connection, _) = &job {
                    connection.stream().close_without_thread();
                }
                return warn!("event=no-thread for=worker cause=\"{cause}\"");
            }
            state.threads += 1;
        }
        if let Some(jobs) = &state.jobs
            && jobs.try_send(job).is_ok()
        {
            state.unfinished += 1;
        }
    }

    /// Takes no more queries. Connections close with the answers that are still due.
    pub fn refuse_queries(&self) {
        self.reader.stop();
    }

    /// Takes on no more jobs. Threads end when they have finished theirs.
    pub fn stop(&self) {
        self.state.lock().jobs = None;
    }

    fn work(self: &Arc<Self>) {
        let pulse = Pulse::new("worker");
        loop {
            match self.jobs.recv_timeout(LINGER) {
                Ok(job) => {
                    thread::guard("worker", || self.run(job, &pulse));
                    pulse.waits();
                    self.state.lock().unfinished -= 1;
                }
                Err(RecvTimeoutError::Timeout) => {
                    let mut state = self.state.lock();
                    if state.threads > state.unfinished.max(KEPT) {
                        state.threads -= 1;
                        return;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn run(self: &Arc<Self>, job: Job, pulse: &Pulse) {
        match job {
            Job::Client(connection, frames) => self.reader.read_queries(&connection, frames, pulse),
            Job::Other(job) => job(),
        }
    }
}

impl Executor for Pool {
    fn execute(self: Arc<Self>, job: executor::Job) {
        self.submit(Job::Other(job));
    }
}
