// SPDX-License-Identifier: Apache-2.0
//! D-Bus messages as bytes, as far as a manager of units needs them
//! (dbus.freedesktop.org/doc/dbus-specification.html, "Message Format").
//!
//! Written in little endian; read in either. A reader never reads beyond what
//! it was given, and answers `None` for what is no message.

/// A message begins with so many bytes that say how long it is.
pub(super) const FIXED: usize = 16;
/// No message of systemd is longer; the specification allows 128 MiB.
const MAX: usize = 1 << 20;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Call = 1,
    Return = 2,
    Error = 3,
    Signal = 4,
}

/// A value of a unit's property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Bool(bool),
    U64(u64),
    Text(String),
    Texts(Vec<String>),
    U32s(Vec<u32>),
    Bytes(Vec<u8>),
}

/// A call of a method.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
    /// The types of the arguments.
    pub(super) signature: &'a str,
    pub(super) body: Vec<u8>,
}

/// A message that was received.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    /// The call that it answers.
    pub(super) reply_to: Option<u32>,
    pub(super) member: String,
    /// Of an error.
    pub(super) error: String,
    big_endian: bool,
    body: Vec<u8>,
}

impl Call<'_> {
    pub(super) fn encode(&self, destination: &str, serial: u32) -> Vec<u8> {
        let mut message = Writer::default();
        message.bytes(&[b'l', Kind::Call as u8, 0, 1]);
        message.u32(length(self.body.len()));
        message.u32(serial);
        let fields = [
            (1, "o", self.path),
            (2, "s", self.interface),
            (3, "s", self.member),
            (6, "s", destination),
            (8, "g", self.signature),
        ];
        message.array(8, |array| {
            for (code, kind, text) in fields.into_iter().filter(|(_, _, text)| !text.is_empty()) {
                array.align(8);
                array.bytes(&[code]);
                array.signature(kind);
                if kind == "g" { array.signature(text) } else { array.text(text) }
            }
        });
        message.align(8);
        message.bytes(&self.body);
        message.0
    }
}

/// How long the message is that begins like this; `None` for none.
pub(super) fn message_length(fixed: &[u8]) -> Option<usize> {
    let mut reader = Reader { bytes: fixed, at: 4, big_endian: is_big_endian(fixed)? };
    let body = usize::try_from(reader.u32()?).ok()?;
    reader.at = 12;
    let fields = usize::try_from(reader.u32()?).ok()?;
    if body > MAX || fields > MAX || fixed.get(3) != Some(&1) {
        return None;
    }
    Some(FIXED + fields.next_multiple_of(8) + body)
}

fn is_big_endian(bytes: &[u8]) -> Option<bool> {
    match bytes.first()? {
        b'l' => Some(false),
        b'B' => Some(true),
        _ => None,
    }
}

impl Message {
    /// Reads a whole message; kinds that nobody knows are `None`, too.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let big_endian = is_big_endian(bytes)?;
        let kind = match bytes.get(1)? {
            1 => Kind::Call,
            2 => Kind::Return,
            3 => Kind::Error,
            4 => Kind::Signal,
            _ => return None,
        };
        let mut reader = Reader { bytes, at: 12, big_endian };
        let mut message = Self {
            kind,
            reply_to: None,
            member: String::new(),
            error: String::new(),
            big_endian,
            body: Vec::new(),
        };
        let end = usize::try_from(reader.u32()?).ok()?.checked_add(FIXED)?;
        while reader.at < end {
            reader.align(8);
            let code = reader.byte()?;
            match (code, reader.signature()?) {
                (3, "s") => message.member = reader.text()?.to_owned(),
                (4, "s") => message.error = reader.text()?.to_owned(),
                (5, "u") => message.reply_to = Some(reader.u32()?),
                (_, "s" | "o") => drop(reader.text()?),
                (_, "g") => drop(reader.signature()?),
                (_, "u") => drop(reader.u32()?),
                _ => return None,
            }
        }
        bytes.get(end.next_multiple_of(8)..)?.clone_into(&mut message.body);
        Some(message)
    }

    /// Its arguments.
    pub(super) fn body(&self) -> Reader<'_> {
        Reader { bytes: &self.body, at: 0, big_endian: self.big_endian }
    }
}

