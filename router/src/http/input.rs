//! What callers send: bodies, durations, ids, each within its bounds.
//!
//! A body is one JSON object. Its fields are taken out one by one by the call that knows them; what is
//! left over, or comes twice, is refused by name. `null` means absent. Nothing is acted upon before the
//! whole body is known to be valid.

use std::{fmt, time::Duration};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use wardlock_machine::{LockId, Metadata, Millis, Mode, Name, SessionId, Token, limits};

use super::{openapi, problem::Problem};

/// The most bytes of a body.
pub const BODY_BYTES: usize = 64 * 1024;

/// The fields of a body, each taken once.
#[derive(Debug, Default)]
pub struct Fields {
    fields: Vec<(String, Value)>,
    /// What the API's description calls a body like this.
    shape: Option<&'static str>,
}

impl Fields {
    /// Parses a body. No bytes are an object without fields.
    pub fn parse(body: &[u8]) -> Result<Fields, Problem> {
        if body.is_empty() {
            return Ok(Fields::default());
        }
        let mut field = None;
        let mut json = serde_json::Deserializer::from_slice(body);
        let parsed = Reader { field: &mut field }.deserialize(&mut json).and_then(|fields| {
            field = None;
            json.end().map(|()| fields)
        });
        parsed.map_err(|e| match field {
            Some(field) => Problem::field(&field, format!("{field}: {e}")),
            None => Problem::invalid("invalid-json", e.to_string()),
        })
    }

    /// The fields of an object inside another body.
    pub fn of(value: Value) -> Result<Fields, Problem> {
        match value {
            Value::Null => Ok(Fields::default()),
            Value::Object(map) => Ok(map.into_iter().collect::<Vec<_>>().into()),
            _ => Err(Problem::invalid("invalid-json", "a body must be a JSON object")),
        }
    }

    /// Names the schema that describes this body in the API's own document. A debug build holds each field that is
    /// asked for against it, so that the description and what is read cannot drift apart.
    pub(super) fn shaped(self, shape: Option<&'static str>) -> Fields {
        Fields { shape, ..self }
    }

    fn take(&mut self, field: &str) -> Option<Value> {
        debug_assert!(
            self.shape.is_none_or(|shape| openapi::has_property(shape, field)),
            "the field {field:?} is not in the schema {:?}",
            self.shape
        );
        let at = self.fields.iter().position(|(name, _)| name == field)?;
        Some(self.fields.swap_remove(at).1).filter(|value| !value.is_null())
    }

    /// Whether a field is there and not null.
    pub fn has(&self, field: &str) -> bool {
        self.fields.iter().any(|(name, value)| name == field && !value.is_null())
    }

    /// All fields must have been taken.
    pub fn finish(self) -> Result<(), Problem> {
        match self.fields.first() {
            None => Ok(()),
            Some((field, _)) => {
                Err(Problem::invalid("unknown-field", format!("there is no field {field:?}"))
                    .with("field", field.as_str()))
            }
        }
    }

