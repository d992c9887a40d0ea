//! Which codes and sizes does the DNS protocol define?

/// Length in octets of the header that every message begins with (RFC 1035 section 4.1.1).
pub const HEADER_LEN: usize = 12;
/// Maximum length of a message in octets: the largest value of the two-octet length over TCP (RFC 1035 section 4.2.2).
pub const MAX_MESSAGE_LEN: usize = 65_535;
/// The UDP payload size that dns-tool offers, and the maximum that it sends over UDP, in octets (the DNS flag day 2020 value;
/// RFC 9715 recommends at most 1400).
pub(super) const MAX_UDP_PAYLOAD: u16 = 1232;
/// The UDP payload size of a client without EDNS, and the lowest that one with EDNS can have, in octets (RFC 1035 section 4.2.1,
/// RFC 6891 section 6.2.3).
pub const MIN_UDP_PAYLOAD: u16 = 512;
/// Maximum length of a name in octets, length octets and root label included (RFC 1035 section 2.3.4).
pub const MAX_NAME_LEN: usize = 255;

/// Resource record types that a forwarder has to know.
pub mod rtype {
    /// An IPv4 address (RFC 1035 section 3.4.1).
    pub const A: u16 = 1;
    /// An authoritative name server (RFC 1035 section 3.3.11).
    pub const NS: u16 = 2;
    /// Start of a zone of authority (RFC 1035 section 3.3.13).
    pub const SOA: u16 = 6;
    /// The name of an address (RFC 1035 section 3.3.12).
    pub const PTR: u16 = 12;
    /// SIG; a transaction signature, SIG(0), if the type covered is 0 (RFC 2931).
    pub const SIG: u16 = 24;
    /// An IPv6 address (RFC 3596 section 2.1).
    pub const AAAA: u16 = 28;
    /// The EDNS pseudo-record (RFC 6891).
    pub const OPT: u16 = 41;
    /// The key of a signed zone, in the zone above (RFC 4034 section 5).
    pub const DS: u16 = 43;
    /// A signature over records (RFC 4034 section 3).
    pub const RRSIG: u16 = 46;
    /// Authenticated denial of existence (RFC 4034 section 4).
    pub const NSEC: u16 = 47;
    /// Hashed authenticated denial of existence (RFC 5155 section 3).
    pub const NSEC3: u16 = 50;
    /// A service binding (RFC 9460).
    pub const SVCB: u16 = 64;
    /// A service binding for HTTP (RFC 9460 section 9).
    pub const HTTPS: u16 = 65;
    /// A transaction signature (RFC 8945).
    pub const TSIG: u16 = 250;
    /// An incremental zone transfer (RFC 1995).
    pub const IXFR: u16 = 251;
    /// A zone transfer (RFC 5936).
    pub const AXFR: u16 = 252;
    /// All record types of a name (RFC 8482).
    pub const ANY: u16 = 255;
}

/// Classes that a forwarder has to know (RFC 1035 section 3.2.4).
pub mod class {
    /// The Internet.
    pub const IN: u16 = 1;
}

/// Response codes that a forwarder has to know (RFC 1035 section 4.1.1, RFC 6891 section 9).
pub mod rcode {
    /// No error.
    pub const NOERROR: u16 = 0;
    /// The query cannot be parsed.
    pub const FORMERR: u16 = 1;
    /// The query could not be resolved.
    pub const SERVFAIL: u16 = 2;
    /// The name does not exist.
    pub const NXDOMAIN: u16 = 3;
    /// The opcode is not supported.
    pub const NOTIMP: u16 = 4;
    /// The query is refused for policy reasons.
    pub const REFUSED: u16 = 5;
    /// The EDNS version is not supported.
    pub const BADVERS: u16 = 16;
    /// Codes of servers that do not support EDNS, or not all of it (RFC 6891 section 7).
    pub const OF_UNSUPPORTED_EDNS: [u16; 3] = [FORMERR, NOTIMP, BADVERS];
}

/// Codes of the Extended DNS Errors that dns-tool sends (RFC 8914 section 4).
pub mod ede {
    /// Stale Answer.
    pub const STALE_ANSWER: u16 = 3;
    /// Cached Error.
    pub const CACHED_ERROR: u16 = 13;
    /// Blocked.
    pub const BLOCKED: u16 = 15;
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
    pub(in crate::message) const COOKIE: u16 = 10;
    pub(in crate::message) const KEEPALIVE: u16 = 11;
    pub(in crate::message) const PADDING: u16 = 12;
    pub(in crate::message) const EXTENDED_ERROR: u16 = 15;
    /// Where an answer comes from. Not registered: dns-tool's own, of the range for local and experimental use (RFC 6891 section 9).
    pub(in crate::message) const ANSWER_SOURCE: u16 = 65_353;
}
