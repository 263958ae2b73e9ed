//! XenStore's wire protocol: messages of a 16-octet header and a payload of at most 4096 octets, as <xen/io/xs_wire.h>
//! has them. Pure: octets in, octets out.

use crate::xen::{DomId, Permission, Rights, StoreError};

/// Octets of a message's header: type, request id, transaction id and payload length, 32 bits each, native order.
pub(super) const HEADER: usize = 16;

/// Octets a payload may have. A longer message makes xenstored end the connection.
pub(super) const PAYLOAD_MAX: usize = 4096;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    Directory = 1,
    Read = 2,
    GetPerms = 3,
    Watch = 4,
    Unwatch = 5,
    TransactionStart = 6,
    TransactionEnd = 7,
    Write = 11,
    Rm = 13,
    SetPerms = 14,
    WatchEvent = 15,
    Error = 16,
    DirectoryPart = 22,
}

impl Kind {
    /// The number on the wire.
    pub(super) fn number(self) -> u32 {
        self as u32
    }
}

/// A message as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// The number of its [`Kind`]; a number that isn't known is the receiver's business.
    pub(super) kind: u32,
    /// The request that it answers.
    pub(super) request: u32,
    /// What it says.
    pub(super) payload: Vec<u8>,
}

/// Writes a message whose payload is `parts` one after the other.
///
/// # Errors
/// [`StoreError::TooLarge`] above `limit` octets of payload.
pub(super) fn encode(
    kind: Kind,
    request: u32,
    transaction: u32,
    parts: &[&[u8]],
    limit: usize,
) -> Result<Vec<u8>, StoreError> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    if len > limit {
        return Err(StoreError::TooLarge { octets: len, limit });
    }
    // The limit is far below what 32 bits hold.
    let len_field = u32::try_from(len).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(HEADER + len);
    for field in [kind.number(), request, transaction, len_field] {
        message.extend_from_slice(&field.to_ne_bytes());
    }
    for part in parts {
        message.extend_from_slice(part);
    }
    Ok(message)
}

/// Puts messages together from whatever pieces a read returns.
#[derive(Default)]
pub(super) struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    /// Takes in what was read.
    pub(super) fn push(&mut self, octets: &[u8]) {
        self.buffer.extend_from_slice(octets);
    }

    /// The next whole message, if there is one.
    ///
    /// # Errors
    /// [`StoreError::Disconnected`] when the stream claims a payload that the protocol forbids: there is no way to find
    /// the next message then.
    pub(super) fn next(&mut self) -> Result<Option<Message>, StoreError> {
        let [kind, request, _transaction, len, ..] = self.buffer.as_chunks::<4>().0 else { return Ok(None) };
        let [kind, request, len] = [kind, request, len].map(|field| u32::from_ne_bytes(*field));
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > PAYLOAD_MAX {
            return Err(malformed("a message of more than 4096 octets"));
        }
        if self.buffer.len() < HEADER + len {
            return Ok(None);
        }
        let payload = self.buffer[HEADER..HEADER + len].to_vec();
        self.buffer.drain(..HEADER + len);
        Ok(Some(Message { kind, request, payload }))
    }
}

/// What to say of an answer that isn't one.
pub(super) fn malformed(what: &str) -> StoreError {
    StoreError::Disconnected(format!("it answers out of protocol: {what}"))
}

/// A path or another string as the wire wants it, its NUL included.
///
/// # Errors
/// What XenStore would say of a string with a NUL inside: EINVAL.
pub(super) fn string(text: &str) -> Result<Vec<u8>, StoreError> {
    if text.is_empty() || text.contains('\0') {
        return Err(StoreError::Other("EINVAL".into()));
    }
    let mut octets = Vec::with_capacity(text.len() + 1);
    octets.extend_from_slice(text.as_bytes());
    octets.push(0);
    Ok(octets)
}

/// The error that an answer of kind [`Kind::Error`] names.
pub(super) fn error(payload: &[u8]) -> StoreError {
    let name = payload.split(|octet| *octet == 0).next().unwrap_or_default();
    match name {
        b"ENOENT" => StoreError::NotFound,
        b"EACCES" | b"EPERM" => StoreError::Denied,
        b"EAGAIN" => StoreError::Again,
        other => StoreError::Other(String::from_utf8_lossy(other).into_owned()),
    }
}

