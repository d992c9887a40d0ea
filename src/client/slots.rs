//! Which slots are in use, and by whom?
//!
//! The number of slots is fixed. A [`Slot`] is released when it is dropped.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// A fixed number of slots for holders of type `H`, shared by all threads.
///
/// The lock guards the table of slots that are in use. No other lock is taken while it is held.
#[derive(Debug)]
pub(super) struct Slots<H> {
    capacity: usize,
    table: Mutex<SlotTable<H>>,
    /// Notified when a slot is released, and when the slots are closed.
    freed: Condvar,
}

#[derive(Debug)]
struct SlotTable<H> {
    /// The slots in use, by ID. The holder is empty until [`Slot::set_holder`] is called.
    holders: HashMap<u64, Weak<H>>,
    next_id: u64,
    closed: bool,
}

/// One slot. It is released when dropped, which takes the lock of the table.
#[derive(Debug)]
pub struct Slot<H> {
    slots: Arc<Slots<H>>,
    id: u64,
}

impl<H> Slots<H> {
    /// Creates `capacity` slots, all free.
    pub(super) fn new(capacity: usize) -> Arc<Self> {
        let table = SlotTable {
            holders: HashMap::new(),
            next_id: 0,
            closed: false,
        };
        Arc::new(Self {
            capacity,
            table: Mutex::new(table),
            freed: Condvar::new(),
        })
    }

    /// Takes a free slot. None if all are in use, or once [`Slots::close`] was called.
    pub(super) fn try_acquire(self: &Arc<Self>) -> Option<Slot<H>> {
        let mut table = self.table.lock();
        if table.closed || table.holders.len() >= self.capacity {
            return None;
        }
        let id = table.next_id;
        table.next_id = id.wrapping_add(1);
        table.holders.insert(id, Weak::new());
        let slots = Arc::clone(self);
        Some(Slot { slots, id })
    }

    /// Waits until a slot is released, for at most `timeout`. Returns at once if one is free or the slots are closed.
    pub(super) fn wait_for_free(&self, timeout: Duration) {
        let mut table = self.table.lock();
        if table.holders.len() >= self.capacity && !table.closed {
            self.freed.wait_for(&mut table, timeout);
        }
    }

    /// The holders of the slots in use. Do not drop them under a lock: dropping the last reference to a holder releases its slot.
    pub(super) fn holders(&self) -> Vec<Arc<H>> {
        let table = self.table.lock();
        table.holders.values().filter_map(Weak::upgrade).collect()
    }

    /// The number of slots in use.
    pub(super) fn in_use(&self) -> usize {
        self.table.lock().holders.len()
    }

    /// The number of slots, free or in use.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Hands out no more slots.
    pub(super) fn close(&self) {
        self.table.lock().closed = true;
        self.freed.notify_all();
    }

    /// Returns true once [`Slots::close`] was called.
    pub(super) fn is_closed(&self) -> bool {
        self.table.lock().closed
    }
}

impl<H> Slot<H> {
    /// Records who holds the slot.
    pub(super) fn set_holder(&self, holder: &Weak<H>) {
        let mut table = self.slots.table.lock();
        table.holders.insert(self.id, Weak::clone(holder));
    }
}

impl<H> Drop for Slot<H> {
    fn drop(&mut self) {
        self.slots.table.lock().holders.remove(&self.id);
        self.slots.freed.notify_all();
    }
}
