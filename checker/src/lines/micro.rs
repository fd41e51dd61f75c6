//! Micro-operations as words: `["append","x","1"]`, `["write","x","1"]`, `["write","x",null]`,
//! `["read","x"]` without an answer, `["read","x","1"]` of a register, `["read","x",["1"]]` of a
//! list.

use std::fmt;
use std::io;

use serde::de::{Error, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::history::{Found, MicroOperation};

/// A verb, a key, and perhaps an argument.
#[derive(Debug)]
pub(super) struct Micro {
    verb: String,
    key: String,
    argument: Option<Argument>,
}

#[derive(Debug)]
enum Argument {
    None,
    One(String),
    Many(Vec<String>),
}

/// Understands the words of a transaction on lists (`list`) or on registers (`rw`).
pub(super) fn parse(
    words: Vec<Micro>,
    op: &str,
    done: bool,
) -> Result<Vec<MicroOperation>, String> {
    let understand = |(place, micro): (usize, Micro)| {
        let verb = micro.verb.clone();
        let wrong = |what: &str| format!("\"ops\"[{place}], {verb:?} in \"{op}\": {what}");
        let lists = op == "list";
        match (micro.verb.as_str(), micro.argument, lists) {
            ("append", Some(Argument::One(value)), true) => {
                Ok(MicroOperation::Append { key: micro.key, value })
            }
            ("write", Some(Argument::One(value)), false) => {
                Ok(MicroOperation::Write { key: micro.key, value: Some(value) })
            }
            ("write", Some(Argument::None), false) => {
                Ok(MicroOperation::Write { key: micro.key, value: None })
            }
            ("read", None, _) if done => Err(wrong("it is done, but what it found is missing")),
            ("read", argument, _) => {
                let found = match (argument, lists) {
                    (None, _) => Found::Unanswered,
                    (Some(Argument::Many(values)), true) => Found::List(values),
                    (Some(Argument::None), true) => Found::List(Vec::new()),
                    (Some(Argument::One(value)), false) => Found::Register(Some(value)),
                    (Some(Argument::None), false) => Found::Register(None),
                    (Some(Argument::One(_)), true) => {
                        return Err(wrong("a list is read as a list"));
                    }
                    (Some(Argument::Many(_)), false) => return Err(wrong("a register is no list")),
                };
                Ok(MicroOperation::Read { key: micro.key, found })
            }
            _ => Err(wrong("no such micro-operation")),
        }
    };
    words.into_iter().enumerate().map(understand).collect()
}

/// The operation's name, and its words.
pub(super) fn write(operations: Vec<MicroOperation>) -> io::Result<(&'static str, Vec<Micro>)> {
    let (mut lists, mut registers) = (false, false);
    let mut words = Vec::with_capacity(operations.len());
    for operation in operations {
        let (verb, key, argument) = match operation {
            MicroOperation::Append { key, value } => ("append", key, Some(Argument::One(value))),
            MicroOperation::Write { key, value } => {
                ("write", key, Some(value.map_or(Argument::None, Argument::One)))
            }
            MicroOperation::Read { key, found: Found::Unanswered } => ("read", key, None),
            MicroOperation::Read { key, found: Found::List(values) } => {
                ("read", key, Some(Argument::Many(values)))
            }
            MicroOperation::Read { key, found: Found::Register(value) } => {
                registers = true;
                ("read", key, Some(value.map_or(Argument::None, Argument::One)))
            }
        };
        lists |= verb == "append" || matches!(argument, Some(Argument::Many(_)));
        registers |= verb == "write";
        words.push(Micro { verb: verb.to_owned(), key, argument });
    }
    if lists && registers {
        let why = "a transaction on lists and on registers has no line";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    Ok((if lists { "list" } else { "rw" }, words))
}

impl Serialize for Micro {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut words = serializer.serialize_seq(None)?;
        words.serialize_element(&self.verb)?;
        words.serialize_element(&self.key)?;
        match &self.argument {
            None => {}
            Some(Argument::None) => words.serialize_element(&None::<String>)?,
            Some(Argument::One(value)) => words.serialize_element(value)?,
            Some(Argument::Many(values)) => words.serialize_element(values)?,
        }
        words.end()
    }
}

impl<'de> Deserialize<'de> for Micro {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Words)
    }
}

struct Words;

impl<'de> Visitor<'de> for Words {
    type Value = Micro;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a micro-operation: a verb, a key, and perhaps a value")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut words: A) -> Result<Micro, A::Error> {
        let verb = words.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
        let key = words.next_element()?.ok_or_else(|| A::Error::invalid_length(1, &self))?;
        let argument = words.next_element()?;
        Ok(Micro { verb, key, argument })
    }
}

impl<'de> Deserialize<'de> for Argument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyArgument)
    }
}

struct AnyArgument;

impl<'de> Visitor<'de> for AnyArgument {
    type Value = Argument;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, a value, or a list of values")
    }

    fn visit_unit<E: Error>(self) -> Result<Argument, E> {
        Ok(Argument::None)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Argument, E> {
        Ok(Argument::One(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Argument, E> {
        Ok(Argument::One(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut words: A) -> Result<Argument, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = words.next_element()? {
            values.push(value);
        }
        Ok(Argument::Many(values))
    }
}
