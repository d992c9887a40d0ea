//! What does a worker thread do?
//!
//! A worker reads the queries of one TCP client until the connection closes, or it connects to a resolver. Threads start when a job finds
//! none free, and end after they have been idle for a while.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;

use crate::client::connection::Connection;
use crate::forward::forwarder::Forwarder;
use crate::forward::routes::MAX_UPSTREAMS;
use crate::message::framing::FrameBuffer;
use crate::server::reader::ClientReader;
use crate::system::executor::{self, Executor};
use crate::system::thread::{self, Heartbeat};
use crate::telemetry::log::warn;
use crate::upstream::MAX_CONNECT_ATTEMPTS;

/// Threads that stay when there are no jobs.
const MIN_THREADS: usize = 2;
/// How long the other threads wait for a job before they end.
const IDLE_THREAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A job for a worker thread.
pub enum Job {
    /// Read the queries of this connection, of which the frames hold what was read already.
    Client(Connection, FrameBuffer),
    /// Connect to a resolver.
    Connect(executor::Job),
}

/// A pool of worker threads: one for each job, up to the limit of clients plus the limits of connection attempts of all upstreams.
///
/// The lock of `state` guards the sender of jobs and the counts. It is held while a job is submitted and a thread starts, but not while
/// a job runs.
pub struct WorkerPool {
    reader: ClientReader,
    jobs: Receiver<Job>,
    max_threads: usize,
    state: Mutex<PoolState>,
}

struct PoolState {
    /// None once the pool is stopped.
    jobs: Option<Sender<Job>>,
    /// Threads that run.
    threads: usize,
    /// Jobs that were submitted and have not ended. Each occupies a thread until it ends, so there must be as many threads.
    active_jobs: usize,
}

impl WorkerPool {
    /// Creates a pool for at most `max_clients` TCP clients at a time. Starts no thread yet.
    pub fn new(forwarder: Arc<Forwarder>, max_clients: usize) -> Arc<Self> {
        // A reload may add the upstreams of routes.
        let max_threads = max_clients + MAX_CONNECT_ATTEMPTS * (1 + MAX_UPSTREAMS);
        // Room for every job, and for as many that have released their slots and have not quite ended.
        let (sender, jobs) = bounded(2 * max_threads);
        let state = PoolState {
            jobs: Some(sender),
            threads: 0,
            active_jobs: 0,
        };
        Arc::new(Self {
            reader: ClientReader::new(forwarder),
            jobs,
            max_threads,
            state: Mutex::new(state),
        })
    }

    /// Has a worker run `job`. If there is no thread for it or the pool is stopped, the job is dropped: the client's connection is closed,
    /// or the attempt to connect fails.
    pub fn submit(self: &Arc<Self>, job: Job) {
        let mut state = self.state.lock();
        // At the limit, one of the threads is about to end its job, since there are fewer slots than threads.
        let needs_thread = state.active_jobs >= state.threads && state.threads < self.max_threads;
        if needs_thread {
            let pool = Arc::clone(self);
            if let Err(cause) = thread::spawn("worker", move || pool.work()) {
                drop(state);
                if let Job::Client(connection, _) = &job {
                    connection.stream().close_without_thread();
                }
                return warn!("event=thread-start-failed for=worker cause=\"{cause}\"");
            }
            state.threads += 1;
        }
        if let Some(jobs) = &state.jobs
            && jobs.try_send(job).is_ok()
        {
            state.active_jobs += 1;
        }
    }

    /// Stops reading queries. Connections close after the answers to their queries in flight.
    pub fn stop_reading(&self) {
        self.reader.stop();
    }

    /// Accepts no more jobs. Each thread ends after its job.
    pub fn stop(&self) {
        self.state.lock().jobs = None;
    }

    /// Runs jobs until the thread has been idle for [`IDLE_THREAD_TIMEOUT`] and is not needed, or the pool is stopped.
    fn work(self: &Arc<Self>) {
        let heartbeat = Heartbeat::new("worker");
        loop {
            match self.jobs.recv_timeout(IDLE_THREAD_TIMEOUT) {
                Ok(job) => {
                    thread::catch_panic("worker", || self.run(job, &heartbeat));
                    heartbeat.set_idle();
                    self.state.lock().active_jobs -= 1;
                }
                Err(RecvTimeoutError::Timeout) => {
                    let mut state = self.state.lock();
                    if state.threads > state.active_jobs.max(MIN_THREADS) {
                        state.threads -= 1;
                        return;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn run(self: &Arc<Self>, job: Job, heartbeat: &Heartbeat) {
        match job {
            Job::Client(connection, frames) => {
                self.reader.read_queries(&connection, frames, heartbeat)
            }
            Job::Connect(job) => job(),
        }
    }
}

impl Executor for WorkerPool {
    fn execute(self: Arc<Self>, job: executor::Job) {
        self.submit(Job::Connect(job));
    }
}
