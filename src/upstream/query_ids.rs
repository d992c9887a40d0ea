//! Which ID does a query get?

use ring::rand::{SecureRandom, SystemRandom};

/// Random message IDs that nobody outside can predict (RFC 5452 section 9.2), drawn many at a time.
#[derive(Debug)]
pub struct QueryIds {
    source: SystemRandom,
    octets: [u8; 512],
    used: usize,
}

impl Default for QueryIds {
    fn default() -> Self {
        Self {
            source: SystemRandom::new(),
            octets: [0; 512],
            used: 512,
        }
    }
}

impl QueryIds {
    /// Returns the next random ID.
    pub fn next_id(&mut self) -> u16 {
        if self.used == self.octets.len() {
            self.source
                .fill(&mut self.octets)
                .expect("Linux has a random number generator, and it does not fail");
            self.used = 0;
        }
        let id = u16::from_be_bytes([self.octets[self.used], self.octets[self.used + 1]]);
        self.used += 2;
        id
    }
}