/// Lengths beyond a u32 don't get as far as here.
fn length(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Arguments being written; alignment is from its beginning.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }

    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn u32(&mut self, n: u32) {
        self.align(4);
        self.bytes(&n.to_le_bytes());
    }

    fn u64(&mut self, n: u64) {
        self.align(8);
        self.bytes(&n.to_le_bytes());
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.u32(value.into());
    }

    pub(super) fn text(&mut self, text: &str) {
        self.u32(length(text.len()));
        self.bytes(text.as_bytes());
        self.bytes(&[0]);
    }

    fn signature(&mut self, text: &str) {
        // At most 255 by the specification; ours are a few letters.
        self.bytes(&[u8::try_from(text.len()).unwrap_or(u8::MAX)]);
        self.bytes(text.as_bytes());
        self.bytes(&[0]);
    }

    /// The length counts from the first element, not from the padding before.
    fn array(&mut self, alignment: usize, fill: impl FnOnce(&mut Self)) {
        self.u32(0);
        let at = self.0.len() - 4;
        self.align(alignment);
        let begin = self.0.len();
        fill(self);
        let bytes = length(self.0.len() - begin).to_le_bytes();
        self.0[at..at + 4].copy_from_slice(&bytes);
    }

    fn variant(&mut self, value: &Value) {
        match value {
            Value::Bool(value) => {
                self.signature("b");
                self.bool(*value);
            }
            Value::U64(n) => {
                self.signature("t");
                self.u64(*n);
            }
            Value::Text(text) => {
                self.signature("s");
                self.text(text);
            }
            Value::Texts(texts) => {
                self.signature("as");
                self.array(4, |array| texts.iter().for_each(|text| array.text(text)));
            }
            Value::U32s(numbers) => {
                self.signature("au");
                self.array(4, |array| numbers.iter().for_each(|n| array.u32(*n)));
            }
            Value::Bytes(bytes) => {
                self.signature("ay");
                self.array(1, |array| array.bytes(bytes));
            }
        }
    }

    /// `a(sv)`
    pub(super) fn properties(&mut self, properties: &[(&str, Value)]) {
        self.array(8, |array| {
            for (name, value) in properties {
                array.align(8);
                array.text(name);
                array.variant(value);
            }
        });
    }

    /// `a(sa(sv))`, always empty: other units to make along with one.
    pub(super) fn no_other_units(&mut self) {
        self.array(8, |_| {});
    }
}

/// Arguments being read, in their order.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(n)?)?;
        self.at += n;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.align(4);
        let bytes = self.take(4)?.try_into().ok()?;
        Some(if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// A string or the path of an object.
    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.u32()?).ok()?;
        let text = std::str::from_utf8(self.take(length)?).ok()?;
        (self.byte()? == 0).then_some(text)
    }

    pub(super) fn signature(&mut self) -> Option<&'a str> {
        let length = self.byte()?.into();
        let text = std::str::from_utf8(self.take(length)?).ok()?;
        (self.byte()? == 0).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn call(body: Vec<u8>) -> Vec<u8> {
        let call = Call { path: "/a", interface: "b.C", member: "D", signature: "s", body };
        call.encode("e.f", 7)
    }

    #[test]
    fn a_call_is_read_back() {
        let mut body = Writer::default();
        body.text("hello");
        let bytes = call(body.finish());
        assert_eq!(message_length(&bytes[..FIXED]), Some(bytes.len()));
        let message = Message::decode(&bytes).expect("message");
        assert_eq!((message.kind, message.member.as_str()), (Kind::Call, "D"));
        assert_eq!(message.body().text(), Some("hello"));
    }

    /// As dbus-send(1) writes it: alignment is what goes wrong.
    #[test]
    fn properties_are_aligned() {
        let mut body = Writer::default();
        body.properties(&[("A", Value::Bool(true)), ("PIDs", Value::U32s(vec![5])), ("T", Value::U64(9))]);
        let expected: &[&[u8]] = &[
            &[64, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0, b'A', 0, 1, b'b', 0, 0, 0, 0, 1, 0, 0, 0],
            &[4, 0, 0, 0, b'P', b'I', b'D', b's', 0, 2, b'a', b'u', 0, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0],
            &[1, 0, 0, 0, b'T', 0, 1, b't', 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(body.finish(), expected.concat());
    }

    #[test]
    fn an_answer_in_big_endian() {
        let bytes = [
            &[b'B', 2, 0, 1, 0, 0, 0, 6, 0, 0, 0, 1, 0, 0, 0, 8][..],
            &[5, 1, b'u', 0, 0, 0, 0, 7],
            &[0, 0, 0, 1, b'x', 0],
        ]
        .concat();
        let message = Message::decode(&bytes).expect("message");
        assert_eq!((message.kind, message.reply_to), (Kind::Return, Some(7)));
        assert_eq!(message.body().text(), Some("x"));
    }

    #[test]
    fn a_message_that_is_too_long_is_none() {
        assert_eq!(message_length(&[b'l', 2, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(message_length(b"HTTP/1.1 400 Bad"), None);
    }

    proptest! {
        #[test]
        fn nothing_that_is_received_is_read_beyond_its_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            message_length(&bytes);
            if let Some(message) = Message::decode(&bytes) {
                let mut body = message.body();
                while body.text().is_some() {}
            }
        }

        #[test]
        fn a_damaged_message_is_no_panic(at in 0..100_usize, byte: u8) {
            let mut bytes = call(vec![1, 0, 0, 0, b'x', 0]);
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Some(message) = Message::decode(&bytes) {
                message.body().text();
            }
        }
    }
}
