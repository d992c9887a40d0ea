//! What happens when an answer arrives?
//!
//! The part of the pool's rules about messages that arrive: which of them go out to clients, and for which of them a better one is sought.

use std::time::{Duration, Instant};

use super::actions::{Actions, AnsweredQuery, Event, Reply, ReplyKind};
use super::address_record::FailureKind;
use super::pool::Pool;
use super::session_end::AnswerSource;
use super::table::{Key, PoolQuery, Queue, SessionId, Transmission};
use crate::message::QueryForm;

impl<Q: PoolQuery> Pool<Q> {
    /// Event: data arrived on a session, and completed `replies`, if any. `matches` tells whether the message at an index answers a query.
    pub fn replies_received(
        &mut self,
        session: SessionId,
        replies: &[Reply],
        matches: impl Fn(usize, &Q) -> bool,
        now: Instant,
        actions: &mut Actions<Q>,
    ) {
        let Some(session_index) = self.position(session) else {
            return;
        };
        if replies.is_empty() {
            // Only part of a message has arrived.
            self.sessions[session_index].mark_received(now);
        }
        for (index, reply) in replies.iter().enumerate() {
            // An earlier reply may have closed this session.
            let Some(session_index) = self.position(session) else {
                break;
            };
            let receiver = &mut self.sessions[session_index];
            let key = receiver.pending.get(&reply.id).copied();
            let entry = key.and_then(|key| self.queries.get_mut(key));
            let entry = entry.filter(|entry| matches(index, &entry.query));
            let (Some(key), Some(entry)) = (key, entry) else {
                actions.events.push(Event::UnmatchedReply(session));
                continue;
            };
            receiver.mark_received(now);
            receiver.is_doubtful = false;
            receiver.pending.remove(&reply.id);
            let Some(at) = entry
                .transmissions
                .iter()
                .position(|transmission| transmission.session == session)
            else {
                continue;
            };
            let transmission = entry.transmissions.remove(at);
            let took = now.saturating_duration_since(transmission.sent_at);
            receiver.record_answer(took);
            let (rank, answered) = (receiver.rank, receiver.answered);
            let name = entry.query.name_hash();
            self.addresses[rank].record_answer_count(answered);
            self.record_reply(rank, reply.kind, name, took, now);
            self.complete_or_continue(
                session_index,
                key,
                (index, reply.kind),
                transmission,
                now,
                actions,
            );
        }
        self.reschedule(now, actions);
    }

    /// Records an answer for monitoring.
    fn record_reply(
        &mut self,
        rank: usize,
        kind: ReplyKind,
        name: u16,
        took: Duration,
        now: Instant,
    ) {
        let record = &mut self.addresses[rank].record;
        match kind {
            ReplyKind::ServerFailure => {
                record.record_lost_query(FailureKind::ServerFailure, name, now);
            }
            _ => record.record_answer(took, now),
        }
    }

    /// Completes a query with the answer that came, unless the query goes on.
    fn complete_or_continue(
        &mut self,
        session_index: usize,
        key: Key,
        (index, kind): (usize, ReplyKind),
        transmission: Transmission,
        now: Instant,
        actions: &mut Actions<Q>,
    ) {
        if self.must_continue(
            session_index,
            key,
            (index, kind),
            transmission.form,
            now,
            actions,
        ) {
            return;
        }
        let rank = self.sessions[session_index].rank;
        if matches!(kind, ReplyKind::ServerFailure | ReplyKind::FinalError) {
            self.forgive_name(key, rank);
        }
        let is_outage = kind == ReplyKind::ServerFailure && self.addresses[rank].is_failing();
        let sent_at = transmission.sent_at;
        let Some(entry) =
            self.remove_query(key, Some(AnswerSource { rank, sent_at }), now, actions)
        else {
            return;
        };
        let address = &mut self.addresses[rank];
        if kind == ReplyKind::Success && address.form(now) == transmission.form {
            address.record_form(now);
        } else if kind != ReplyKind::Unsupported
            && entry.form == Some((rank, transmission.form))
            && address.set_form(transmission.form, now)
        {
            actions
                .events
                .push(Event::FormReduced(rank, transmission.form));
        }
        actions.answered.push(AnsweredQuery {
            query: entry.query,
            index,
            took: now.saturating_duration_since(sent_at),
            is_outage,
        });
    }

