//! How is a query to a resolver written?

use super::codes::{HEADER_LEN, option};
use super::edns::{EDNS_OPTION_HEADER_LEN, OPT_FIXED_LEN, write_opt, write_option};
use super::octets::{length_since, overwrite, slice_at, u16_at};
use super::query::Query;

/// Queries over TLS are padded to a multiple of this (RFC 8467 section 4.1).
const PADDING_BLOCK: usize = 128;

impl Query<'_> {
    /// The length in octets of the query that [`Query::write_upstream_query`] writes.
    pub fn upstream_query_len(&self) -> usize {
        let subnet = if self.edns().is_some_and(|edns| edns.ecs_opt_out) {
            EDNS_OPTION_HEADER_LEN.saturating_add(4)
        } else {
            0
        };
        // The options keepalive and padding, without the padding itself.
        let fixed = HEADER_LEN + OPT_FIXED_LEN + 2 * EDNS_OPTION_HEADER_LEN;
        let unpadded = fixed
            .saturating_add(subnet)
            .saturating_add(self.question().len());
        unpadded.next_multiple_of(PADDING_BLOCK)
    }

    /// Appends the query for the resolver: ID 0, the client's RD and CD, the question, and a new OPT record with the client's DO,
    /// padded to a multiple of 128 octets (RFC 6891 section 6.1.1 and RFC 8467 section 4.1).
    ///
    /// AD is always set, so that the answer tells whether it was validated (RFC 6840 section 5.7): any of the clients that share the
    /// answer may ask for that.
    ///
    /// An empty keepalive option asks how long the resolver keeps an idle session open (RFC 7828 section 3.2.1). Of the client's own
    /// options only the ECS opt-out is passed on.
    pub fn write_upstream_query(&self, out: &mut Vec<u8>) {
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
            if self.edns().is_some_and(|edns| edns.ecs_opt_out) {
                // FAMILY 1, SOURCE PREFIX-LENGTH 0, SCOPE PREFIX-LENGTH 0, no ADDRESS (RFC 7871 section 6).
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

/// The EDNS that a query carries. The later forms are for resolvers that support no EDNS, or not all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum QueryForm {
    /// An OPT record with padding (RFC 7830, RFC 8467).
    Padded,
    /// An OPT record without padding.
    Unpadded,
    /// No OPT record (RFC 6891 section 7).
    NoEdns,
}

impl QueryForm {
    /// The next form to try if the resolver does not support this one; none after the last.
    pub fn fallback(self) -> Option<Self> {
        match self {
            Self::Padded => Some(Self::Unpadded),
            Self::Unpadded => Some(Self::NoEdns),
            Self::NoEdns => None,
        }
    }

    /// Appends `message`, which [`Query::write_upstream_query`] wrote, in this form. `question` is the length of its question in
    /// octets.
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
            Self::NoEdns => {
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

/// The position of the padding option, the last one, in a query of dns-tool whose OPT record begins at `opt`.
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

/// Appends a stub resolver's query for `question`: with RD; with AD, so that the answer tells whether it was validated (RFC 6840
/// section 5.7); and with an OPT record, for long answers and Extended DNS Errors. Its `cookie` (RFC 7873 section 4) leaves room for
/// such an error in a refusal, which must not be longer than the query. An empty option Answer Source asks a dns-tool where its answer comes
/// from.
pub fn write_query(out: &mut Vec<u8>, id: u16, cookie: &[u8; 8], question: &[u8]) {
    let [id_high, id_low] = id.to_be_bytes();
    out.extend_from_slice(&[id_high, id_low, 0x01, 0x20, 0, 1, 0, 0, 0, 0, 0, 1]);
    out.extend_from_slice(question);
    write_opt(out, 0, false, |out| {
        write_option(out, option::COOKIE, cookie);
        write_option(out, option::ANSWER_SOURCE, &[]);
    });
}

#[cfg(test)]
mod tests {
    use crate::message::codes::{HEADER_LEN, option};
    use crate::message::query::Query;
    use crate::message::query_writing::write_query;
    use crate::message::test_messages::{
        ADDITIONAL, Draft, UNKNOWN, name, option, our_opt, question, question_for, upstream_query,
        written,
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
            let question = question_for(name_of(length), 65_281);
            let plain = Draft::query(&question);
            let private = plain
                .clone()
                .opt_with([0, 0, 0x80, 0], &option(8, &[0, 1, 0, 0]));
            for (query, flags, others) in [
                (plain, 0, &[0, 11, 0, 0][..]),
                (private, 0x80, &[0, 8, 0, 4, 0, 1, 0, 0, 0, 11, 0, 0]),
            ] {
                let sent = upstream_query(&query);
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
            let sent = upstream_query(&query);
            assert_eq!(sent[..4], [0, 0, kept[0], kept[1]]);
            let sent = Query::parse(&sent).unwrap();
            assert_eq!(sent.question(), question());
            assert!(!sent.edns().unwrap().dnssec_ok);
        }
        let cookie = option(10, b"cookie..");
        let subnet = option(8, &[0, 1, 24, 0, 192, 0, 2]);
        let nsid = option(3, b"");
        let padding = option(12, &[1; 300]);
        let source = option(option::ANSWER_SOURCE, b"");
        let options = [cookie, subnet, nsid, source, padding].concat();
        let all = Draft::query(&question()).opt_with([9, 9, 0xff, 0xff], &options);
        let none = Draft::query(&question()).opt_with([0, 0, 0x80, 0], &[]);
        assert_eq!(upstream_query(&all), upstream_query(&none));
    }

    #[test]
    fn a_stub_asks_where_the_answer_comes_from() {
        let sent = written(|out| write_query(out, 7, b"8 octets", &question()));
        let query = Query::parse(&sent).unwrap();
        assert_eq!((query.id(), query.question()), (7, &question()[..]));
        assert!(query.edns().unwrap().source);
        let options = [
            option(option::COOKIE, b"8 octets"),
            option(option::ANSWER_SOURCE, b""),
        ];
        assert!(sent.ends_with(&our_opt(0, 0, &options.concat())));
    }

    #[test]
    fn the_ecs_opt_out_goes_to_the_resolver() {
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
            let sent = upstream_query(&query);
            let edns = *Query::parse(&sent).unwrap().edns().unwrap();
            assert_eq!(edns.ecs_opt_out, private, "{value:?}");
            // FAMILY 1, SOURCE 0, SCOPE 0, no address: none of the client's own octets.
            let subnet = sent[12 + question().len() + 11..].starts_with(&[0, 8, 0, 4, 0, 1, 0, 0]);
            assert_eq!(subnet, private, "{value:?}");
        }
    }
}
