//! How is a query written?

use super::codes::{HEADER_LEN, option};
use super::edns::{EDNS_OPTION_HEADER_LEN, OPT_FIXED_LEN, write_opt, write_option};
use super::octets::{length_since, overwrite, slice_at, u16_at};
use super::query::Query;

/// Queries over TLS are padded to a multiple of this (RFC 8467 section 4.1).
const PADDING_BLOCK: usize = 128;

impl Query<'_> {
    /// Octets of the query as [`Query::write_for_resolver`] writes it.
    pub fn length_for_resolver(&self) -> usize {
        let subnet = if self.edns().is_some_and(|edns| edns.subnet_private) {
            EDNS_OPTION_HEADER_LEN.saturating_add(4)
        } else {
            0
        };
        // Keepalive and padding have nothing but their heads before that is filled up.
        let fixed = HEADER_LEN + OPT_FIXED_LEN + 2 * EDNS_OPTION_HEADER_LEN;
        let unpadded = fixed
            .saturating_add(subnet)
            .saturating_add(self.question().len());
        unpadded.next_multiple_of(PADDING_BLOCK)
    }

    /// Appends the query as the resolver shall see it: ID 0, the flags RD and CD, the question, and an OPT of our own that
    /// keeps DO and pads the message to a multiple of 128 octets (RFC 6891 section 6.1.1 and RFC 8467 section 4.1).
    ///
    /// AD is always set: it asks to be told whether the answer is authentic (RFC 6840 section 5.7), for whoever of those
    /// that share the answer wants to know.
    ///
    /// It asks how long the resolver keeps an idle session (RFC 7828 section 3.2.1). None of the client's options goes
    /// along, but for its wish to have its address told to nobody.
    pub fn write_for_resolver(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let [high, low] = self.flags();
        out.extend_from_slice(&[
            0,
            0,
            high & 0x01,
            0x20 | (low & 0x10),
            0,
            1,
            0,
            0,
            0,
            0,
            0,
            1,
        ]);
        out.extend_from_slice(self.question());
        let dnssec_ok = self.edns().is_some_and(|edns| edns.dnssec_ok);
        write_opt(out, 0, dnssec_ok, |out| {
            if self.edns().is_some_and(|edns| edns.subnet_private) {
                // FAMILY 1, no bits of source, no scope.
                write_option(out, option::CLIENT_SUBNET, &[0, 1, 0, 0]);
            }
            write_option(out, option::KEEPALIVE, &[]);
            let unpadded = length_since(out, start).saturating_add(EDNS_OPTION_HEADER_LEN);
            let padding = unpadded
                .next_multiple_of(PADDING_BLOCK)
                .saturating_sub(unpadded);
            write_option(
                out,
                option::PADDING,
                slice_at(&[0; PADDING_BLOCK], 0..padding),
            );
        });
    }
}

/// What a query carries besides its question. The later ones are for resolvers that do not know EDNS, or not all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// An OPT record with padding (RFC 7830, RFC 8467).
    Padded,
    /// An OPT record without padding.
    Unpadded,
    /// No OPT record (RFC 6891 section 7).
    Plain,
}

impl Form {
    /// The one that asks less of the resolver, if there is one.
    pub fn lesser(self) -> Option<Self> {
        match self {
            Self::Padded => Some(Self::Unpadded),
            Self::Unpadded => Some(Self::Plain),
            Self::Plain => None,
        }
    }

    /// Appends a query that [`Query::write_for_resolver`] wrote, in this form; its question has so many octets.
    pub fn write(self, message: &[u8], question: usize, out: &mut Vec<u8>) {
        let start = out.len();
        let opt = HEADER_LEN.saturating_add(question);
        match self {
            Self::Padded => out.extend_from_slice(message),
            Self::Unpadded => {
                let end = padding_start(message, opt);
                out.extend_from_slice(slice_at(message, 0..end));
                let data = opt.saturating_add(OPT_FIXED_LEN);
                let length = end.saturating_sub(data) as u16;
                overwrite(
                    out,
                    start.saturating_add(data).saturating_sub(2),
                    &length.to_be_bytes(),
                );
            }
            Self::Plain => {
                out.extend_from_slice(slice_at(message, 0..opt));
                // ARCOUNT.
                overwrite(
                    out,
                    start.saturating_add(HEADER_LEN).saturating_sub(2),
                    &[0, 0],
                );
            }
        }
    }
}

/// Where the padding option begins in a query of ours, whose OPT begins at `opt`: it is the last.
fn padding_start(message: &[u8], opt: usize) -> usize {
    let mut at = opt.saturating_add(OPT_FIXED_LEN);
    while let (Ok(code), Ok(length)) = (u16_at(message, at), u16_at(message, at.saturating_add(2)))
    {
        if code == option::PADDING {
            return at;
        }
        at = at
            .saturating_add(EDNS_OPTION_HEADER_LEN)
            .saturating_add(usize::from(length));
    }
    message.len()
}

