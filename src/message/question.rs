//! Where does the question end, and are two of them the same?

// Strangers' octets come through here: what could panic or wrap is not written at all.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use super::codes::HEADER;
use super::fault::Fault;
use super::header::Header;
use super::name::name_end;

/// Octets of a question behind its name (RFC 1035 section 4.1.2).
pub(super) const TYPE_AND_CLASS: usize = 4;

/// One past the one question of `message`. Its name must be spelled out: nothing stands before it to point to.
pub(super) fn question_end(message: &[u8]) -> Result<usize, Fault> {
    let [questions, ..] = Header::of(message)?.counts();
    if questions != 1 {
        return Err(Fault::QuestionCount(questions));
    }
    let end = name_end(message, HEADER)?.saturating_add(TYPE_AND_CLASS);
    if end > message.len() {
        Err(Fault::Cut)
    } else {
        Ok(end)
    }
}

/// Compares two questions whose names are spelled out. Length octets are below 64, where there are no letters.
pub(super) fn same_question(one: &[u8], other: &[u8]) -> bool {
    match (
        one.split_last_chunk::<TYPE_AND_CLASS>(),
        other.split_last_chunk(),
    ) {
        (Some((name, rest)), Some((other_name, other_rest))) => {
            rest == other_rest && name.eq_ignore_ascii_case(other_name)
        }
        _ => false,
    }
}