    /// A text, if it is there.
    pub fn text(&mut self, field: &'static str) -> Result<Option<String>, Problem> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Problem::field(field, format!("{field} must be a string"))),
        }
    }

    /// A text that must be there: 1 to [`limits::LABEL_BYTES`] bytes.
    pub fn label(&mut self, field: &'static str) -> Result<String, Problem> {
        let text = self.text(field)?.ok_or_else(|| missing(field))?;
        let max = limits::LABEL_BYTES;
        match text.len() {
            0 => Err(Problem::field(field, format!("{field} must not be empty"))),
            n if n > max => Err(Problem::field(field, format!("{field} may have at most {max} bytes, not {n}"))),
            _ => Ok(text),
        }
    }

    /// True or false.
    pub fn flag(&mut self, field: &'static str) -> Result<Option<bool>, Problem> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(Problem::field(field, format!("{field} must be true or false"))),
        }
    }

    /// A length of time in seconds, within bounds.
    pub fn seconds(&mut self, field: &'static str, min: Millis, max: Millis) -> Result<Option<Millis>, Problem> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Number(number)) => number
                .as_f64()
                .and_then(|seconds| millis(seconds, min, max))
                .map(Some)
                .ok_or_else(|| Problem::field(field, format!("{field}: {}", bounds(min, max)))),
            Some(_) => Err(Problem::field(field, format!("{field} must be a number of seconds"))),
        }
    }

    /// A whole number, within bounds.
    pub fn integer(&mut self, field: &'static str, min: i64, max: i64) -> Result<Option<i64>, Problem> {
        match self.take(field) {
            None => Ok(None),
            Some(value) => whole(&value)
                .filter(|n| (min..=max).contains(n))
                .map(Some)
                .ok_or_else(|| Problem::field(field, format!("{field} must be a whole number from {min} to {max}"))),
        }
    }

    /// A session id that must be there.
    pub fn session(&mut self) -> Result<SessionId, Problem> {
        self.session_if_any()?.ok_or_else(|| missing("sessionId"))
    }

    /// A session id, if it is there.
    pub fn session_if_any(&mut self) -> Result<Option<SessionId>, Problem> {
        let text = self.text("sessionId")?;
        text.map(|text| text.parse().map_err(|e| Problem::field("sessionId", format!("sessionId: {e}")))).transpose()
    }

    /// A lock id that must be there.
    pub fn lock_id(&mut self) -> Result<LockId, Problem> {
        self.lock_id_if_any()?.ok_or_else(|| missing("lockId"))
    }

    /// A lock id, if it is there.
    pub fn lock_id_if_any(&mut self) -> Result<Option<LockId>, Problem> {
        let text = self.text("lockId")?;
        text.map(|text| text.parse().map_err(|e| Problem::field("lockId", format!("lockId: {e}")))).transpose()
    }

    /// How a lock is to be held: `mode`, or `permits` for a semaphore.
    pub fn mode(&mut self) -> Result<Mode, Problem> {
        let permits = self.integer("permits", 1, limits::HOLDERS as i64)?;
        let permits = permits.and_then(|n| u32::try_from(n).ok());
        match (self.text("mode")?.as_deref(), permits) {
            (None | Some("exclusive"), None) => Ok(Mode::Exclusive),
            (Some("shared"), None) => Ok(Mode::Shared),
            (None | Some("semaphore"), Some(permits)) => Ok(Mode::Semaphore { permits }),
            (Some("semaphore"), None) => Err(missing("permits")),
            (Some("exclusive" | "shared"), Some(_)) => {
                Err(Problem::field("permits", "permits belong to a semaphore: leave mode out, or say \"semaphore\""))
            }
            (Some(_), _) => Err(Problem::field("mode", "mode must be \"exclusive\", \"shared\" or \"semaphore\"")),
        }
    }

    /// Texts by name, for people.
    pub fn metadata(&mut self) -> Result<Metadata, Problem> {
        let wrong = |detail: String| Err(Problem::field("metadata", detail));
        let map = match self.take("metadata") {
            None => return Ok(Metadata::new()),
            Some(Value::Object(map)) => map,
            Some(_) => return wrong("metadata must be an object of strings".to_owned()),
        };
        if map.len() > limits::METADATA_ENTRIES {
            return wrong(format!("metadata may have at most {} entries", limits::METADATA_ENTRIES));
        }
        let mut metadata = Metadata::new();
        let mut bytes = 0;
        for (key, value) in map {
            let Value::String(value) = value else {
                return wrong(format!("metadata: the value of {key:?} must be a string"));
            };
            bytes += key.len() + value.len();
            metadata.insert(key, value);
        }
        if bytes > limits::METADATA_BYTES {
            return wrong(format!("metadata may have at most {} bytes, not {bytes}", limits::METADATA_BYTES));
        }
        Ok(metadata)
    }

    /// A list of at most `max`, which must be there.
    pub fn list(&mut self, field: &'static str, max: usize) -> Result<Vec<Value>, Problem> {
        self.list_if_any(field, max)?.ok_or_else(|| missing(field))
    }

    /// A list of no more than `max` items, if it is there.
    pub fn list_if_any(&mut self, field: &'static str, max: usize) -> Result<Option<Vec<Value>>, Problem> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Array(items)) if items.len() <= max => Ok(Some(items)),
            Some(Value::Array(items)) => {
                Err(Problem::field(field, format!("{field} may have at most {max} items, not {}", items.len())))
            }
            Some(_) => Err(Problem::field(field, format!("{field} must be a list"))),
        }
    }

    /// Anything.
    pub fn any(&mut self, field: &'static str) -> Value {
        self.take(field).unwrap_or(Value::Null)
    }

    /// A name that must be there.
    pub fn name(&mut self, field: &'static str) -> Result<Name, Problem> {
        let text = self.text(field)?.ok_or_else(|| missing(field))?;
        Name::new(&text).map_err(|e| Problem::field(field, format!("{field}: {e}")))
    }

    /// A fencing token that must be there.
    pub fn token(&mut self, field: &'static str) -> Result<Token, Problem> {
        let max = limits::TOKEN_END as i64 - 1;
        let token = self.integer(field, 0, max)?.ok_or_else(|| missing(field))?;
        Ok(Token(token.unsigned_abs()))
    }
}