/// A list of strings, each ended by NUL.
///
/// # Errors
/// [`StoreError::Disconnected`] when the last has no end or one isn't UTF-8, which XenStore allows in no path.
pub(super) fn strings(payload: &[u8]) -> Result<Vec<String>, StoreError> {
    let Some(list) = payload.strip_suffix(&[0]) else {
        return if payload.is_empty() { Ok(Vec::new()) } else { Err(malformed("a string without end")) };
    };
    list.split(|octet| *octet == 0)
        .map(|text| String::from_utf8(text.to_vec()).map_err(|_| malformed("a name that is not text")))
        .collect()
}

/// One answer to [`Kind::DirectoryPart`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DirectoryPart {
    /// Changes when the list of children does; parts of different generations don't fit together.
    pub(super) generation: String,
    /// Names in this part.
    pub(super) names: Vec<String>,
    /// Octets of the list in this part: how far on the next one starts.
    pub(super) octets: usize,
    /// Whether the list ends here.
    pub(super) last: bool,
}

/// Reads an answer to [`Kind::DirectoryPart`]: the generation, then names; an empty name ends the list.
///
/// # Errors
/// [`StoreError::Disconnected`] when it is anything else, or neither holds a name nor ends the list.
pub(super) fn directory_part(payload: &[u8]) -> Result<DirectoryPart, StoreError> {
    let mut names = strings(payload)?;
    if names.is_empty() {
        return Err(malformed("a part of a directory without its generation"));
    }
    let generation = names.remove(0);
    let last = names.last().is_some_and(String::is_empty);
    if last {
        names.pop();
    } else if names.is_empty() {
        return Err(malformed("a part of a directory with nothing in it"));
    }
    let octets = names.iter().map(|name| name.len() + 1).sum();
    Ok(DirectoryPart { generation, names, octets, last })
}

/// Permissions as the wire has them: a letter and the domain's number each.
pub(super) fn encode_permissions(permissions: &[Permission]) -> Vec<u8> {
    let mut octets = Vec::new();
    for permission in permissions {
        let letter = match permission.rights {
            Rights::None => 'n',
            Rights::Read => 'r',
            Rights::Write => 'w',
            Rights::ReadWrite => 'b',
        };
        octets.extend_from_slice(format!("{letter}{}\0", permission.domain).as_bytes());
    }
    octets
}

/// Reads an answer to [`Kind::GetPerms`].
///
/// # Errors
/// [`StoreError::Disconnected`] when it isn't a list of permissions.
pub(super) fn decode_permissions(payload: &[u8]) -> Result<Vec<Permission>, StoreError> {
    strings(payload)?
        .iter()
        .map(|text| {
            let mut letters = text.chars();
            let rights = match letters.next() {
                Some('n') => Rights::None,
                Some('r') => Rights::Read,
                Some('w') => Rights::Write,
                Some('b') => Rights::ReadWrite,
                _ => return Err(malformed("unknown permissions")),
            };
            let domain = letters.as_str().parse().map_err(|_| malformed("permissions of no domain"))?;
            Ok(Permission { domain: DomId(domain), rights })
        })
        .collect()
}

