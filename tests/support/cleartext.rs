//! A DNS server of the own network, which speaks cleartext over TCP and does what it is told.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::client::framed;
use super::message;

/// The answer to a query; none if the server stays silent.
type Script = dyn Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync;

/// The server; it ends when dropped.
pub(crate) struct CleartextServer {
    address: SocketAddr,
    queries: Arc<Mutex<Vec<Vec<u8>>>>,
    stopping: Arc<AtomicBool>,
}

impl CleartextServer {
    /// Answers as an honest resolver does.
    pub(crate) fn honest() -> Self {
        Self::with(|query| Some(message::answer(query)))
    }

    /// Answers like this.
    pub(crate) fn with(script: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("its address");
        let script: Arc<Script> = Arc::new(script);
        let (queries, stopping) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (asked, stop) = (Arc::clone(&queries), Arc::clone(&stopping));
        thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (script, asked) = (Arc::clone(&script), Arc::clone(&asked));
                // It ends when the other side goes away.
                thread::spawn(move || serve(socket, &*script, &asked));
            }
        });
        Self {
            address,
            queries,
            stopping,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The queries that arrived, in order.
    pub(crate) fn queries(&self) -> Vec<Vec<u8>> {
        let queries = self.queries.lock();
        queries.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The names that were asked for, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let queries = self.queries();
        queries
            .iter()
            .map(|query| message::name_of(query))
            .collect()
    }
}

impl Drop for CleartextServer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
    }
}

fn serve(mut socket: TcpStream, script: &Script, asked: &Mutex<Vec<Vec<u8>>>) -> io::Result<()> {
    loop {
        let mut length = [0; 2];
        socket.read_exact(&mut length)?;
        let mut query = vec![0; u16::from_be_bytes(length).into()];
        socket.read_exact(&mut query)?;
        asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(query.clone());
        if let Some(answer) = script(&query) {
            socket.write_all(&framed(&[answer]))?;
        }
    }
}