/// A field is not there that must be.
pub fn missing(field: &str) -> Problem {
    Problem::invalid("missing-field", format!("{field} is needed")).with("field", field)
}

/// JSON has one kind of numbers: 1.0 is 1.
fn whole(value: &Value) -> Option<i64> {
    let spelled = |number: &f64| number.fract() == 0.0 && number.abs() < limits::TOKEN_END as f64;
    value.as_i64().or_else(|| value.as_f64().filter(spelled).map(|number| number as i64))
}

fn bounds(min: Millis, max: Millis) -> String {
    let seconds = |ms: Millis| ms.0 as f64 / 1000.0;
    format!("must be from {} to {} seconds", seconds(min), seconds(max))
}

/// Seconds as milliseconds, if they are within bounds. Not a number is within none.
pub fn millis(seconds: f64, min: Millis, max: Millis) -> Option<Millis> {
    let ms = (seconds * 1000.0).round();
    let within = ms >= min.0 as f64 && ms <= max.0 as f64 && seconds >= 0.0;
    within.then_some(Millis(ms as u64))
}

/// A header's number of seconds, within bounds.
pub fn header_seconds(name: &str, text: &str, min: Millis, max: Millis) -> Result<Duration, Problem> {
    let parsed = text.parse().ok().and_then(|seconds| millis(seconds, min, max));
    let ms = parsed.ok_or_else(|| Problem::field(name, format!("{name}: {}", bounds(min, max))))?;
    Ok(Duration::from_millis(ms.0))
}

/// Reads an object's fields in order, and remembers which one it is at.
struct Reader<'a> {
    field: &'a mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Fields;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Fields, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields: Vec<(String, Value)> = Vec::with_capacity(8);
        while let Some(name) = map.next_key::<String>()? {
            if fields.len() >= 64 {
                return Err(serde::de::Error::custom("no call has so many fields"));
            }
            let twice = fields.iter().any(|(known, _)| *known == name);
            *self.field = Some(name);
            if twice {
                return Err(serde::de::Error::custom("the field comes twice"));
            }
            let value = map.next_value()?;
            fields.extend(self.field.take().map(|name| (name, value)));
        }
        Ok(fields.into())
    }
}

impl From<Vec<(String, Value)>> for Fields {
    fn from(fields: Vec<(String, Value)>) -> Fields {
        Fields { fields, shape: None }
    }
}
