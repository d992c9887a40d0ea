//! What was asked and is not answered yet.

use std::collections::VecDeque;

/// Queries without an answer, by their IDs. Which ID a query gets depends on how long it has not been used: an answer that
/// comes after its query was given up meets nobody else's.
#[derive(Debug)]
pub struct Pending {
    slots: Vec<Slot>,
    free: VecDeque<u16>,
    waiting: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    state: State,
    lane: u32,
    number: u64,
    sent: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Free,
    Waiting,
    GivenUp,
}

/// Whom an answer meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// The query for the name of that number, sent at that time.
    Waiting {
        /// The number of the name.
        number: u64,
        /// When it was sent, in nanoseconds.
        sent: u64,
    },
    /// A query that was given up.
    GivenUp,
    /// Nobody asked that there.
    Nobody,
}

impl Pending {
    /// The most queries at a time that leave enough IDs for those that were given up.
    pub const MOST: usize = 16_384;

    /// Room for so many at a time.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let ids = (4 * most).clamp(1024, 65_536);
        Self {
            slots: vec![Slot::default(); ids],
            free: (0..=u16::MAX).take(ids).collect(),
            waiting: 0,
        }
    }

    /// How many wait for their answers.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Enters a query, and says its ID; none is left where too many were given up lately.
    pub fn enter(&mut self, number: u64, lane: u32, now: u64) -> Option<u16> {
        let id = self.free.pop_front()?;
        self.slots[usize::from(id)] = Slot {
            state: State::Waiting,
            lane,
            number,
            sent: now,
        };
        self.waiting += 1;
        Some(id)
    }

    /// An answer with that ID has come by that lane.
    pub fn answered(&mut self, id: u16, lane: u32) -> Met {
        let Some(slot) = self.slots.get_mut(usize::from(id)) else {
            return Met::Nobody;
        };
        let met = match slot.state {
            _ if slot.lane != lane => return Met::Nobody,
            State::Free => return Met::Nobody,
            State::GivenUp => Met::GivenUp,
            State::Waiting => {
                self.waiting -= 1;
                Met::Waiting {
                    number: slot.number,
                    sent: slot.sent,
                }
            }
        };
        slot.state = State::Free;
        self.free.push_back(id);
        met
    }

    /// Gives up what was sent before `oldest`, and says by which lanes. Their IDs rest for as long again.
    pub fn give_up(&mut self, oldest: u64, timeout: u64) -> Vec<u32> {
        let mut lanes = Vec::new();
        for (id, slot) in (0..=u16::MAX).zip(&mut self.slots) {
            match slot.state {
                State::Waiting if slot.sent <= oldest => {
                    slot.state = State::GivenUp;
                    self.waiting -= 1;
                    lanes.push(slot.lane);
                }
                State::GivenUp if slot.sent.saturating_add(timeout) <= oldest => {
                    slot.state = State::Free;
                    self.free.push_back(id);
                }
                _ => {}
            }
        }
        lanes
    }

    /// Gives up all that was sent by that lane, which brings no more answers, and says how many.
    pub fn give_up_lane(&mut self, lane: u32) -> usize {
        let mut count = 0;
        for (id, slot) in (0..=u16::MAX).zip(&mut self.slots) {
            if slot.lane == lane && slot.state != State::Free {
                count += usize::from(slot.state == State::Waiting);
                slot.state = State::Free;
                self.free.push_back(id);
            }
        }
        self.waiting -= count;
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_meets_its_own_query_once() {
        let mut pending = Pending::new(2);
        let id = pending.enter(5, 1, 10).expect("room");
        assert_eq!(pending.answered(id, 0), Met::Nobody);
        let met = Met::Waiting {
            number: 5,
            sent: 10,
        };
        assert_eq!(pending.answered(id, 1), met);
        assert_eq!(pending.answered(id, 1), Met::Nobody);
        assert_eq!(pending.answered(u16::MAX, 1), Met::Nobody);
        assert_eq!(pending.waiting(), 0);
    }

    #[test]
    fn what_is_given_up_rests_before_its_id_is_used_again() {
        let mut pending = Pending::new(1);
        let old = pending.enter(1, 0, 10).expect("room");
        assert!(pending.give_up(9, 100).is_empty());
        assert_eq!(pending.give_up(10, 100), [0]);
        assert_eq!(pending.waiting(), 0);
        for number in 0..5000 {
            let id = pending.enter(number, 0, 20).expect("room");
            assert_ne!(id, old);
            pending.answered(id, 0);
        }
        assert_eq!(pending.answered(old, 0), Met::GivenUp);
        assert_eq!(pending.answered(old, 0), Met::Nobody);
    }

    #[test]
    fn a_lane_that_is_gone_takes_its_queries_with_it() {
        let mut pending = Pending::new(3);
        for lane in [1, 1, 2] {
            pending.enter(0, lane, 0).expect("room");
        }
        assert_eq!(pending.give_up_lane(1), 2);
        assert_eq!(pending.waiting(), 1);
    }
}
