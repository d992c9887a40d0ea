//! Does dns-tool answer queries now, and if not, why?
//!
//! One rule from what is known to one state, with its text and its remedy. The page, `/ready`, the metrics and the alerts take it from
//! here, so that they say the same. Pure: what is known and the time are passed in.

use crate::client::send_failure::SendFailure;
use crate::identity::verify_error::Check;
use crate::monitoring::human_units::format_time_of_day;
use crate::upstream::{AddressStatus, FailureCause, FailureKind};

/// Failed queries of the last minute, of all that should get an answer, from which the service counts as degraded: one in so many.
const DEGRADED_SHARE: u64 = 20;
/// Fewer failed queries than this are no sign.
const MIN_FAILED: u64 = 5;

/// Whether queries are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No session with a resolver has been opened or refused yet, and the cache has nothing to serve.
    Starting,
    /// A resolver can be asked, and answers as far as is known.
    Answering,
    /// Queries are answered, but some fail, or an address of a resolver does.
    Degraded,
    /// No resolver can be asked, but the cache has answers, fresh or expired.
    CacheOnly,
    /// No resolver can be asked, and the cache has nothing to serve.
    Failing,
    /// The kernel refuses nearly all replies, whatever the resolvers do.
    NotSending,
    /// The program is about to end.
    Stopping,
}

impl State {
    /// All states, in the order of the metric.
    pub const ALL: [Self; 7] = [
        Self::Starting,
        Self::Answering,
        Self::Degraded,
        Self::CacheOnly,
        Self::Failing,
        Self::NotSending,
        Self::Stopping,
    ];

    /// The name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Answering => "answering",
            Self::Degraded => "degraded",
            Self::CacheOnly => "cache-only",
            Self::Failing => "failing",
            Self::NotSending => "not-sending",
            Self::Stopping => "stopping",
        }
    }

    /// Whether queries should be sent here (`/ready`): those for some names at least would be answered.
    pub fn is_ready(self) -> bool {
        matches!(self, Self::Answering | Self::Degraded | Self::CacheOnly)
    }
}

/// What is known.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The program is about to end.
    pub stopping: bool,
    /// Why nearly no reply can be sent, if that is so.
    pub send_failure: Option<SendFailure>,
    /// The addresses of all resolvers, those of routes with their zones.
    pub addresses: &'a [AddressStatus],
    /// The cache has an answer that may be served, fresh or expired.
    pub cache_can_serve: bool,
    /// Queries of the last minute that should have got an answer.
    pub eligible: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Seconds since 1970.
    pub now: u64,
}

/// Whether queries are answered, and if not, why and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The state.
    pub state: State,
    /// One line for people: the state, the cause and since when. It may hold words of a certificate.
    pub text: String,
    /// What to do; empty if nothing is to be done.
    pub remedy: &'static str,
    /// Since when no resolver can be asked, in seconds since 1970, if that is so.
    pub since: Option<u64>,
}

/// Why an address fails, and since when, in seconds since 1970.
struct Fault<'a> {
    address: &'a AddressStatus,
    cause: &'a FailureCause,
    since: u64,
}

impl<'a> Fault<'a> {
    fn of(address: &'a AddressStatus) -> Option<Self> {
        Some(Self {
            address,
            cause: &address.last_failure.as_ref()?.cause,
            since: address.failing_since?,
        })
    }

    fn text(&self, now: u64) -> String {
        let since = format_time_of_day(self.since, now);
        format!("{} since {since}", self.cause.kind.text())
    }
}

impl Summary {
    /// The state that follows from `facts`.
    pub fn of(facts: &Facts<'_>) -> Self {
        if facts.stopping {
            return Self::plain(State::Stopping, "stopping");
        }
        if let Some(cause) = facts.send_failure {
            return Self {
                remedy: cause.remedy(),
                ..Self::plain(State::NotSending, cause.not_ready_reason())
            };
        }
        let main = || {
            let addresses = facts.addresses.iter();
            addresses.filter(|address| address.zones.is_empty())
        };
        let was_open = main().any(|address| address.was_open);
        let may_answer = |address: &AddressStatus| {
            address.failing_since.is_none() && (address.sessions > 0 || was_open)
        };
        if main().any(may_answer) {
            return Self::while_answering(facts);
        }
        let faults = || main().filter_map(Fault::of);
        // A failed check of the identity tells most, and comes before a preferred address that is only away.
        let identity = faults().find(|fault| matches!(fault.cause.kind, FailureKind::Identity(_)));
        let Some(fault) = identity.or_else(|| faults().next()) else {
            return match facts.cache_can_serve {
                true => Self::plain(
                    State::CacheOnly,
                    "serving from the cache only: connecting to the resolver",
                ),
                false => Self::plain(State::Starting, "starting: connecting to the resolver"),
            };
        };
        // It began when the last address failed.
        let since = faults()
            .map(|fault| fault.since)
            .max()
            .unwrap_or(fault.since);
        let (state, prefix) = match facts.cache_can_serve {
            true => (State::CacheOnly, "serving from the cache only"),
            false => (State::Failing, "failing"),
        };
        let cause = Fault { since, ..fault };
        Self {
            state,
            text: format!("{prefix}: {}", cause.text(facts.now)),
            remedy: remedy(cause.cause.kind),
            since: Some(since),
        }
    }

