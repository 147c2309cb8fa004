//! Which call a path means, to the letter.

use http::Method;
use wardlock_machine::{Name, SessionId};
use wardlock_placement::GroupId;
use wardlock_router::http::path::{BadName, Route, Unroutable, pairs, route};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn at(method: &str, path: &str) -> Result<Route, Unroutable> {
    route(&method.parse::<Method>().unwrap(), &format!("/api/v1{path}"))
}

#[test]
fn given_calls_take_slashes_raw_or_escaped() {
    for (method, path, route) in [
        ("POST", "/locks/a/acquire", Route::Acquire(name("a"))),
        ("POST", "/locks/orders/42/acquire", Route::Acquire(name("orders/42"))),
        ("POST", "/locks/orders%2F42/acquire", Route::Acquire(name("orders/42"))),
        ("POST", "/locks/orders%2f42/release", Route::Release(name("orders/42"))),
        ("POST", "/locks/acquire/acquire", Route::Acquire(name("acquire"))),
        ("POST", "/locks/a/acquire/release", Route::Release(name("a/acquire"))),
        ("POST", "/locks/a%2Facquire/release", Route::Release(name("a/acquire"))),
        ("GET", "/locks/a", Route::Lock(name("a"))),
        ("HEAD", "/locks/a", Route::Lock(name("a"))),
        ("GET", "/locks/a/acquire", Route::Lock(name("a/acquire"))),
        ("GET", "/locks/a/b/c", Route::Lock(name("a/b/c"))),
        ("POST", "/leader/election/e", Route::Elect(name("e"))),
        ("POST", "/leader/election/a/b", Route::Elect(name("a/b"))),
        ("POST", "/leader/election/resign", Route::Elect(name("resign"))),
        ("POST", "/leader/election/a/resign", Route::Elect(name("a/resign"))),
        ("GET", "/leader/e", Route::Leader(name("e"))),
        ("GET", "/leader/a/b", Route::Leader(name("a/b"))),
        ("GET", "/leader/election/a", Route::Leader(name("election/a"))),
        ("GET", "/leader/election/observe", Route::Leader(name("election/observe"))),
        ("GET", "/leader/election", Route::Leader(name("election"))),
    ] {
        assert_eq!(at(method, path), Ok(route), "{method} {path}");
    }
}

