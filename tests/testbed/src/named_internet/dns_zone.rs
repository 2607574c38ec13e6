//! The contents of the internet's DNS servers, which a test can change at any time, and a record of
//! the queries.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Result;
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::CNAME},
};

/// The answer to one query.
#[derive(Clone, Debug)]
pub struct DnsAnswer {
    addresses: Vec<IpAddr>,
    aliases: Vec<String>,
    ttl: u32,
    failing_type: Option<RecordType>,
    is_silent: bool,
    truncates_udp: bool,
}

impl DnsAnswer {
    /// An answer with these addresses, of either family.
    pub fn with_addresses(addresses: &[IpAddr]) -> Self {
        Self {
            addresses: addresses.to_vec(),
            aliases: Vec::new(),
            ttl: 300,
            failing_type: None,
            is_silent: false,
            truncates_udp: false,
        }
    }

    /// Sets the TTL in seconds.
    #[must_use]
    pub const fn with_ttl(mut self, seconds: u32) -> Self {
        self.ttl = seconds;
        self
    }

    /// Puts a chain of aliases before the addresses: the name is an alias of the first, and the
    /// last has the addresses.
    #[must_use]
    pub fn via_aliases(mut self, aliases: &[&str]) -> Self {
        self.aliases = aliases.iter().map(ToString::to_string).collect();
        self
    }

    /// Makes queries for this record type fail (SERVFAIL).
    #[must_use]
    pub const fn failing_for(mut self, kind: RecordType) -> Self {
        self.failing_type = Some(kind);
        self
    }

    /// Makes the server ignore the query.
    #[must_use]
    pub const fn unanswered(mut self) -> Self {
        self.is_silent = true;
        self
    }

    /// Truncates the response over UDP.
    #[must_use]
    pub const fn truncated_over_udp(mut self) -> Self {
        self.truncates_udp = true;
        self
    }
}

/// A recorded query.
#[derive(Clone, Debug)]
pub struct RecordedQuery {
    /// The name, in lower case and without the trailing dot.
    pub name: String,
    /// The record type.
    pub record_type: RecordType,
    /// The address of the client.
    pub client: IpAddr,
    /// Whether the query came over TCP.
    pub over_tcp: bool,
}

#[derive(Default)]
struct ZoneState {
    /// The n-th query for a record type gets the n-th answer, or the last one.
    answers: HashMap<String, Vec<DnsAnswer>>,
    queries: Vec<RecordedQuery>,
}

/// All names of the internet. Clones share the zone.
#[derive(Clone, Default)]
pub struct DnsZone(Arc<Mutex<ZoneState>>);

impl DnsZone {
    /// Sets the answer for a name from now on.
    pub fn set_answer(&self, name: &str, answer: DnsAnswer) {
        self.set_answer_sequence(name, vec![answer]);
    }

    /// Sets the answers for a name from now on: the n-th query gets the n-th answer. The last one
    /// stays.
    pub fn set_answer_sequence(&self, name: &str, answers: Vec<DnsAnswer>) {
        let mut state = self.lock_state();
        state.queries.retain(|asked| asked.name != name);
        state.answers.insert(name.to_owned(), answers);
    }

    /// The queries for a name since its answer was set.
    pub fn queries_for(&self, name: &str) -> Vec<RecordedQuery> {
        self.lock_state().queries.iter().filter(|asked| asked.name == name).cloned().collect()
    }

    /// The first address of a name.
    pub fn first_address(&self, name: &str) -> Option<IpAddr> {
        let state = self.lock_state();
        state.answers.get(name)?.first()?.addresses.first().copied()
    }

    /// Builds the response to a query. `None` for an invalid query, and for a query to ignore.
    pub(super) fn respond(
        &self,
        query: &[u8],
        by: IpAddr,
        over_tcp: bool,
    ) -> Result<Option<Vec<u8>>> {
        let query = Message::from_vec(query)?;
        let Some(question) = query.queries.first() else { return Ok(None) };
        if query.metadata.message_type != MessageType::Query {
            return Ok(None);
        }
        let mut response = Message::response(query.metadata.id, OpCode::Query);
        response.metadata.recursion_desired = query.metadata.recursion_desired;
        response.metadata.recursion_available = true;
        response.add_query(question.clone());
        match self.record_query(question, by, over_tcp) {
            None => response.metadata.response_code = ResponseCode::NXDomain,
            Some(answer) if answer.is_silent => return Ok(None),
            Some(answer) if answer.failing_type == Some(question.query_type()) => {
                response.metadata.response_code = ResponseCode::ServFail;
            }
            Some(answer) if answer.truncates_udp && !over_tcp => {
                response.metadata.truncation = true
            }
            Some(answer) => response.insert_answers(answer_records(question, &answer)?),
        }
        Ok(Some(response.to_vec()?))
    }

    /// Records a query and returns its answer.
    fn record_query(&self, question: &Query, by: IpAddr, over_tcp: bool) -> Option<DnsAnswer> {
        // The raw labels: their text form would escape a `-` at the start of a label as `\045`.
        let labels = question.name().iter().map(|label| String::from_utf8_lossy(label));
        let name = labels.collect::<Vec<_>>().join(".").to_ascii_lowercase();
        let kind = question.query_type();
        let mut state = self.lock_state();
        let before =
            state.queries.iter().filter(|it| it.name == name && it.record_type == kind).count();
        let turns = state.answers.get(&name);
        let answer = turns.and_then(|turns| turns.get(before).or(turns.last())).cloned();
        state.queries.push(RecordedQuery { name, record_type: kind, client: by, over_tcp });
        answer
    }

    fn lock_state(&self) -> MutexGuard<'_, ZoneState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer_records(question: &Query, answer: &DnsAnswer) -> Result<Vec<Record>> {
    let mut name = question.name().clone();
    let mut records = Vec::new();
    for alias in &answer.aliases {
        let next = Name::from_ascii(format!("{alias}."))?;
        let alias = RData::CNAME(CNAME(next.clone()));
        records.push(Record::from_rdata(name, answer.ttl, alias));
        name = next;
    }
    let wanted = |address: &&IpAddr| match question.query_type() {
        RecordType::A => address.is_ipv4(),
        RecordType::AAAA => address.is_ipv6(),
        _ => false,
    };
    for address in answer.addresses.iter().filter(wanted) {
        records.push(Record::from_rdata(name.clone(), answer.ttl, RData::from(*address)));
    }
    Ok(records)
}
