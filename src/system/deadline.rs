//! How long may this still take?
//!
//! A timeout per read is not a deadline: a peer that sends an octet now and then would never reach it. A [`DeadlineStream`] has
//! one deadline, and shortens the timeouts of its socket as the deadline approaches.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::system::clock;

/// The time until `deadline`, or the error `TimedOut` if it has passed.
pub fn time_left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(clock::now()) {
        Duration::ZERO => Err(ErrorKind::TimedOut.into()),
        remaining => Ok(remaining),
    }
}

/// A blocking socket whose reads and writes all fail with `TimedOut` at one deadline.
#[derive(Debug)]
pub struct DeadlineStream<'s> {
    socket: &'s TcpStream,
    deadline: Instant,
}

impl<'s> DeadlineStream<'s> {
    /// Wraps `socket` until `deadline`.
    pub fn new(socket: &'s TcpStream, deadline: Instant) -> Self {
        Self { socket, deadline }
    }

    /// Removes the timeouts from the socket.
    pub fn finish(self) -> io::Result<()> {
        self.socket.set_read_timeout(None)?;
        self.socket.set_write_timeout(None)
    }
}

impl Read for DeadlineStream<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.socket
            .set_read_timeout(Some(time_left(self.deadline)?))?;
        self.socket.read(into).map_err(named_timeout)
    }
}

impl Write for DeadlineStream<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.socket
            .set_write_timeout(Some(time_left(self.deadline)?))?;
        self.socket.write(octets).map_err(named_timeout)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Linux reports a socket timeout as EAGAIN.
fn named_timeout(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::WouldBlock {
        ErrorKind::TimedOut.into()
    } else {
        error
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let near =
            TcpStream::connect(listener.local_addr().expect("its address")).expect("connects");
        (near, listener.accept().expect("accepts").0)
    }

    #[test]
    fn a_peer_that_dribbles_does_not_move_the_deadline() {
        let (near, mut far) = pair();
        let deadline = Instant::now() + Duration::from_millis(200);
        let dribble = thread::spawn(move || {
            while far.write_all(&[0]).is_ok() {
                thread::sleep(Duration::from_millis(5));
            }
        });
        let mut stream = DeadlineStream::new(&near, deadline);
        let error = io::copy(&mut stream, &mut io::sink()).expect_err("the deadline");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(Instant::now() >= deadline);
        drop(near);
        dribble.join().expect("the dribbler ends with the socket");
    }

    #[test]
    fn a_silent_peer_times_out_and_an_active_one_is_read() {
        let (near, mut far) = pair();
        far.write_all(b"abc").expect("writes");
        let mut stream = DeadlineStream::new(&near, Instant::now() + Duration::from_millis(50));
        let mut octets = [0; 3];
        stream
            .read_exact(&mut octets)
            .expect("what was sent in time");
        assert_eq!(
            stream.read(&mut octets).expect_err("silence").kind(),
            ErrorKind::TimedOut
        );
        stream.finish().expect("timeouts come off");
        assert_eq!(near.read_timeout().expect("readable"), None);
    }
}