#[test]
fn added_calls() {
    let id = SessionId(0x9f3c);
    for (method, path, route) in [
        ("GET", "/locks", Route::Locks),
        ("GET", "/openapi.json", Route::OpenApi),
        ("GET", "/config", Route::Configs),
        ("GET", "/watch", Route::Watch),
        ("GET", "/config/a/b", Route::Config(name("a/b"))),
        ("HEAD", "/config/a%2Fb", Route::Config(name("a/b"))),
        ("GET", "/config/a/rollback", Route::Config(name("a/rollback"))),
        ("GET", "/services", Route::Services),
        ("GET", "/services/a%2Fb", Route::Service(name("a/b"))),
        ("GET", "/services/instances", Route::Service(name("instances"))),
        ("GET", "/services/a/instances/i%2F1", Route::Instance(name("a"), name("i/1"))),
        ("PUT", "/services/a/instances/instances", Route::PutInstance(name("a"), name("instances"))),
        ("DELETE", "/services/a/instances/b", Route::DeleteInstance(name("a"), name("b"))),
        ("POST", "/services/a/instances/heartbeat/heartbeat", Route::Heartbeat(name("a"), name("heartbeat"))),
        ("PUT", "/config/a/b", Route::PutConfig(name("a/b"))),
        ("PUT", "/config/a/rollback", Route::PutConfig(name("a/rollback"))),
        ("DELETE", "/config/a/b", Route::DeleteConfig(name("a/b"))),
        ("POST", "/config/a/b/rollback", Route::RollbackConfig(name("a/b"))),
        ("POST", "/config/rollback/rollback", Route::RollbackConfig(name("rollback"))),
        ("POST", "/locks/a%2Fb/renew", Route::Renew(name("a/b"))),
        ("POST", "/locks/a/b/renew", Route::Renew(name("a/b"))),
        ("POST", "/locks/a%2Fb/break", Route::Break(name("a/b"))),
        ("POST", "/leader/a%2Fb/resign", Route::Resign(name("a/b"))),
        ("POST", "/leader/%65lection/resign", Route::Resign(name("election"))),
        ("GET", "/leader/a%2Fb/observe", Route::Observe(name("a/b"))),
        ("POST", "/leader/a/b/proclaim", Route::Proclaim(name("a/b"))),
        ("POST", "/leader/election/proclaim", Route::Elect(name("proclaim"))),
        ("GET", "/leader/%65lection/observe", Route::Observe(name("election"))),
        ("GET", "/leader/a/b/observe", Route::Leader(name("a/b/observe"))),
        ("GET", "/leader/a%2Fobserve", Route::Leader(name("a/observe"))),
        ("POST", "/sessions", Route::OpenSession),
        ("GET", "/sessions", Route::Sessions),
        ("GET", "/sessions/00000000000000000000000000009f3c", Route::Session(id)),
        ("DELETE", "/sessions/00000000000000000000000000009f3c", Route::CloseSession(id)),
        ("POST", "/sessions/00000000000000000000000000009f3c/keepalive", Route::KeepAlive(id)),
        ("POST", "/webhooks", Route::AddWebhook),
        ("GET", "/webhooks", Route::Webhooks),
        ("GET", "/webhooks/h1", Route::Webhook(name("h1"))),
        ("DELETE", "/webhooks/h%2F1", Route::DropWebhook(name("h/1"))),
        ("GET", "/webhooks/h1/dead", Route::DeadLetters(name("h1"))),
        ("DELETE", "/webhooks/h1/dead", Route::ForgetDead(name("h1"))),
        ("POST", "/webhooks/h1/redrive", Route::Redrive(name("h1"))),
        ("POST", "/fence/check", Route::FenceCheck),
        ("GET", "/fence/auth", Route::FenceAuth),
        ("DELETE", "/fence/auth/orders/42", Route::FenceAuth),
        ("POST", "/batch", Route::Batch),
        ("GET", "/cluster", Route::Cluster),
        ("GET", "/cluster/shards", Route::Shards),
        ("GET", "/cluster/nodes", Route::Nodes),
        ("POST", "/cluster/shards/12/transfer", Route::Transfer(GroupId(12))),
        ("GET", "/livez", Route::Livez),
        ("GET", "/readyz", Route::Readyz),
        ("GET", "/metrics", Route::Metrics),
    ] {
        assert_eq!(at(method, path), Ok(route), "{method} {path}");
    }
    assert_eq!(route(&Method::GET, "/livez"), Ok(Route::Livez));
    assert_eq!(route(&Method::GET, "/metrics"), Ok(Route::Metrics));
}

#[test]
fn names_are_opaque_once_decoded() {
    for (raw, decoded) in [
        ("%2e%2e", ".."),
        ("..", ".."),
        ("../x", "../x"),
        ("a//b", "a//b"),
        ("a/", "a/"),
        ("%00", "\0"),
        ("%25", "%"),
        ("%252F", "%2F"),
        ("a+b", "a+b"),
        ("%C3%A9", "é"),
        ("é", "é"),
        (" ", " "),
        ("{t}/1", "{t}/1"),
    ] {
        assert_eq!(at("GET", &format!("/locks/{raw}")), Ok(Route::Lock(name(decoded))), "{raw}");
        assert_eq!(at("POST", &format!("/locks/{raw}/acquire")), Ok(Route::Acquire(name(decoded))), "{raw}");
        assert_eq!(at("POST", &format!("/leader/election/{raw}")), Ok(Route::Elect(name(decoded))), "{raw}");
    }
    let longest = "%C3%A9".repeat(512);
    assert_eq!(at("GET", &format!("/locks/{longest}")), Ok(Route::Lock(name(&"é".repeat(512)))));
}

