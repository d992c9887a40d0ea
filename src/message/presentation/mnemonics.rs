//! What are the names of types, classes and response codes?

use std::fmt;
use std::str::FromStr;

use crate::message::codes::class::IN;

/// The types with a name, the most common ones first.
const TYPES: &[(u16, &str)] = &[
    (1, "A"),
    (28, "AAAA"),
    (2, "NS"),
    (5, "CNAME"),
    (6, "SOA"),
    (12, "PTR"),
    (15, "MX"),
    (16, "TXT"),
    (33, "SRV"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (257, "CAA"),
    (43, "DS"),
    (48, "DNSKEY"),
    (52, "TLSA"),
    (35, "NAPTR"),
    (255, "ANY"),
    (13, "HINFO"),
    (14, "MINFO"),
    (17, "RP"),
    (18, "AFSDB"),
    (24, "SIG"),
    (25, "KEY"),
    (29, "LOC"),
    (36, "KX"),
    (37, "CERT"),
    (39, "DNAME"),
    (41, "OPT"),
    (44, "SSHFP"),
    (45, "IPSECKEY"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (49, "DHCID"),
    (50, "NSEC3"),
    (51, "NSEC3PARAM"),
    (53, "SMIMEA"),
    (59, "CDS"),
    (60, "CDNSKEY"),
    (61, "OPENPGPKEY"),
    (62, "CSYNC"),
    (63, "ZONEMD"),
    (99, "SPF"),
    (250, "TSIG"),
    (251, "IXFR"),
    (252, "AXFR"),
    (256, "URI"),
];

/// The response codes with a name (RFC 6895 section 2.3).
const RCODES: &[(u16, &str)] = &[
    (0, "NOERROR"),
    (1, "FORMERR"),
    (2, "SERVFAIL"),
    (3, "NXDOMAIN"),
    (4, "NOTIMP"),
    (5, "REFUSED"),
    (6, "YXDOMAIN"),
    (7, "YXRRSET"),
    (8, "NXRRSET"),
    (9, "NOTAUTH"),
    (10, "NOTZONE"),
    (11, "DSOTYPENI"),
    (16, "BADVERS"),
    (23, "BADCOOKIE"),
];

/// The classes with a name.
const CLASSES: &[(u16, &str)] = &[
    (IN, "IN"),
    (3, "CH"),
    (4, "HS"),
    (254, "NONE"),
    (255, "ANY"),
];

/// Writes the name of a number, or `generic` and the number if it has no name.
fn write_number(
    f: &mut fmt::Formatter<'_>,
    names: &[(u16, &str)],
    generic: &str,
    number: u16,
) -> fmt::Result {
    match names.iter().find(|(known, _)| *known == number) {
        Some((_, name)) => f.write_str(name),
        None => write!(f, "{generic}{number}"),
    }
}

/// A record type, written as `A` or `TYPE65280` (RFC 3597 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Type(
    /// Its number.
    pub u16,
);

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_number(f, TYPES, "TYPE", self.0)
    }
}

/// A text is not a record type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeError;

impl fmt::Display for TypeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected a type such as A, AAAA or TYPE65")
    }
}

impl std::error::Error for TypeError {}

impl FromStr for Type {
    type Err = TypeError;

    fn from_str(text: &str) -> Result<Self, TypeError> {
        let known = TYPES
            .iter()
            .find(|(_, name)| name.eq_ignore_ascii_case(text));
        if let Some((number, _)) = known {
            return Ok(Self(*number));
        }
        let digits = match text.split_at_checked(4) {
            Some((word, digits)) if word.eq_ignore_ascii_case("TYPE") => digits,
            _ => return Err(TypeError),
        };
        if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(TypeError);
        }
        digits.parse().map(Self).map_err(|_| TypeError)
    }
}

/// A response code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rcode(
    /// The number, including the OPT's upper eight bits.
    pub u16,
);

impl fmt::Display for Rcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_number(f, RCODES, "RCODE", self.0)
    }
}

/// A record class.
pub struct Class(
    /// Its number.
    pub u16,
);

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_number(f, CLASSES, "CLASS", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Rcode, Type, TypeError};

    #[test]
    fn a_type_has_a_name_or_a_number() {
        for (text, number) in [
            ("A", 1),
            ("aaaa", 28),
            ("https", 65),
            ("TYPE1", 1),
            ("type65535", 65_535),
            ("TYPE0", 0),
        ] {
            assert_eq!(text.parse(), Ok(Type(number)), "{text}");
        }
        for text in [
            "",
            "B",
            "TYPE",
            "TYPE65536",
            "TYPE+1",
            "TYPE-1",
            "1",
            "TYP€1",
        ] {
            assert_eq!(text.parse::<Type>(), Err(TypeError), "{text}");
        }
        for number in 0..=300 {
            assert_eq!(Type(number).to_string().parse(), Ok(Type(number)));
        }
        assert_eq!(Type(65_280).to_string(), "TYPE65280");
        let (known, unknown) = (Rcode(16).to_string(), Rcode(4095).to_string());
        assert_eq!((&known[..], &unknown[..]), ("BADVERS", "RCODE4095"));
    }
}
