//! Messages: questions to ask, answers for a resolver to give, and what was heard, read by an independent library.

use domain::base::Message;
use domain::base::iana::OptRcode;
use domain::rdata::A;

/// A question to be put together.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) id: u16,
    pub(crate) flags: [u8; 2],
    pub(crate) name: String,
    pub(crate) qtype: u16,
    pub(crate) qclass: u16,
    pub(crate) edns: Option<Edns>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Edns {
    pub(crate) size: u16,
    pub(crate) version: u8,
    pub(crate) flags: u16,
    pub(crate) options: Vec<(u16, Vec<u8>)>,
}

impl Ask {
    /// For the addresses of a name, with RD.
    pub(crate) fn a(id: u16, name: &str) -> Self {
        Self {
            id,
            flags: [1, 0],
            name: name.to_owned(),
            qtype: 1,
            qclass: 1,
            edns: None,
        }
    }

    pub(crate) fn with_type(mut self, qtype: u16) -> Self {
        self.qtype = qtype;
        self
    }

    pub(crate) fn with_flags(mut self, flags: [u8; 2]) -> Self {
        self.flags = flags;
        self
    }

    pub(crate) fn with_edns(mut self, edns: Edns) -> Self {
        self.edns = Some(edns);
        self
    }

    /// The question section's octets.
    pub(crate) fn question(&self) -> Vec<u8> {
        let mut octets = Vec::new();
        for label in self.name.split('.').filter(|label| !label.is_empty()) {
            octets.push(u8::try_from(label.len()).expect("a label fits"));
            octets.extend_from_slice(label.as_bytes());
        }
        octets.push(0);
        octets.extend_from_slice(&self.qtype.to_be_bytes());
        octets.extend_from_slice(&self.qclass.to_be_bytes());
        octets
    }

    pub(crate) fn octets(&self) -> Vec<u8> {
        let mut octets = self.id.to_be_bytes().to_vec();
        octets.extend_from_slice(&self.flags);
        octets.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, u8::from(self.edns.is_some())]);
        octets.extend(self.question());
        if let Some(edns) = &self.edns {
            octets.extend(opt(edns));
        }
        octets
    }
}

/// An OPT record.
pub(crate) fn opt(edns: &Edns) -> Vec<u8> {
    let mut data = Vec::new();
    for (code, value) in &edns.options {
        data.extend_from_slice(&code.to_be_bytes());
        data.extend_from_slice(
            &u16::try_from(value.len())
                .expect("an option fits")
                .to_be_bytes(),
        );
        data.extend_from_slice(value);
    }
    let mut octets = vec![0, 0, 41];
    octets.extend_from_slice(&edns.size.to_be_bytes());
    octets.extend_from_slice(&[0, edns.version]);
    octets.extend_from_slice(&edns.flags.to_be_bytes());
    octets.extend_from_slice(
        &u16::try_from(data.len())
            .expect("options fit")
            .to_be_bytes(),
    );
    octets.extend(data);
    octets
}

/// The end of the question of a message that was made here or by the forwarder.
pub(crate) fn question_end(message: &[u8]) -> usize {
    let mut at = 12;
    while message[at] != 0 {
        at += 1 + usize::from(message[at]);
    }
    at + 5
}

/// The name that a message made here or by the forwarder asks for, in lower case.
pub(crate) fn name_of(message: &[u8]) -> String {
    let (mut labels, mut at) = (Vec::new(), 12);
    while message[at] != 0 {
        let end = at + 1 + usize::from(message[at]);
        labels.push(String::from_utf8_lossy(&message[at + 1..end]).to_ascii_lowercase());
        at = end;
    }
    labels.join(".")
}

/// The answer of an honest resolver: one address, which follows from the name, and an OPT.
pub(crate) fn answer(query: &[u8]) -> Vec<u8> {
    answer_with(
        query,
        &[&record(
            1,
            300,
            &address_of(&query[12..question_end(query) - 4]),
        )],
    )
}

/// An answer with these records, each for the name in question, and, where the query has one, an OPT that says DO as that
/// does.
pub(crate) fn answer_with(query: &[u8], records: &[&[u8]]) -> Vec<u8> {
    let end = question_end(query);
    let mut octets = query[..end].to_vec();
    octets[2] |= 0x80;
    octets[3] |= 0x80;
    octets[6..12].fill(0);
    octets[6..8].copy_from_slice(
        &u16::try_from(records.len())
            .expect("records fit")
            .to_be_bytes(),
    );
    octets.extend(records.concat());
    // The forwarder's queries have an OPT, unless the resolver has refused them for it.
    if query[11] > 0 {
        octets[11] = 1;
        octets.extend_from_slice(&[0, 0, 41, 0x10, 0, 0, 0, query[end + 7], 0, 0, 0]);
    }
    octets
}

/// An answer with this OPT in place of its own, which is its last record and empty.
pub(crate) fn with_opt(mut answer: Vec<u8>, edns: &Edns) -> Vec<u8> {
    answer.truncate(answer.len() - 11);
    answer.extend(opt(edns));
    answer
}

/// An answer with a response code, and nothing else.
pub(crate) fn error(query: &[u8], rcode: u8) -> Vec<u8> {
    let mut octets = answer_with(query, &[]);
    octets[3] |= rcode;
    octets
}