/// Appends a query of our own for `question`, as a client of a forwarder asks: with RD, with AD, since it wants to know
/// whether the answer is authentic (RFC 6840 section 5.7), and with an OPT for the sake of size and errors.
pub fn write_query(out: &mut Vec<u8>, id: u16, question: &[u8]) {
    let [id_high, id_low] = id.to_be_bytes();
    out.extend_from_slice(&[id_high, id_low, 0x01, 0x20, 0, 1, 0, 0, 0, 0, 0, 1]);
    out.extend_from_slice(question);
    write_opt(out, 0, false, |_| {});
}

#[cfg(test)]
mod tests {
    use crate::message::codes::{HEADER_LEN, option};
    use crate::message::query::Query;
    use crate::message::test_messages::{
        ADDITIONAL, Draft, UNKNOWN, ask, name, option, our_opt, question, sent_to_resolver,
    };

    #[test]
    fn a_query_is_padded_to_a_multiple_of_128_octets_whatever_its_name() {
        let name_of = |length: usize| {
            let (mut left, mut name) = (length - 1, Vec::new());
            while left > 0 {
                let taken = if left == 65 { 63 } else { left.min(64) };
                name.extend_from_slice(&[taken as u8 - 1]);
                name.resize(name.len() + taken - 1, b'x');
                left -= taken;
            }
            [name, vec![0]].concat()
        };
        // No name has two octets.
        for length in [1].into_iter().chain(3..=255) {
            let question = ask(name_of(length), 65_281);
            let plain = Draft::query(&question);
            let private = plain
                .clone()
                .opt_saying([0, 0, 0x80, 0], &option(8, &[0, 1, 0, 0]));
            for (query, flags, others) in [
                (plain, 0, &[0, 11, 0, 0][..]),
                (private, 0x80, &[0, 8, 0, 4, 0, 1, 0, 0, 0, 11, 0, 0]),
            ] {
                let sent = sent_to_resolver(&query);
                assert_eq!(sent.len() % 128, 0, "{length}");
                let unpadded = HEADER_LEN + question.len() + 11 + others.len() + 4;
                let zeros = vec![0; sent.len() - unpadded];
                assert!(zeros.len() < 128, "{length}");
                let options = [others, &option(option::PADDING, &zeros)].concat();
                let head = [0, 0, 0x01, 0x20, 0, 1, 0, 0, 0, 0, 0, 1];
                let opt = our_opt(0, flags, &options);
                assert_eq!(sent, [&head, &question[..], &opt].concat(), "{length}");
            }
        }
    }

    #[test]
    fn of_a_query_only_question_rd_cd_and_do_go_to_the_resolver_and_ad_always() {
        let key = name("key");
        for (flags, kept) in [
            ([0, 0], [0, 0x20]),
            ([0x07, 0xff], [0x01, 0x30]),
            ([0x01, 0x10], [0x01, 0x30]),
            ([0x00, 0x20], [0x00, 0x20]),
        ] {
            let query = Draft::new(flags, &question()).record(ADDITIONAL, &key, UNKNOWN, b"x");
            let sent = sent_to_resolver(&query);
            assert_eq!(sent[..4], [0, 0, kept[0], kept[1]]);
            let sent = Query::parse(&sent).unwrap();
            assert_eq!(sent.question(), question());
            assert!(!sent.edns().unwrap().dnssec_ok);
        }
        let cookie = option(10, b"cookie..");
        let subnet = option(8, &[0, 1, 24, 0, 192, 0, 2]);
        let nsid = option(3, b"");
        let padding = option(12, &[1; 300]);
        let options = [cookie, subnet, nsid, padding].concat();
        let all = Draft::query(&question()).opt_saying([9, 9, 0xff, 0xff], &options);
        let none = Draft::query(&question()).opt_saying([0, 0, 0x80, 0], &[]);
        assert_eq!(sent_to_resolver(&all), sent_to_resolver(&none));
    }

    #[test]
    fn the_wish_for_no_client_subnet_goes_to_the_resolver() {
        for (value, private) in [
            (&[0, 1, 0, 0][..], true),
            (&[0, 2, 0, 0], true),
            (&[0, 0, 0, 0], true),
            (&[0, 1, 24, 0, 192, 0, 2], false),
            (&[0, 1, 1, 0], false),
            (&[0, 1, 0, 0, 0], false),
            (&[0, 1, 0], false),
            (&[], false),
        ] {
            let options = [option(8, value), option(65_001, &[0; 4])].concat();
            let query = Draft::query(&question()).opt(&options);
            let sent = sent_to_resolver(&query);
            let edns = *Query::parse(&sent).unwrap().edns().unwrap();
            assert_eq!(edns.subnet_private, private, "{value:?}");
            // FAMILY 1, SOURCE 0, SCOPE 0, no address: nothing of the client's own octets.
            let subnet = sent[12 + question().len() + 11..].starts_with(&[0, 8, 0, 4, 0, 1, 0, 0]);
            assert_eq!(subnet, private, "{value:?}");
        }
    }
}
