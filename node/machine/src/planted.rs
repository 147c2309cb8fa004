//! Mistakes on purpose, to prove that the tests find mistakes.
//!
//! `planted!("name")` stands where the code would go wrong if that mistake were in it, and is `false`. Only a
//! build with `RUSTFLAGS="--cfg wardlock_planted"`, in a target directory of its own, can switch one on, by
//! [`plant`] or the environment variable `WARDLOCK_PLANT`; in every other build the compiler removes the
//! question and the name.

/// Whether the mistake of this name is to be made here.
#[macro_export]
macro_rules! planted {
    ($name:literal) => {
        cfg!(wardlock_planted) && $crate::planted::is($name)
    };
}

#[cfg(wardlock_planted)]
static PLANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();

/// Switches a mistake on for the life of the process, before anything asked. False: it is too late.
#[cfg(wardlock_planted)]
pub fn plant(name: &str) -> bool {
    PLANTED.set(Some(name.to_owned())).is_ok()
}

/// Switches a mistake on. False: this build has none.
#[cfg(not(wardlock_planted))]
pub fn plant(_: &str) -> bool {
    false
}

/// Whether this mistake is switched on.
#[cfg(wardlock_planted)]
pub fn is(name: &str) -> bool {
    PLANTED.get_or_init(|| std::env::var("WARDLOCK_PLANT").ok()).as_deref() == Some(name)
}

/// Whether this mistake is switched on: never, in this build.
#[cfg(not(wardlock_planted))]
#[inline(always)]
pub const fn is(_: &str) -> bool {
    false
}
