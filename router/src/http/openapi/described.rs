//! What is said of one call.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use utoipa::{
    ToSchema,
    openapi::{RefOr, Schema},
};

use super::{super::path::PREFIX, codes, shapes};

/// A call, as the document describes it.
pub(in super::super) struct Described {
    pub(super) op: &'static str,
    pub(super) method: &'static str,
    path: &'static str,
    summary: &'static str,
    about: &'static str,
    tag: &'static str,
    parameters: Vec<Value>,
    request: Option<Value>,
    /// The name of the schema of its body.
    pub(super) body: Option<String>,
    answers: BTreeMap<u16, Value>,
    codes: BTreeSet<&'static str>,
    /// Its answers may say how old they are.
    ages: bool,
    pub(super) schemas: BTreeMap<String, Value>,
}

/// A call by `GET`; `op` is its name in metrics, which is its operation's id.
pub(in super::super) fn get(op: &'static str, path: &'static str, summary: &'static str) -> Described {
    Described::new("get", op, path, summary)
}

/// A call by `POST`, which has a body.
pub(in super::super) fn post(op: &'static str, path: &'static str, summary: &'static str) -> Described {
    Described::new("post", op, path, summary).refuses(BODY)
}

/// A call by `PUT`, which has a body.
pub(in super::super) fn put(op: &'static str, path: &'static str, summary: &'static str) -> Described {
    Described::new("put", op, path, summary).refuses(BODY)
}

/// A call by `DELETE`.
pub(in super::super) fn delete(op: &'static str, path: &'static str, summary: &'static str) -> Described {
    Described::new("delete", op, path, summary)
}

/// What any call may be refused with.
const ANY: &[&str] = &["cross-site", "internal", "invalid-field", "invalid-query", "unknown-parameter"];
/// What any body may be refused with.
const BODY: &[&str] = &[
    "incomplete-body",
    "invalid-json",
    "missing-field",
    "request-timeout",
    "too-large",
    "unknown-field",
    "unsupported-media-type",
];
/// What any read may be refused with.
const READ: &[&str] = &["invalid", "not-allowed", "overloaded", "unavailable"];
/// What any write may be refused with, beyond that.
const WRITE: &[&str] = &["disk-full", "outcome-unknown", "quota"];