#[test]
fn bad_names_are_refused() {
    for raw in ["%", "%2", "%zz", "a%2", "%%%", "% 41", "%+1", "%é"] {
        assert_eq!(at("GET", &format!("/locks/{raw}")), Err(Unroutable::Name(BadName::Escape)), "{raw}");
    }
    // A stray byte, an overlong slash, half a surrogate pair, beyond the last code point.
    for raw in ["%FF", "%C0%AF", "%ED%A0%80", "%F4%90%80%80"] {
        assert_eq!(at("GET", &format!("/locks/{raw}")), Err(Unroutable::Name(BadName::NotUtf8)), "{raw}");
    }
    let long = ["a".repeat(1025), "%61".repeat(1025), format!("{}%2F", "a".repeat(1024))];
    for path in long.iter().map(|raw| format!("/locks/{raw}/acquire")).chain(["/locks//acquire".into()]) {
        assert!(matches!(at("POST", &path), Err(Unroutable::Name(BadName::Length(_)))), "{path}");
    }
    assert!(matches!(at("GET", "/locks/"), Err(Unroutable::Name(BadName::Length(_)))));
    assert!(matches!(at("POST", "/leader/election/"), Err(Unroutable::Name(BadName::Length(_)))));
}

#[test]
fn what_is_not_there() {
    for (method, path) in [
        ("GET", ""),
        ("GET", "/"),
        ("GET", "/nothing"),
        ("GET", "/locksmith"),
        ("GET", "/l%6Fcks/a"),
        ("GET", "/services/a/b"),
        ("GET", "/configs"),
        ("POST", "/locks:acquire"),
        ("POST", "/txn"),
        ("GET", "/leader"),
        ("GET", "/batch/x"),
        ("GET", "/fence"),
        ("GET", "/fence/authority"),
        ("POST", "/cluster/shards/x/transfer"),
        ("POST", "/cluster/shards/-1/transfer"),
        ("POST", "/cluster/shards/99999999999/transfer"),
        ("POST", "/sessions/00000000000000000000000000009f3c/other"),
    ] {
        assert_eq!(at(method, path), Err(Unroutable::NotFound), "{method} {path}");
    }
    assert_eq!(route(&Method::GET, "/locks/a"), Err(Unroutable::NotFound));
    assert_eq!(route(&Method::GET, "/api/v2/locks/a"), Err(Unroutable::NotFound));
    assert_eq!(route(&Method::GET, "/api/v1x/locks/a"), Err(Unroutable::NotFound));
    assert_eq!(at("GET", "/sessions/nobody"), Err(Unroutable::NoSuchSession));
}

#[test]
fn wrong_methods_hear_the_right_ones() {
    for (method, path, allow) in [
        ("POST", "/locks", "GET, HEAD"),
        ("POST", "/locks/a", "GET, HEAD"),
        ("POST", "/locks/acquire", "GET, HEAD"),
        ("POST", "/locks/a/steal", "GET, HEAD"),
        ("DELETE", "/locks/a", "GET, HEAD"),
        ("PUT", "/locks/a/acquire", "GET, HEAD, POST"),
        ("POST", "/leader/a", "GET, HEAD"),
        ("PUT", "/leader/election/a", "GET, HEAD, POST"),
        ("DELETE", "/sessions", "GET, HEAD, POST"),
        ("POST", "/sessions/00000000000000000000000000009f3c", "GET, HEAD, DELETE"),
        ("GET", "/sessions/00000000000000000000000000009f3c/keepalive", "POST"),
        ("GET", "/batch", "POST"),
        ("PUT", "/webhooks", "GET, HEAD, POST"),
        ("POST", "/webhooks/h1", "GET, HEAD, DELETE"),
        ("POST", "/webhooks/h1/dead", "GET, HEAD, DELETE"),
        ("GET", "/webhooks/h1/redrive", "POST"),
        ("GET", "/fence/check", "POST"),
        ("POST", "/cluster", "GET, HEAD"),
        ("GET", "/cluster/shards/1/transfer", "POST"),
        ("POST", "/livez", "GET, HEAD"),
        ("OPTIONS", "/locks/a", "GET, HEAD"),
    ] {
        assert_eq!(at(method, path), Err(Unroutable::Method(allow)), "{method} {path}");
    }
}

#[test]
fn queries_are_decoded_as_forms() {
    let all = pairs("prefix=a%2Fb&x=1+2&&flag&e=").collect::<Result<Vec<_>, _>>().unwrap();
    let all: Vec<_> = all.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(all, [("prefix", "a/b"), ("x", "1 2"), ("flag", ""), ("e", "")]);
    assert!(pairs("a=%zz").next().unwrap().is_err());
}
