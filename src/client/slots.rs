//! Which places are taken, and by whom?
//!
//! There are so many places, and whoever has one gives it back by dropping its [`Slot`].

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Places for holders of this type.
#[derive(Debug)]
pub(super) struct Slots<H> {
    most: usize,
    places: Mutex<Places<H>>,
    freed: Condvar,
}

#[derive(Debug)]
struct Places<H> {
    /// By number: who has it, once that is known.
    taken: HashMap<u64, Weak<H>>,
    next: u64,
    closed: bool,
}

/// One of the places, given back when dropped.
#[derive(Debug)]
pub struct Slot<H> {
    slots: Arc<Slots<H>>,
    number: u64,
}

impl<H> Slots<H> {
    /// So many places, all free.
    pub(super) fn new(most: usize) -> Arc<Self> {
        let places = Places {
            taken: HashMap::new(),
            next: 0,
            closed: false,
        };
        Arc::new(Self {
            most,
            places: Mutex::new(places),
            freed: Condvar::new(),
        })
    }

    /// Takes a free place, if there is one. None, too, once [`Slots::close`] was called.
    pub(super) fn take_now(self: &Arc<Self>) -> Option<Slot<H>> {
        let mut places = self.places.lock();
        if places.closed || places.taken.len() >= self.most {
            return None;
        }
        let number = places.next;
        places.next = number.wrapping_add(1);
        places.taken.insert(number, Weak::new());
        let slots = Arc::clone(self);
        Some(Slot { slots, number })
    }

    /// Waits until a place is given back, for so long at most. Not where one is free, or none is given any more.
    pub(super) fn wait_for_one(&self, wait: Duration) {
        let mut places = self.places.lock();
        if places.taken.len() >= self.most && !places.closed {
            self.freed.wait_for(&mut places, wait);
        }
    }

    /// Those that have places. Not to be dropped under a lock: the last to let go gives the place back.
    pub(super) fn holders(&self) -> Vec<Arc<H>> {
        let places = self.places.lock();
        places.taken.values().filter_map(Weak::upgrade).collect()
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.places.lock().taken.len()
    }

    /// How many there are.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Gives none any more.
    pub(super) fn close(&self) {
        self.places.lock().closed = true;
        self.freed.notify_all();
    }

    /// Whether none is given any more.
    pub(super) fn is_closed(&self) -> bool {
        self.places.lock().closed
    }
}

impl<H> Slot<H> {
    /// Says who has it.
    pub(super) fn belongs_to(&self, holder: &Weak<H>) {
        let mut places = self.slots.places.lock();
        places.taken.insert(self.number, Weak::clone(holder));
    }
}

impl<H> Drop for Slot<H> {
    fn drop(&mut self) {
        self.slots.places.lock().taken.remove(&self.number);
        self.slots.freed.notify_all();
    }
}