impl Described {
    fn new(method: &'static str, op: &'static str, path: &'static str, summary: &'static str) -> Described {
        let mut call = Described {
            op,
            method,
            path,
            summary,
            about: "",
            tag: "",
            parameters: Vec::new(),
            request: None,
            body: None,
            answers: BTreeMap::new(),
            codes: ANY.iter().copied().collect(),
            ages: false,
            schemas: BTreeMap::new(),
        };
        for place in path.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
            call.place(place);
        }
        call.header::<shapes::Patience>("X-Wardlock-Timeout", false, json!(2.5), PATIENCE_ABOUT)
    }

    /// A part of the path that its caller chooses.
    fn place(&mut self, place: &'static str) {
        let (schema, example) = match place {
            "sessionId" => (self.schema::<shapes::SessionId>(), json!("00010000000000000000000000009f3c")),
            "shard" => (json!({"type": "integer", "minimum": 0, "maximum": u32::MAX}), json!(1)),
            _ => {
                self.codes.insert("invalid-name");
                match place {
                    "path" => (self.schema::<shapes::Name>(), json!("payments/limit")),
                    "service" => (self.schema::<shapes::Name>(), json!("payments")),
                    "instanceId" => (self.schema::<shapes::InstanceId>(), json!("payments-1")),
                    "webhookId" => (self.schema::<shapes::WebhookId>(), json!("0000000000000000000000000000002a")),
                    _ => (self.schema::<shapes::Name>(), json!("orders/42")),
                }
            }
        };
        self.parameters
            .push(json!({"name": place, "in": "path", "required": true, "schema": schema, "example": example}));
    }

    /// A reference to a type's schema, which goes into the document.
    pub(in super::super) fn schema<T: ToSchema>(&mut self) -> Value {
        if matches!(&*T::name(), "String" | "bool") {
            return serde_json::to_value(T::schema()).unwrap_or_default();
        }
        let mut all: Vec<(String, RefOr<Schema>)> = Vec::new();
        T::schemas(&mut all);
        all.push((T::name().into_owned(), T::schema()));
        for (name, schema) in all {
            // Texts, numbers and lists of them: there is nothing in it that JSON cannot say.
            self.schemas.insert(name, serde_json::to_value(schema).unwrap_or_default());
        }
        json!({"$ref": format!("#/components/schemas/{}", T::name())})
    }

    /// More than its summary says.
    pub(in super::super) fn about(mut self, about: &'static str) -> Described {
        self.about = about;
        self
    }

    /// Its group.
    pub(in super::super) fn tag(mut self, tag: &'static str) -> Described {
        self.tag = tag;
        self
    }

    /// It asks the cluster.
    pub(in super::super) fn reads(self) -> Described {
        self.refuses(READ)
    }

    /// It reads, linearizably or not, as it is asked to.
    pub(in super::super) fn reads_as_asked(self) -> Described {
        let mut call = self
            .reads()
            .refuses(&["too-stale"])
            .query::<shapes::Consistency>("consistency", json!("stale"), "Whether any replica may answer.")
            .query::<shapes::MaxAge>("maxAge", json!(2.5), "With `consistency=stale`: how old it may be, in seconds.");
        call.ages = true;
        call
    }

    /// It changes something, and may be repeated with the same `Idempotency-Key` where it takes one.
    pub(in super::super) fn writes(self, keyed: bool) -> Described {
        let call = self.reads().refuses(WRITE);
        if !keyed {
            return call;
        }
        call.header::<shapes::IdempotencyKey>("Idempotency-Key", false, json!("c6f1b2e0-1"), KEY_ABOUT)
    }

    /// A parameter of its query.
    pub(in super::super) fn query<T: ToSchema>(self, name: &str, example: Value, about: &str) -> Described {
        self.parameter::<T>("query", name, false, example, about)
    }

    /// A header that it reads.
    pub(in super::super) fn header<T: ToSchema>(
        self,
        name: &str,
        required: bool,
        example: Value,
        about: &str,
    ) -> Described {
        self.parameter::<T>("header", name, required, example, about)
    }

    fn parameter<T: ToSchema>(
        mut self,
        place: &str,
        name: &str,
        required: bool,
        example: Value,
        about: &str,
    ) -> Described {
        let schema = self.schema::<T>();
        self.parameters.push(json!({
            "name": name, "in": place, "required": required, "schema": schema, "example": example, "description": about,
        }));
        self
    }

    /// A parameter of its query that may come more than once.
    pub(in super::super) fn query_each<T: ToSchema>(mut self, name: &str, example: Value, about: &str) -> Described {
        let items = self.schema::<T>();
        self.parameters.push(json!({
            "name": name, "in": "query", "explode": true, "style": "form", "description": about,
            "schema": {"type": "array", "items": items, "maxItems": wardlock_machine::limits::PATTERNS},
            "example": [example],
        }));
        self
    }

    /// Which page of a list: `after` and `limit`.
    pub(in super::super) fn pages<After: ToSchema>(self, example: Value) -> Described {
        self.query::<After>("after", example, "Only what comes after this: `next` of the page before.")
            .query::<shapes::Limit>("limit", json!(100), "How many at the most; 100 where it is not said.")
    }

    /// The shape of its body, with an example.
    pub(in super::super) fn takes<T: ToSchema>(mut self, example: Value) -> Described {
        let schema = self.schema::<T>();
        let name = T::name().into_owned();
        self.closed(&name);
        let required = self.schemas[&name].get("required").is_some();
        self.request = Some(json!({
            "required": required,
            "content": {"application/json": {"schema": schema, "example": example}},
        }));
        self.body = Some(name);
        self
    }

    /// What the schema of its body demands beyond its fields, as JSON Schema says it.
    pub(in super::super) fn demands(mut self, key: &str, rule: Value) -> Described {
        if let Some(schema) = self.body.as_ref().and_then(|body| self.schemas.get_mut(body)) {
            schema[key] = rule;
        }
        if let Some(request) = &mut self.request {
            request["required"] = json!(true);
        }
        self
    }

    /// It takes a JSON object that has no fields, or no body at all.
    pub(in super::super) fn takes_nothing(self) -> Described {
        self.takes::<Nothing>(json!({}))
    }

    /// Its body may have another type than JSON, too.
    pub(in super::super) fn takes_also(mut self, media_type: &str, schema: Value, example: Value) -> Described {
        if let Some(request) = &mut self.request {
            request["content"][media_type] = json!({"schema": schema, "example": example});
        }
        self
    }

    /// A body of this shape has no other fields.
    pub(in super::super) fn closed(&mut self, name: &str) {
        if let Some(schema) = self.schemas.get_mut(name) {
            schema["additionalProperties"] = json!(false);
        }
    }

    /// What is part of its body has no other fields either.
    pub(in super::super) fn within<T: ToSchema>(mut self) -> Described {
        self.schema::<T>();
        self.closed(&T::name());
        self
    }

    /// An answer with a document.
    pub(in super::super) fn answers<T: ToSchema>(mut self, status: u16, about: &str, example: Value) -> Described {
        let schema = self.schema::<T>();
        self.answers_as(status, about, "application/json", schema, example)
    }

    /// The document of an answer may be this one instead.
    pub(in super::super) fn or_answers<T: ToSchema>(mut self, status: u16) -> Described {
        let other = self.schema::<T>();
        if let Some(answer) = self.answers.get_mut(&status) {
            let schema = &mut answer["content"]["application/json"]["schema"];
            *schema = json!({"anyOf": [schema.take(), other]});
        }
        self
    }

    /// An answer of any media type.
    pub(in super::super) fn answers_as(
        mut self,
        status: u16,
        about: &str,
        media_type: &str,
        schema: Value,
        example: Value,
    ) -> Described {
        let answer = self.answers.entry(status).or_insert_with(|| json!({"description": about, "content": {}}));
        answer["content"][media_type] = json!({"schema": schema, "example": example});
        self
    }

    /// An answer without a body.
    pub(in super::super) fn answers_nothing(mut self, status: u16, about: &str) -> Described {
        self.answers.insert(status, json!({"description": about}));
        self
    }

    /// A header of an answer.
    pub(in super::super) fn with_header(
        mut self,
        status: u16,
        name: &str,
        required: bool,
        schema: Value,
        about: &str,
    ) -> Described {
        if let Some(answer) = self.answers.get_mut(&status) {
            answer["headers"][name] = json!({"required": required, "schema": schema, "description": about});
        }
        self
    }

    /// The version that an answer is about.
    pub(in super::super) fn tagged(self, status: u16, required: bool) -> Described {
        let schema = json!({"type": "string", "pattern": "^\"[0-9]+\"$"});
        self.with_header(status, "ETag", required, schema, "The version, for If-Match and If-None-Match: `\"3\"`.")
    }

    /// The codes that it may be refused with, beyond those that belong to its kind.
    pub(in super::super) fn refuses(mut self, codes: &[&'static str]) -> Described {
        self.codes.extend(codes);
        self
    }

    /// It is made by a proxy, which sends the headers and the query of a request that is no business of ours.
    pub(in super::super) fn by_proxy(mut self) -> Described {
        self.codes.retain(|code| *code == "internal");
        self.parameters.clear();
        self
    }

    pub(super) fn full_path(&self) -> String {
        format!("{PREFIX}{}", self.path)
    }

    pub(super) fn statuses(&self) -> BTreeSet<u16> {
        let refusals = self.codes.iter().flat_map(|code| codes::statuses(code));
        self.answers.keys().copied().chain(refusals).collect()
    }

    /// The path with its examples in it, as a request has it.
    #[cfg(test)]
    pub(super) fn example_path(&self) -> String {
        let mut path = self.full_path();
        for parameter in self.parameters.iter().filter(|parameter| parameter["in"] == "path") {
            let (name, example) = (parameter["name"].as_str().expect("a name"), &parameter["example"]);
            let example = example.as_str().map_or_else(|| example.to_string(), |text| text.replace('/', "%2F"));
            path = path.replace(&format!("{{{name}}}"), &example);
        }
        path
    }

    pub(super) fn operation(self) -> Value {
        let mut by_status: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
        for code in &self.codes {
            for status in codes::statuses(code) {
                by_status.entry(status).or_default().push(code);
            }
        }
        let aged = |status: u16, mut answer: Value| {
            // What nobody could be asked about has no age.
            if self.ages && (status < 400 || matches!(status, 404 | 410)) {
                answer["headers"]["Wardlock-Age"] = age();
            }
            (status.to_string(), answer)
        };
        let answers = self.answers.into_iter().map(|(status, answer)| aged(status, answer));
        let refusals = by_status.into_iter().map(|(status, codes)| aged(status, refusal(status, &codes)));
        let head = ("431".to_owned(), json!({"description": "The request's head has more than 16 KiB."}));
        let responses: Map<String, Value> = answers.chain(refusals).chain([head]).collect();
        let mut operation = json!({
            "operationId": self.op,
            "summary": self.summary,
            "tags": [self.tag],
            "parameters": self.parameters,
            "responses": responses,
        });
        if !self.about.is_empty() {
            operation["description"] = self.about.into();
        }
        if let Some(request) = self.request {
            operation["requestBody"] = request;
        }
        operation
    }
}

