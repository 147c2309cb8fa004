//! What a `Content-Type` says, as far as it is asked here.

use http::HeaderValue;

/// The type and subtype, without parameters, in lower case.
fn essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether it is JSON, or something that is written in it.
pub(super) fn is_json(media_type: &str) -> bool {
    let essence = essence(media_type);
    let suffixed = essence.split_once('/').and_then(|(_, subtype)| subtype.strip_suffix("+json"));
    essence == "application/json" || suffixed.is_some_and(|word| !word.is_empty())
}

/// Whether a body that calls itself so is read as a JSON document of ours: JSON, or a form, which is what `curl -d`
/// calls everything. That a form may be sent by any site's page opens no door: browsers say where a request comes
/// from, and other sites are refused by that.
pub(super) fn is_document(given: &HeaderValue) -> bool {
    let given = given.to_str().unwrap_or_default();
    is_json(given) || essence(given) == "application/x-www-form-urlencoded"
}

/// Whether it can be kept and sent again: a type and a subtype, and nothing that a header cannot carry.
pub(super) fn is_sound(media_type: &str) -> bool {
    let token = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    let sound = essence(media_type).split_once('/').is_some_and(|(of, sub)| token(of) && token(sub));
    sound && media_type.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}