    fn plain(state: State, text: &str) -> Self {
        Self {
            state,
            text: text.to_owned(),
            remedy: "",
            since: None,
        }
    }

    /// The state while the main resolver answers: whether all does.
    fn while_answering(facts: &Facts<'_>) -> Self {
        let mut faults = facts.addresses.iter().filter_map(Fault::of);
        if let Some(fault) = faults.next() {
            let more = match faults.count() {
                0 => String::new(),
                more => format!("; {more} more"),
            };
            let place = match &*fault.address.zones {
                "" => String::new(),
                zones => format!(" for {zones}"),
            };
            let (address, text) = (fault.address.address, fault.text(facts.now));
            return Self {
                state: State::Degraded,
                text: format!("answering, but {address}{place} fails: {text}{more}"),
                remedy: remedy(fault.cause.kind),
                since: None,
            };
        }
        let is_degraded =
            facts.failed >= MIN_FAILED && facts.failed * DEGRADED_SHARE >= facts.eligible;
        if !is_degraded {
            return Self::plain(State::Answering, "answering");
        }
        let percent = facts.failed * 100 / facts.eligible.max(1);
        Self {
            state: State::Degraded,
            text: format!("answering, but {percent} % of the queries of the last minute failed"),
            remedy: "see the outcomes below, and the last failure of each resolver",
            since: None,
        }
    }
}

