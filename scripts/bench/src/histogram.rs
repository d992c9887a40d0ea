//! How long things took: counted to within one and a half per cent, in little memory however many there are.

/// Parts into which each power of two is divided.
const PARTS: u64 = 64;

/// Times in nanoseconds.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    most: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; place(u64::MAX) + 1],
            total: 0,
            most: 0,
        }
    }
}

/// Where a time is counted.
fn place(nanos: u64) -> usize {
    let shift = nanos.max(PARTS).ilog2() - PARTS.ilog2();
    let at = u64::from(shift) * PARTS + (nanos >> shift);
    usize::try_from(at).unwrap_or(usize::MAX)
}

/// The shortest time that is counted there.
fn shortest(place: usize) -> u64 {
    let place = u64::try_from(place).unwrap_or(u64::MAX);
    let shift = (place / PARTS).saturating_sub(1);
    (place - shift * PARTS) << shift
}

impl Histogram {
    /// Counts a time.
    pub fn add(&mut self, nanos: u64) {
        self.counts[place(nanos)] += 1;
        self.total += 1;
        self.most = self.most.max(nanos);
    }

    /// The time that so many thousandths of all took at most, in nanoseconds; 0 where there were none.
    #[must_use]
    pub fn quantile(&self, thousandths: u64) -> u64 {
        let rank = (self.total * thousandths).div_ceil(1000).max(1);
        let mut sum = 0;
        for (at, count) in self.counts.iter().enumerate() {
            sum += count;
            if sum >= rank {
                return shortest(at);
            }
        }
        0
    }

    /// The longest.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_counted_close_to_where_it_is() {
        for nanos in (0..200).chain((8..64).map(|power| (1 << power) + (1 << (power - 1)) + 3)) {
            let counted = shortest(place(nanos));
            assert!(counted <= nanos, "{nanos} as {counted}");
            assert!(nanos - counted <= nanos / PARTS, "{nanos} as {counted}");
        }
        assert!(shortest(place(u64::MAX)) > u64::MAX / 2);
    }

    #[test]
    fn quantiles_are_those_of_what_was_counted() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(500), 0);
        (1..=1000).for_each(|micros| histogram.add(micros * 1000));
        for thousandths in [500, 900, 990, 1000] {
            let said = histogram.quantile(thousandths);
            let exact = thousandths * 1000;
            assert!(said <= exact && exact - said <= exact / PARTS + 1, "{said}");
        }
        assert_eq!(histogram.most(), 1_000_000);
    }
}