/// The header that says how old an answer may be.
fn age() -> Value {
    json!({
        "required": false,
        "schema": {"type": "string", "pattern": "^(unknown|[0-9]+\\.[0-9]{3})$"},
        "description": "Of a stale read: how old it may be, in seconds, or `unknown`.",
    })
}

/// The refusals that a call has with one status.
fn refusal(status: u16, codes: &[&str]) -> Value {
    let about: Vec<String> = codes.iter().map(|code| format!("- `{code}`: {}", codes::meaning(code, status))).collect();
    let examples: Map<String, Value> = codes
        .iter()
        .map(|code| ((*code).to_owned(), json!({"$ref": format!("#/components/examples/{code}-{status}")})))
        .collect();
    let mut refusal = json!({
        "description": about.join("\n"),
        "content": {"application/problem+json": {
            "schema": {"allOf": [
                {"$ref": "#/components/schemas/Problem"},
                {"type": "object", "properties": {"code": {"enum": codes}, "status": {"const": status}}},
            ]},
            "examples": examples,
        }},
    });
    if status == 503 {
        let schema = json!({"type": "integer", "minimum": 1});
        refusal["headers"]["Retry-After"] =
            json!({"required": true, "schema": schema, "description": "When to try again, in seconds."});
    }
    refusal
}

const PATIENCE_ABOUT: &str = "How long the call may take beyond its `wait`, in seconds; 5 where it is not said.";
const KEY_ABOUT: &str =
    "Makes a repeat safe: the same key with the same call is answered the same again for ten minutes.";

/// A body without fields.
#[derive(ToSchema)]
struct Nothing {}