/// A record for the name in question.
pub(crate) fn record(rtype: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut octets = vec![0xc0, 12];
    octets.extend_from_slice(&rtype.to_be_bytes());
    octets.extend_from_slice(&[0, 1]);
    octets.extend_from_slice(&ttl.to_be_bytes());
    octets.extend_from_slice(&u16::try_from(data.len()).expect("data fit").to_be_bytes());
    octets.extend_from_slice(data);
    octets
}

/// The address that the honest resolver has for a name, given as it is in a message.
pub(crate) fn address_of(name: &[u8]) -> [u8; 4] {
    let sum = name.iter().fold(0x811c_9dc5_u32, |sum, octet| {
        (sum ^ u32::from(octet.to_ascii_lowercase())).wrapping_mul(0x0100_0193)
    });
    sum.to_be_bytes()
}

/// A message that a client heard.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) octets: Vec<u8>,
}

impl std::fmt::Debug for Heard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Heard({:02x?})", self.octets)
    }
}

impl Heard {
    pub(crate) fn read(octets: &[u8]) -> Self {
        assert!(octets.len() >= 12, "an answer has a header: {octets:02x?}");
        Self {
            octets: octets.to_vec(),
        }
    }

    pub(crate) fn message(&self) -> Message<&[u8]> {
        Message::from_octets(&self.octets[..]).expect("it has a header")
    }

    pub(crate) fn id(&self) -> u16 {
        u16::from_be_bytes([self.octets[0], self.octets[1]])
    }

    pub(crate) fn rcode(&self) -> u8 {
        self.octets[3] & 0x0f
    }

    /// The response code with the upper bits of the OPT.
    pub(crate) fn whole_rcode(&self) -> u16 {
        self.message().opt_rcode().to_int()
    }

    pub(crate) fn is_truncated(&self) -> bool {
        self.octets[2] & 0x02 != 0
    }

    pub(crate) fn counts(&self) -> [u16; 4] {
        [4, 6, 8, 10].map(|at| u16::from_be_bytes([self.octets[at], self.octets[at + 1]]))
    }

    pub(crate) fn question(&self) -> &[u8] {
        &self.octets[12..question_end(&self.octets)]
    }

    pub(crate) fn has_opt(&self) -> bool {
        self.message().opt().is_some()
    }

    /// The codes of the options in its OPT.
    pub(crate) fn options(&self) -> Vec<u16> {
        let message = self.message();
        let opt = message.opt().expect("an OPT");
        let data = opt.opt();
        data.iter::<domain::base::opt::UnknownOptData<_>>()
            .map(|option| option.expect("an option").code().to_int())
            .collect()
    }

    /// The value of the first option with this code in its OPT, if it has one.
    pub(crate) fn option(&self, code: u16) -> Option<Vec<u8>> {
        let message = self.message();
        let opt = message.opt()?;
        opt.opt()
            .iter::<domain::base::opt::UnknownOptData<_>>()
            .map(|option| option.expect("an option"))
            .find(|option| option.code().to_int() == code)
            .map(|option| option.data().to_vec())
    }

    /// The code of the Extended DNS Error, if it has one.
    pub(crate) fn extended_error(&self) -> Option<u16> {
        self.explanation().map(|(code, _)| code)
    }

    /// The text of the Extended DNS Error, if it has one.
    pub(crate) fn extended_text(&self) -> Option<String> {
        self.explanation()?.1
    }

    /// The Extended DNS Error, if it has one: its code, and its text if that has one.
    fn explanation(&self) -> Option<(u16, Option<String>)> {
        let message = self.message();
        let opt = message.opt()?;
        let error = opt
            .opt()
            .iter::<domain::base::opt::ExtendedError<_>>()
            .next()?
            .expect("an EDE");
        let text = error.text().map(|text| text.expect("UTF-8").to_string());
        Some((error.code().to_int(), text))
    }

    /// The IPv4 addresses in the answer section.
    pub(crate) fn addresses(&self) -> Vec<[u8; 4]> {
        let message = self.message();
        let answer = message.answer().expect("an answer section");
        answer
            .limit_to::<A>()
            .map(|record| record.expect("a record").data().addr().octets())
            .collect()
    }

    /// It is the honest resolver's answer to this question: the asker's ID, question and address, spelled as asked.
    pub(crate) fn assert_answers(&self, ask: &Ask) {
        assert_eq!(self.id(), ask.id, "{self:?} to {ask:?}");
        assert_eq!(self.octets[2] & 0x80, 0x80, "a response: {self:?}");
        assert_eq!(self.question(), ask.question(), "{self:?} to {ask:?}");
        assert_eq!(
            self.whole_rcode(),
            OptRcode::NOERROR.to_int(),
            "{self:?} to {ask:?}"
        );
        let question = ask.question();
        assert_eq!(
            self.addresses(),
            [address_of(&question[..question.len() - 4])],
            "{self:?} to {ask:?}"
        );
        assert_eq!(
            self.has_opt(),
            ask.edns.is_some(),
            "an OPT exactly when asked: {self:?}"
        );
    }

    /// It is an error of ours with the asker's ID and question.
    pub(crate) fn assert_error(&self, ask: &Ask, rcode: u16) {
        assert_eq!(self.id(), ask.id, "{self:?} to {ask:?}");
        assert_eq!(self.whole_rcode(), rcode, "{self:?} to {ask:?}");
        assert_eq!(self.question(), ask.question(), "{self:?} to {ask:?}");
        assert_eq!(self.counts()[1..3], [0, 0], "{self:?} to {ask:?}");
    }
}