    /// Records what the kind of an answer says about its address. Returns true if the query goes on: on another session or address, or in
    /// another form.
    fn must_continue(
        &mut self,
        session_index: usize,
        key: Key,
        (index, kind): (usize, ReplyKind),
        form: QueryForm,
        now: Instant,
        actions: &mut Actions<Q>,
    ) -> bool {
        let rank = self.sessions[session_index].rank;
        match kind {
            ReplyKind::Success => {
                let session = &mut self.sessions[session_index];
                if !session.is_shared() {
                    let entry = self.queries.get(key);
                    let groups = entry.map(|entry| entry.query.groups());
                    if entry.is_some_and(|entry| entry.complete_test_at == Some(rank)) {
                        self.addresses[rank].record_test(true, now);
                    }
                    session.cleared_client = groups.map(|groups| groups.client);
                    groups
                        .into_iter()
                        .for_each(|groups| self.culprits.record_good_answer(groups, rank));
                }
                if self.addresses[rank].record_good_answer(now) {
                    actions.events.push(Event::AddressRecovered(rank));
                }
            }
            ReplyKind::ServerFailure => {
                for address in &mut self.addresses {
                    address.hasten_probe(now);
                }
                let Some(entry) = self.queries.get(key) else {
                    return true;
                };
                let name = entry.query.name_hash();
                if self.addresses[rank].record_server_failure(name, now) {
                    actions.events.push(Event::AddressFailing(rank));
                }
                if self.try_other_address(key, rank, now) {
                    if let Some(entry) = self.queries.get_mut(key) {
                        entry.failed.insert(rank);
                        actions.fallbacks.push((entry.query.clone(), index));
                    }
                    return true;
                }
            }
            ReplyKind::Unsupported => return self.try_reduced_form(key, rank, form, now),
            ReplyKind::FinalError => {}
        }
        false
    }

    /// A query ends with a failure from the address of that rank. If other addresses failed the name too, it counts against none of them.
    fn forgive_name(&mut self, key: Key, rank: usize) {
        let Some(entry) = self.queries.get_mut(key) else {
            return;
        };
        entry.failed.insert(rank);
        let (failed, name) = (entry.failed, entry.query.name_hash());
        for (rank, address) in self.addresses.iter_mut().enumerate() {
            if failed.has_several() && failed.contains(rank) {
                address.forgive_name(name);
            }
        }
    }

    /// Sends a query that the address of that rank failed to another address. Returns true if it does, or if the query is still pending or
    /// queued.
    fn try_other_address(&mut self, key: Key, rank: usize, now: Instant) -> bool {
        let Some(entry) = self.queries.get(key) else {
            return false;
        };
        if !entry.transmissions.is_empty() || entry.queue != Queue::None {
            return true;
        }
        let failed = entry.failed;
        if !self.has_alternative(rank, failed, now) || !self.may_send_again(key, now) {
            return false;
        }
        self.enqueue(key, true);
        true
    }

    /// Sends a query again in a reduced form after the resolver rejected its form. Returns true if it does, or if the query is still
    /// pending or queued.
    fn try_reduced_form(&mut self, key: Key, rank: usize, form: QueryForm, now: Instant) -> bool {
        let Some(entry) = self.queries.get(key) else {
            return false;
        };
        let Some(lesser) = form.fallback().filter(|_| !entry.query.is_signed()) else {
            return false;
        };
        if !entry.transmissions.is_empty() || entry.queue != Queue::None {
            return true;
        }
        if !self.may_send_again(key, now) {
            return false;
        }
        if let Some(entry) = self.queries.get_mut(key) {
            entry.form = Some((rank, lesser));
        }
        self.enqueue(key, true);
        true
    }
}
