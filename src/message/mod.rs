//! What do these octets say?

pub mod framing;
pub mod presentation;
#[cfg(test)]
mod test_messages;
mod wire;

pub use wire::{
    Answer, Asked, Edns, ExtendedError, Fault, Form, HEADER, KeptAnswer, Key, LONGEST,
    LONGEST_NAME, PAYLOAD_SIZE, PLAIN_SIZE, Query, Record, Section, Shown, Spelled, Ttls, answers,
    ede, rcode, response_code, rtype, write_query,
};
