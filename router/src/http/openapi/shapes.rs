//! Texts and numbers with their bounds, as schemas. A bound is taken from where it is checked, never written twice.

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        KnownFormat, Object, Ref, RefOr, Schema, SchemaFormat, Type,
        schema::{AdditionalProperties, AnyOfBuilder, ArrayBuilder, ObjectBuilder, OneOfBuilder},
    },
};
use wardlock_machine::{Health, Millis, limits};

use super::super::{call, consistency, render, watch};

macro_rules! shape {
    ($($(#[$doc:meta])* $vis:vis struct $name:ident = $schema:expr;)*) => {$(
        $(#[$doc])*
        $vis struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                RefOr::T(Schema::Object($schema.build()))
            }
        }

        impl ToSchema for $name {}
    )*};
}

shape! {
    /// Of a lock, an election or a path.
    pub(crate) struct Name = text(1, limits::NAME_BYTES).description(Some("Opaque; lengths are in bytes of UTF-8."));

    /// Of a path of the configuration that is answered, or of a prefix that is asked for.
    pub(crate) struct Prefix = text(0, limits::NAME_BYTES).description(Some("Names that start so."));

    /// A client id, a candidate's id, a reason.
    pub(crate) struct Label = text(1, limits::LABEL_BYTES);

    pub(crate) struct SessionId = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some("^[0-9a-f]{32}$"))
        .description(Some("A client's identity and liveness, for the whole cluster."))
        .examples(["00010000000000000000000000009f3c"]);

    pub(crate) struct LockId = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some("^[0-9a-f]{32}-(0|[1-9][0-9]{0,15})-[0-9a-f]{8}$"))
        .description(Some("One grant: its session, its fencing token, and a tag of its lock."))
        .examples(["00010000000000000000000000009f3c-1042-00000007"]);

    /// Rises with every grant of a shard.
    pub(crate) struct FencingToken = whole(0, limits::TOKEN_END - 1)
        .description(Some("Rises with every grant of a shard. The guarded resource refuses a lower one than it has seen."));

    /// Of a shard.
    pub(crate) struct Revision = whole(0, u64::MAX >> 1).description(Some("The shard's counter of events."));

    /// Of a path of the configuration.
    pub(crate) struct Version = whole(0, u64::MAX >> 1)
        .description(Some("Rises by one with each change of its path; 0 where there is none."));

    /// Of a thing that counts.
    pub(crate) struct Count = whole(0, u64::MAX >> 1);

    pub(crate) struct Metadata = ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(AdditionalProperties::RefOr(RefOr::T(Schema::Object(Object::with_type(Type::String))))))
        .max_properties(Some(limits::METADATA_ENTRIES))
        .description(Some(format!("Texts for people, at most {} bytes in all.", limits::METADATA_BYTES)));

    /// From where a watch goes on.
    pub(crate) struct WatchToken = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some("^[A-Za-z0-9_-]+$"))
        .description(Some("Opaque: from where a watch goes on. It is sent back whole."));

    /// Of a session.
    pub(crate) struct Ttl = seconds(limits::SESSION_TTL_MIN, limits::SESSION_TTL_MAX);

    /// Of a lock.
    pub(crate) struct Lease = seconds(limits::LEASE_MIN, limits::LEASE_MAX);

    /// In a queue, or behind a lost grant.
    pub(crate) struct Wait = seconds(Millis(0), limits::LEASE_MAX);

    /// Of a semaphore.
    pub(crate) struct Permits = whole(1, limits::HOLDERS as u64);

    /// In a queue.
    pub(crate) struct Priority = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)))
        .minimum(Some(i32::MIN))
        .maximum(Some(i32::MAX))
        .description(Some("Higher ones go first; FIFO within one."));

    /// Of a call, beyond its `wait`.
    pub(crate) struct Patience = seconds(call::PATIENCE_MIN, call::PATIENCE_MAX);

    /// Of a call and its repeats.
    pub(crate) struct IdempotencyKey = text(1, call::KEY_BYTES);

    /// Of a page.
    pub(crate) struct Limit = whole(1, limits::PAGE as u64);

    /// Of a page of events.
    pub(crate) struct LongPoll = seconds(Millis(0), watch::WAIT_MAX);

    /// Of a version.
    pub(crate) struct EntityTag = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^\"[0-9]{1,18}\"$"));

    /// Of no version.
    pub(crate) struct Star = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["*"]));

    /// Of a node.
    pub(crate) struct NodeId = whole(1, u32::MAX.into());

    /// Of a read that may be stale.
    pub(crate) struct MaxAge = seconds(Millis(0), consistency::MAX_AGE);

    /// Of a read.
    pub(crate) struct Consistency = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(["linearizable", "stale"]))
        .description(Some("Linearizable where it is not said; stale ones are answered by any replica."));

    /// Of a service. In a path it is one segment.
    pub(crate) struct InstanceId = text(1, limits::LABEL_BYTES).description(Some("Unique in its service."));

    /// Where an instance listens.
    pub(crate) struct Port = whole(1, u16::MAX.into());

    /// Of an instance, beside the others of its service.
    pub(crate) struct Weight = whole(0, u16::MAX.into()).description(Some("1 where it is not said; 0 for none."));

    /// How an instance fares.
    pub(crate) struct InstanceHealth = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(Health::ALL.map(Health::name)))
        .description(Some("Healthy are those that are not critical."));

    /// Of a webhook. It is made by the cluster.
    pub(crate) struct WebhookId = text(1, limits::NAME_BYTES).examples(["0000000000000000000000000000002a"]);

    /// Where a webhook's events go.
    pub(crate) struct Url = text(1, limits::HOOK_URL_BYTES)
        .pattern(Some("^https?://"))
        .description(Some("An absolute URL of http or https, without a user and without a fragment."));

    /// By which a target knows a delivery.
    pub(crate) struct Secret = text(limits::HOOK_SECRET_BYTES_MIN, limits::HOOK_SECRET_BYTES);
}