/// The path and the token of a fired watch.
pub(super) fn watch_event(payload: &[u8]) -> Option<(String, u64)> {
    let list = strings(payload).ok()?;
    let [path, token, ..] = list.as_slice() else { return None };
    Some((path.clone(), token.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_is_a_header_of_four_words_and_its_payload() {
        let message = encode(Kind::Read, 7, 9, &[b"/a\0", b"b"], PAYLOAD_MAX).unwrap();
        let words: Vec<u32> =
            message[..HEADER].as_chunks::<4>().0.iter().map(|word| u32::from_ne_bytes(*word)).collect();
        assert_eq!(words, [2, 7, 9, 4]);
        assert_eq!(&message[HEADER..], b"/a\0b");
    }

    #[test]
    fn a_payload_over_the_limit_is_refused_here() {
        let full = [0; PAYLOAD_MAX];
        assert!(encode(Kind::Write, 1, 0, &[&full], PAYLOAD_MAX).is_ok());
        let refused = encode(Kind::Write, 1, 0, &[&full, b"x"], PAYLOAD_MAX);
        assert_eq!(refused, Err(StoreError::TooLarge { octets: PAYLOAD_MAX + 1, limit: PAYLOAD_MAX }));
    }

    proptest! {
        #[test]
        fn messages_come_out_whole_however_they_are_cut(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 1..8),
            cut in 1usize..40,
        ) {
            let mut stream = Vec::new();
            for (id, payload) in (1..).zip(&payloads) {
                stream.extend(encode(Kind::Write, id, 0, &[payload], PAYLOAD_MAX).unwrap());
            }
            let mut decoder = Decoder::default();
            let mut out = Vec::new();
            for piece in stream.chunks(cut) {
                decoder.push(piece);
                while let Some(message) = decoder.next().unwrap() {
                    prop_assert_eq!(message.kind, Kind::Write.number());
                    prop_assert_eq!(message.request as usize, out.len() + 1);
                    out.push(message.payload);
                }
            }
            prop_assert_eq!(out, payloads);
        }

        #[test]
        fn no_octets_bring_the_decoding_down(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::default();
            decoder.push(&octets);
            while let Ok(Some(_)) = decoder.next() {}
            let _ = (strings(&octets), directory_part(&octets), decode_permissions(&octets), watch_event(&octets));
        }

        #[test]
        fn permissions_survive_the_wire(list in proptest::collection::vec((any::<u16>(), 0usize..4), 1..6)) {
            let rights = [Rights::None, Rights::Read, Rights::Write, Rights::ReadWrite];
            let list: Vec<_> = list
                .iter()
                .map(|&(domain, right)| Permission { domain: DomId(domain), rights: rights[right] })
                .collect();
            prop_assert_eq!(decode_permissions(&encode_permissions(&list)).unwrap(), list);
        }
    }

    #[test]
    fn a_stream_that_lost_its_step_is_given_up() {
        let mut decoder = Decoder::default();
        decoder.push(&[0xff; HEADER]);
        assert!(matches!(decoder.next(), Err(StoreError::Disconnected(_))));
    }

    #[test]
    fn parts_of_a_directory_say_where_they_end() {
        let part = directory_part(b"12\0a\0bc\0").unwrap();
        assert_eq!((part.generation.as_str(), part.octets, part.last), ("12", 5, false));
        assert_eq!(part.names, ["a", "bc"]);
        let end = directory_part(b"12\0d\0\0").unwrap();
        assert_eq!((end.names.as_slice(), end.octets, end.last), (["d".to_owned()].as_slice(), 2, true));
        assert!(directory_part(b"12\0\0").unwrap().last);
        assert!(directory_part(b"12\0").is_err(), "no progress would be made for ever");
    }

    #[test]
    fn errors_are_told_by_name() {
        assert_eq!(error(b"ENOENT\0"), StoreError::NotFound);
        assert_eq!(error(b"EACCES\0"), StoreError::Denied);
        assert_eq!(error(b"EAGAIN"), StoreError::Again);
        assert_eq!(error(b"EINVAL\0"), StoreError::Other("EINVAL".into()));
    }

    #[test]
    fn paths_with_a_nul_or_nothing_in_them_are_refused_here() {
        assert_eq!(string("/a").unwrap(), b"/a\0");
        assert!(string("/a\0/b").is_err());
        assert!(string("").is_err());
    }

    #[test]
    fn numbers_are_those_of_the_header_of_xen() {
        let kinds = [
            ("XS_DIRECTORY", Kind::Directory),
            ("XS_READ", Kind::Read),
            ("XS_GET_PERMS", Kind::GetPerms),
            ("XS_WATCH", Kind::Watch),
            ("XS_UNWATCH", Kind::Unwatch),
            ("XS_TRANSACTION_START", Kind::TransactionStart),
            ("XS_TRANSACTION_END", Kind::TransactionEnd),
            ("XS_WRITE", Kind::Write),
            ("XS_RM", Kind::Rm),
            ("XS_SET_PERMS", Kind::SetPerms),
            ("XS_WATCH_EVENT", Kind::WatchEvent),
            ("XS_ERROR", Kind::Error),
            ("XS_DIRECTORY_PART", Kind::DirectoryPart),
        ];
        let mut expressions: Vec<&str> = kinds.iter().map(|(name, _)| *name).collect();
        expressions.extend(["sizeof(struct xsd_sockmsg)", "XENSTORE_PAYLOAD_MAX"]);
        let mut expected: Vec<u64> = kinds.iter().map(|(_, kind)| u64::from(kind.number())).collect();
        expected.extend([HEADER as u64, PAYLOAD_MAX as u64]);
        let header = "#include <stdint.h>\n#include <errno.h>\n#include <xen/io/xs_wire.h>";
        assert_eq!(crate::xen::real::c_values(header, &expressions), expected);
    }
}
