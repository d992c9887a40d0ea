//! Clients: one that sends datagrams, one that keeps a connection.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use socket2::SockRef;

use super::{Heard, PATIENCE, seed};

pub(crate) struct UdpClient {
    socket: UdpSocket,
    to: SocketAddr,
}

impl UdpClient {
    pub(crate) fn to(to: SocketAddr) -> Self {
        let any = if to.is_ipv4() {
            "127.0.0.1:0"
        } else {
            "[::1]:0"
        };
        Self::from(any.parse().expect("an address"), to)
    }

    /// With an address and port of its own.
    pub(crate) fn from(own: SocketAddr, to: SocketAddr) -> Self {
        let socket = UdpSocket::bind(own).expect("a free port");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        // Room for the answers to all that a test asks before it reads any.
        let room = SockRef::from(&socket).set_recv_buffer_size(4 * 1024 * 1024);
        room.expect("as much as the system allows");
        Self { socket, to }
    }

    pub(crate) fn send(&self, message: &[u8]) {
        seed::keep_query(message);
        self.socket.send_to(message, self.to).expect("sends");
    }

    /// The next datagram; it must come from where the question went.
    pub(crate) fn hear(&self) -> Heard {
        let mut octets = [0; 65_535];
        // A wait with a timeout is not begun again by the system when a signal ends it.
        let (length, from) = loop {
            match self.socket.recv_from(&mut octets) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                heard => break heard.expect("an answer"),
            }
        };
        assert_eq!(
            from, self.to,
            "an answer comes from the address that was asked"
        );
        Heard::read(&octets[..length])
    }

    pub(crate) fn ask(&self, message: &[u8]) -> Heard {
        self.send(message);
        self.hear()
    }

    /// Whether nothing is there to hear. Ask for something afterwards that must be answered, and call this then: what
    /// came before it would be here.
    pub(crate) fn is_silent(&self) -> bool {
        self.socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("a timeout");
        let silent = self.socket.recv_from(&mut [0; 16]).is_err();
        self.socket
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout");
        silent
    }
}

pub(crate) struct TcpClient {
    pub(crate) socket: TcpStream,
}

impl TcpClient {
    pub(crate) fn to(to: SocketAddr) -> Self {
        let socket = TcpStream::connect(to).expect("connects");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self { socket }
    }

    /// Sends messages in one write.
    pub(crate) fn send(&mut self, messages: &[Vec<u8>]) {
        self.socket.write_all(&framed(messages)).expect("sends");
    }

    pub(crate) fn hear(&mut self) -> Heard {
        self.try_hear().expect("an answer")
    }

    pub(crate) fn try_hear(&mut self) -> io::Result<Heard> {
        let mut length = [0; 2];
        self.socket.read_exact(&mut length)?;
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        self.socket.read_exact(&mut message)?;
        Ok(Heard::read(&message))
    }

    pub(crate) fn ask(&mut self, message: &[u8]) -> Heard {
        self.send(&[message.to_vec()]);
        self.hear()
    }

    /// The answer, unless the other side ends the connection before it.
    pub(crate) fn try_ask(&mut self, message: &[u8]) -> io::Result<Heard> {
        self.socket.write_all(&framed(&[message.to_vec()]))?;
        self.try_hear()
    }

    /// Says that nothing more will be asked.
    pub(crate) fn half_close(&self) {
        self.socket.shutdown(Shutdown::Write).expect("shuts down");
    }

    /// Waits for the other side to close.
    pub(crate) fn expect_close(&mut self) {
        assert_eq!(
            self.socket.read(&mut [0; 1]).expect("an orderly close"),
            0,
            "an end, not an octet"
        );
    }
}

pub(crate) fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
    let mut octets = Vec::new();
    for message in messages {
        let length = u16::try_from(message.len()).expect("a message fits");
        octets.extend_from_slice(&length.to_be_bytes());
        octets.extend_from_slice(message);
    }
    octets
}