macro_rules! lists {
    ($($(#[$doc:meta])* $vis:vis struct $name:ident = $max:expr, $of:ty;)*) => {$(
        $(#[$doc])*
        $vis struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                ArrayBuilder::new().items(Ref::from_schema_name(<$of>::name())).max_items(Some($max)).build().into()
            }
        }

        impl ToSchema for $name {
            fn schemas(all: &mut Vec<(String, RefOr<Schema>)>) {
                <$of>::schemas(all);
                all.push((<$of>::name().into_owned(), <$of>::schema()));
            }
        }
    )*};
}

lists! {
    /// Of an instance.
    pub(crate) struct Tags = limits::TAGS, Label;
    /// What is watched.
    pub(crate) struct Names = limits::PATTERNS, Name;
    /// What is watched, by how it starts.
    pub(crate) struct Prefixes = limits::PATTERNS, Prefix;
    /// Of what kind that is which is watched.
    pub(crate) struct Kinds = limits::PATTERNS, watch::spec::Kind;
}

macro_rules! one_or_more {
    ($($vis:vis struct $name:ident = $one:ty, $list:ty;)*) => {$(
        /// One, or a list of them.
        $vis struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let choices = OneOfBuilder::new().item(Ref::from_schema_name(<$one>::name()));
                let choices = choices.item(<$list>::schema()).description(Some("One, or a list of them."));
                RefOr::T(Schema::OneOf(choices.build()))
            }
        }

        impl ToSchema for $name {
            fn schemas(all: &mut Vec<(String, RefOr<Schema>)>) {
                <$list>::schemas(all);
            }
        }
    )*};
}

one_or_more! {
    pub(crate) struct NameOrNames = Name, Names;
    pub(crate) struct PrefixOrPrefixes = Prefix, Prefixes;
    pub(crate) struct KindOrKinds = watch::spec::Kind, Kinds;
}

fn text(min: usize, max: usize) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).min_length(Some(min)).max_length(Some(max))
}

fn whole(min: u64, max: u64) -> ObjectBuilder {
    // The document is JSON, and so are its readers' numbers.
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(min as usize)).maximum(Some(max))
}

fn seconds(min: Millis, max: Millis) -> ObjectBuilder {
    let of = |length: Millis| length.0 as f64 / 1000.0;
    ObjectBuilder::new()
        .schema_type(Type::Number)
        .minimum(Some(of(min)))
        .maximum(Some(of(max)))
        .description(Some("Seconds; they may have a fraction."))
}

impl PartialSchema for render::Rfc3339 {
    fn schema() -> RefOr<Schema> {
        let format = Some(SchemaFormat::KnownFormat(KnownFormat::DateTime));
        RefOr::T(Schema::Object(ObjectBuilder::new().schema_type(Type::String).format(format).build()))
    }
}

impl ToSchema for render::Rfc3339 {}

impl PartialSchema for render::Seconds {
    fn schema() -> RefOr<Schema> {
        let seconds = ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0));
        RefOr::T(Schema::Object(seconds.description(Some("In seconds.")).build()))
    }
}

impl ToSchema for render::Seconds {}

/// Where an instance is: a host name or an IP address, without a port.
pub(crate) struct Address;

impl PartialSchema for Address {
    fn schema() -> RefOr<Schema> {
        let host = text(1, limits::ADDRESS_BYTES)
            .pattern(Some(r"^[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?$"))
            .description(Some("A host name or an IPv4 address."))
            .examples(["10.0.0.7"]);
        let six = ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Ipv6)))
            .description(Some("An IPv6 address."));
        RefOr::T(Schema::AnyOf(AnyOfBuilder::new().item(host).item(six).build()))
    }
}

impl ToSchema for Address {}

/// How a lock is held.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "a shape")]
pub(crate) enum Mode {
    /// By one.
    Exclusive,
    /// By any number.
    Shared,
    /// By as many as it has permits.
    Semaphore,
}
