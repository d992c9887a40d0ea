//! Which codes and sizes does the protocol define?

/// Octets of the header that every message begins with (RFC 1035 section 4.1.1).
pub const HEADER: usize = 12;
/// Octets of the longest message: what a two-octet length can say (RFC 1035 section 4.2.2).
pub const LONGEST: usize = 65_535;
/// The UDP payload size that we offer, and the most that we send over UDP (the DNS flag day 2020 value; RFC 9715
/// recommends at most 1400).
pub(super) const PAYLOAD_SIZE: u16 = 1232;
/// What a client takes over UDP that says nothing of its size (RFC 1035 section 4.2.1, RFC 6891 section 6.2.3).
pub const PLAIN_SIZE: u16 = 512;
/// The longest name in octets, length octets and root label included (RFC 1035 section 2.3.4).
pub(super) const LONGEST_NAME: usize = 255;

/// Resource record types that a forwarder has to know.
pub mod rtype {
    /// The start of a zone's authority (RFC 1035 section 3.3.13).
    pub const SOA: u16 = 6;
    /// SIG, which signs a whole message when it covers type 0 (RFC 2931).
    pub const SIG: u16 = 24;
    /// The EDNS pseudo-record (RFC 6891).
    pub const OPT: u16 = 41;
    /// A signature over records (RFC 4034 section 3).
    pub const RRSIG: u16 = 46;
    /// What there is not (RFC 4034 section 4).
    pub const NSEC: u16 = 47;
    /// What there is not, hashed (RFC 5155 section 3).
    pub const NSEC3: u16 = 50;
    /// A transaction signature (RFC 8945).
    pub const TSIG: u16 = 250;
    /// An incremental zone transfer (RFC 1995).
    pub const IXFR: u16 = 251;
    /// A zone transfer (RFC 5936).
    pub const AXFR: u16 = 252;
    /// All records of a name (RFC 8482).
    pub const ANY: u16 = 255;
}

/// Response codes that a forwarder has to know (RFC 1035 section 4.1.1, RFC 6891 section 9).
pub mod rcode {
    /// An answer, with records or without.
    pub const NOERROR: u16 = 0;
    /// The query cannot be read.
    pub const FORMERR: u16 = 1;
    /// No answer could be had.
    pub const SERVFAIL: u16 = 2;
    /// There is no such name.
    pub const NXDOMAIN: u16 = 3;
    /// An operation that we do not offer.
    pub const NOTIMP: u16 = 4;
    /// An operation that we will not do.
    pub const REFUSED: u16 = 5;
    /// An EDNS version that we do not speak.
    pub const BADVERS: u16 = 16;
}

/// Extended DNS Errors that we send (RFC 8914 section 4).
pub mod ede {
    /// Stale Answer.
    pub const STALE_ANSWER: u16 = 3;
    /// Cached Error.
    pub const CACHED_ERROR: u16 = 13;
    /// Prohibited.
    pub const PROHIBITED: u16 = 18;
    /// Stale NXDOMAIN Answer.
    pub const STALE_NXDOMAIN: u16 = 19;
    /// Not Supported.
    pub const NOT_SUPPORTED: u16 = 21;
    /// No Reachable Authority.
    pub const NO_REACHABLE_AUTHORITY: u16 = 22;
    /// Network Error.
    pub const NETWORK_ERROR: u16 = 23;
    /// Invalid Data.
    pub const INVALID_DATA: u16 = 24;
}

/// EDNS options that a forwarder has to know (IANA's registry of DNS EDNS0 Option Codes).
pub(super) mod option {
    pub(in crate::message) const CLIENT_SUBNET: u16 = 8;
    pub(in crate::message) const KEEPALIVE: u16 = 11;
    pub(in crate::message) const PADDING: u16 = 12;
    pub(in crate::message) const EXTENDED_ERROR: u16 = 15;
}