/// What to do about a failure.
fn remedy(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Connect => {
            "check the network and the address of the resolver; dns-tool check tries it"
        }
        FailureKind::Handshake => {
            "see that DNS over TLS is spoken at that address and port; dns-tool check tries it"
        }
        FailureKind::KeyExchange => {
            "set --key-exchange prefer, or choose a resolver that has X25519MLKEM768"
        }
        FailureKind::Identity(Check::Chain) => {
            "see this machine's clock; name an authority of your own by --resolver-ca; else ask the operator of the resolver"
        }
        FailureKind::Identity(Check::Name) => {
            "give the resolver's own name by --resolver-fqdn, or behind the # of --resolver"
        }
        FailureKind::Identity(Check::Pin) => {
            "compare the keys of dns-tool pin with those that the operator publishes, and only then change --pins"
        }
        FailureKind::Identity(Check::Clock) => "set this machine's clock, or give a pin",
        FailureKind::NoAnswer | FailureKind::Closed => {
            "ask the operator of the resolver; name a further --resolver"
        }
        FailureKind::ServerFailure => {
            "ask the operator of the resolver whether this host may use it; name a further --resolver"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::LastFailure;

    /// 2026-11-24, 06:15 UTC.
    const MORNING: u64 = 1_795_500_900;

    fn address(zones: &str) -> AddressStatus {
        AddressStatus {
            zones: zones.to_owned(),
            sessions: 1,
            was_open: true,
            ..AddressStatus::new(
                "192.0.2.1:853".parse().expect("an address"),
                "x.example".to_owned(),
            )
        }
    }

    fn failed(kind: FailureKind, since: u64) -> AddressStatus {
        AddressStatus {
            sessions: 0,
            failing_since: Some(since),
            last_failure: Some(LastFailure {
                at: since + 5,
                cause: FailureCause {
                    kind,
                    detail: "UnknownIssuer".to_owned(),
                },
            }),
            ..address("")
        }
    }

    fn facts(addresses: &[AddressStatus]) -> Facts<'_> {
        Facts {
            stopping: false,
            send_failure: None,
            addresses,
            cache_can_serve: false,
            eligible: 0,
            failed: 0,
            now: MORNING + 600,
        }
    }

    fn told(facts: &Facts<'_>) -> (State, String) {
        let summary = Summary::of(facts);
        // While a resolver answers, no time is that of an outage.
        let is_outage = summary.text.contains("since 06:15") && !summary.text.contains("but");
        assert_eq!(
            summary.since,
            is_outage.then_some(MORNING),
            "{}",
            summary.text
        );
        (summary.state, summary.text)
    }

    #[test]
    fn a_resolver_with_a_session_answers_and_so_does_an_idle_one() {
        let idle = AddressStatus {
            sessions: 0,
            ..address("")
        };
        for address in [address(""), idle] {
            let (state, text) = told(&facts(&[address]));
            assert_eq!((state, &*text), (State::Answering, "answering"));
        }
    }

    #[test]
    fn before_the_first_session_it_starts_and_is_not_ready() {
        let untried = AddressStatus {
            sessions: 0,
            was_open: false,
            ..address("")
        };
        let addresses = [untried, address("lan.")];
        let (state, text) = told(&facts(&addresses));
        assert_eq!(
            (state, &*text),
            (State::Starting, "starting: connecting to the resolver")
        );
        assert!(!state.is_ready());
        let kept = Facts {
            cache_can_serve: true,
            ..facts(&addresses)
        };
        assert!(told(&kept).0.is_ready(), "after a reload");
    }

    #[test]
    fn where_no_address_can_be_asked_the_cause_and_the_time_are_told() {
        let kind = FailureKind::Identity(Check::Chain);
        let addresses = [failed(kind, MORNING)];
        let (state, text) = told(&facts(&addresses));
        assert_eq!(
            (state, &*text),
            (
                State::Failing,
                "failing: certificate chain refused since 06:15 UTC"
            )
        );
        assert!(!state.is_ready());
        let kept = Facts {
            cache_can_serve: true,
            ..facts(&addresses)
        };
        let (state, text) = told(&kept);
        assert_eq!(
            (state, &*text),
            (
                State::CacheOnly,
                "serving from the cache only: certificate chain refused since 06:15 UTC"
            )
        );
        assert!(state.is_ready());
        assert!(Summary::of(&kept).remedy.contains("--resolver-ca"));
    }

    #[test]
    fn a_resolver_that_answers_nothing_fails_although_it_has_a_session() {
        let silent = AddressStatus {
            sessions: 1,
            ..failed(FailureKind::NoAnswer, MORNING)
        };
        let (state, text) = told(&facts(&[silent]));
        assert_eq!(
            (state, &*text),
            (State::Failing, "failing: no answer in time since 06:15 UTC")
        );
    }

    #[test]
    fn with_several_addresses_it_fails_since_the_last_one_does() {
        let addresses = [
            failed(FailureKind::Connect, MORNING - 3600),
            failed(FailureKind::Identity(Check::Pin), MORNING),
        ];
        let (state, text) = told(&facts(&addresses));
        assert_eq!(
            (state, &*text),
            (State::Failing, "failing: no pin matches since 06:15 UTC"),
            "the identity tells most"
        );
        let untried = AddressStatus {
            sessions: 0,
            was_open: false,
            ..address("")
        };
        let one_left = [failed(FailureKind::Connect, MORNING), untried];
        let (state, text) = told(&facts(&one_left));
        assert_eq!(state, State::Degraded);
        assert_eq!(
            text,
            "answering, but 192.0.2.1:853 fails: no connection since 06:15 UTC"
        );
    }

    #[test]
    fn a_route_that_fails_leaves_it_ready() {
        let route = AddressStatus {
            zones: "lan.".to_owned(),
            ..failed(FailureKind::Connect, MORNING)
        };
        let (state, text) = told(&facts(&[address(""), route]));
        assert_eq!(
            text,
            "answering, but 192.0.2.1:853 for lan. fails: no connection since 06:15 UTC"
        );
        assert!(state == State::Degraded && state.is_ready());
    }

    #[test]
    fn replies_that_cannot_be_sent_serve_nobody_whatever_the_resolver_does() {
        let addresses = [address("")];
        let facts = Facts {
            send_failure: Some(SendFailure::Firewall),
            cache_can_serve: true,
            ..facts(&addresses)
        };
        let (state, text) = told(&facts);
        assert!(state == State::NotSending && !state.is_ready());
        assert_eq!(text, "replies cannot be sent: firewall");
        assert_eq!(Summary::of(&facts).remedy, SendFailure::Firewall.remedy());
    }

    #[test]
    fn failed_queries_of_the_last_minute_count_from_five_percent() {
        let addresses = [address("")];
        for (eligible, failed, state) in [
            (4, 4, State::Answering),
            (101, 5, State::Answering),
            (100, 5, State::Degraded),
            (5, 5, State::Degraded),
        ] {
            let facts = Facts {
                eligible,
                failed,
                ..facts(&addresses)
            };
            assert_eq!(told(&facts).0, state, "{failed} of {eligible}");
        }
    }

    #[test]
    fn whoever_stops_says_so_whatever_else_is_known() {
        let addresses = [address("")];
        let facts = Facts {
            stopping: true,
            ..facts(&addresses)
        };
        let (state, text) = told(&facts);
        assert!(!state.is_ready());
        assert_eq!(text, "stopping");
    }

    #[test]
    fn each_state_has_a_name_of_its_own() {
        for (index, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, index, "{}", state.name());
        }
    }
}
