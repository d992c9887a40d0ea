//! What do these octets say?

mod answer;
mod cached_answer;
mod codes;
mod compression;
mod edns;
mod fault;
pub mod framing;
mod header;
mod key;
mod name;
mod octets;
pub mod presentation;
mod query;
mod query_writing;
mod question;
mod record;
mod response;
#[cfg(test)]
mod test_messages;

pub use answer::{Answer, Ttls, answers, response_code};
pub use cached_answer::KeptAnswer;
pub use codes::{HEADER, LONGEST, PLAIN_SIZE, ede, rcode, rtype};
pub use edns::{Edns, ExtendedError};
pub use fault::Fault;
pub use key::Key;
pub use query::Query;
pub use query_writing::{Form, write_query};
pub use question::Spelled;
pub use record::{Record, Section};
pub use response::{Asked, Shown};
